"""A miniature of Ubuntu's servers on loopback: the same tree, signed with a test key, and faults on demand."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import re
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pysequoia import SignatureMode, Tsk, sign

from builder.media.source.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CODENAMES = {"20.04": "focal", "22.04": "jammy", "24.04": "noble", "25.10": "questing", "26.04": "resolute"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    ``status`` replaces the answer, ``headers`` some of its headers; ``redirect`` sends elsewhere; ``cut`` ends the
    connection after so many bytes of the body; ``stall`` stops sending there without ending it; ``length`` is
    added to the Content-Length that is told; ``drip`` sends pieces of so many bytes, with ``pause`` seconds
    between; ``whole`` heeds no Range; ``body`` is sent instead of the file; ``shift`` answers another part than
    asked for; ``unmeasured`` tells no length.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    cut: int | None = None
    stall: int | None = None
    length: int = 0
    drip: int = 0
    pause: float = 0.0
    whole: bool = False
    body: bytes | None = None
    shift: int = 0
    unmeasured: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that came, and how many bytes of the body were sent."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    sent: list[int]


@dataclass
class Mirror:
    """The server's files by path, its faults by path (each used once, in turn), and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: dict[str, Fault] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def fault(self, path: str) -> Fault:
        """Take the next fault of a path."""
        waiting = self.faults.get(path)
        return waiting.pop(0) if waiting else self.always.get(path, Fault())

    def times(self, path: str, method: str = "GET") -> int:
        """Return how often a path was asked for."""
        return sum(one.path == path and one.method == method for one in self.asked)

    def sent(self, path: str) -> int:
        """Return how many bytes of a path's file were sent in all."""
        return sum(one.sent[0] for one in self.asked if one.path == path and one.method == "GET")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, mirror: Mirror, *rest: Any) -> None:
        self.mirror = mirror
        super().__init__(*rest)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(Fault(), body=False)

    def do_GET(self) -> None:
        self.answer(self.mirror.fault(self.path), body=True)

    def do_CONNECT(self) -> None:
        """Be a proxy that gives no way to where it is asked to go, or the one that the fault sends to."""
        fault = self.mirror.fault(self.path)
        self.mirror.asked.append(Asked(self.command, self.path, None, None, [0]))
        if not fault.redirect:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        host, port = fault.redirect.split(":")
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with socket.create_connection((host, int(port))) as there:
            back = threading.Thread(target=relay, args=(there, self.connection), daemon=True)
            back.start()
            relay(self.connection, there)
            back.join(10)

    def answer(self, fault: Fault, *, body: bool) -> None:
        mirror, sent = self.mirror, [0]
        wanted, if_range = self.headers.get("Range"), self.headers.get("If-Range")
        mirror.asked.append(Asked(self.command, self.path, wanted, if_range, sent))
        content = self.listing() if fault.body is None else fault.body
        if fault.redirect or fault.status or content is None:
            self.send_response(302 if fault.redirect else fault.status or 404)
            for name, value in {**fault.headers, **({"Location": fault.redirect} if fault.redirect else {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        start = int(match[1]) if match and not fault.whole and if_range in {None, etag} else 0
        if match and start >= len(content) > 0 and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = max(start - fault.shift, 0)
        rest = content[start:]
        self.send_response(206 if start else 200)
        headers = {"ETag": etag, "Content-Length": str(len(rest) + fault.length)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault.unmeasured:
            headers["Connection"] = "close"
            del headers["Content-Length"]
            self.close_connection = True
        for name, value in {**headers, **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.pour(rest, fault, sent)

    def pour(self, rest: bytes, fault: Fault, sent: list[int]) -> None:
        end = next((limit for limit in (fault.cut, fault.stall) if limit is not None), len(rest))
        step = fault.drip or 1 << 16
        try:
            for at in range(0, min(end, len(rest)), step):
                piece = rest[at : min(at + step, end)]
                self.wfile.write(piece)
                self.wfile.flush()
                sent[0] += len(piece)
                if fault.pause:
                    time.sleep(fault.pause)
            if fault.stall is not None:
                self.mirror.released.wait(60)
        except OSError:
            pass
        if fault.cut is not None or fault.stall is not None or fault.length > 0:
            self.close_connection = True

    def listing(self) -> bytes | None:
        """Return a file, or a folder's listing as Apache makes it."""
        files = self.mirror.files
        if self.path in files:
            return files[self.path]
        below = {name[len(self.path) :].split("/")[0] for name in files if name.startswith(self.path)}
        if not self.path.endswith("/") or not below:
            return None
        rows = (f'<img src="/icons/folder.gif"> <a href="{name}/">{name}/</a> 2025-08-07' for name in sorted(below))
        return f"<html><title>Ubuntu</title><pre>{chr(10).join(rows)}</pre></html>".encode()


def relay(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, until it ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes] | None = None, certificate: tuple[Path, Path] | None = None) -> Iterator[Mirror]:
    """Serve ``files`` on loopback, by TLS if a certificate and its key are given."""
    mirror = Mirror({} if files is None else files)
    with Server(("127.0.0.1", 0), functools.partial(Handler, mirror)) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        mirror.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.released.set()
            server.shutdown()
            thread.join()


@functools.cache
def key() -> Tsk:
    """Return the test key."""
    return Tsk.generate("Mirror Test Key <mirror@example.org>")


def signed(data: bytes, signer: Tsk | None = None) -> bytes:
    """Return a detached, armored signature."""
    made: bytes = sign((signer or key()).signer(), data, mode=SignatureMode.DETACHED)
    return made


def trust(folder: Path, *, skip: bool = False) -> Trust:
    """Return a trust in the test key, and in nothing of the host's."""
    path = folder / "test-key.asc"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(str(key().extract_certificate()))
    fingerprint = key().extract_certificate().fingerprint.upper()
    return Trust(folder, path, skip=skip, pin=fingerprint, keyrings=(), servers=())


def iso(version: str, arch: str = "amd64", size: int = 300_000) -> bytes:
    """Return bytes that stand for an ISO."""
    seed = f"{version} {arch} ".encode()
    return (seed * (size // len(seed) + 1))[:size]


def name_of(version: str, arch: str = "amd64") -> str:
    """Return the file name Ubuntu gives an ISO."""
    return f"ubuntu-{version}-live-server-{arch}.iso"


def sums(isos: dict[str, bytes]) -> bytes:
    """Return a SHA256SUMS."""
    return "".join(f"{hashlib.sha256(data).hexdigest()} *{name}\n" for name, data in isos.items()).encode()


def folder(isos: dict[str, bytes], signer: Callable[[bytes], bytes] = signed) -> dict[str, bytes]:
    """Return the files of one folder of releases: the ISOs, their list, and its signature."""
    listed = sums(isos)
    return {**isos, "SHA256SUMS": listed, "SHA256SUMS.gpg": signer(listed)}


def release(version: str, *archs: str, base: str = "") -> dict[str, bytes]:
    """Return the folders of a point release as releases.ubuntu.com has them: by series and by version."""
    isos = {name_of(version, arch): iso(version, arch) for arch in archs or ("amd64",)}
    files = folder({"ubuntu-24.04-desktop-amd64.iso": b"not this one", **isos})
    series = ".".join(version.split(".")[:2])
    return {f"{base}/{place}/{name}": data for place in {version, series} for name, data in files.items()}


def streams(versions: dict[str, list[str]], base: str = "") -> dict[str, bytes]:
    """Return the simplestreams of point releases with their architectures; the newest of a series is listed last."""
    products: dict[str, Any] = {}
    for version, archs in versions.items():
        series = ".".join(version.split(".")[:2])
        for arch in archs:
            product = products.setdefault(
                f"com.ubuntu.releases:ubuntu-server:live-server:{series}:{arch}",
                {
                    "arch": arch,
                    "image_type": "live-server",
                    "os": "ubuntu-server",
                    "release": CODENAMES[series],
                    "version": series,
                    "versions": {},
                },
            )
            data, code = iso(version, arch), CODENAMES[series]
            item = {
                "ftype": "iso",
                "path": f"{code}/{name_of(version, arch)}",
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
            }
            extra = {"ftype": "manifest", "path": f"{code}/{name_of(version, arch)[:-4]}.manifest", "size": 7}
            product["versions"][version] = {"items": {"iso": item, "manifest": extra}}
    name = "com.ubuntu.releases:ubuntu-server"
    path = f"streams/v1/{name}.json"
    index = {
        "format": "index:1.0",
        "index": {
            name: {"format": "products:1.0", "path": path, "products": sorted(products)},
            "com.ubuntu.releases:ubuntu": {"format": "products:1.0", "path": "streams/v1/desktop.json"},
            "com.ubuntu.cdimage.daily:ubuntu-server": {"format": "products:1.0", "path": "streams/v1/daily.json"},
        },
    }
    whole = {"format": "products:1.0", "content_id": name, "products": products}
    return {
        f"{base}/streams/v1/index.json": json.dumps(index).encode(),
        f"{base}/{path}": json.dumps(whole).encode(),
    }


PINNED = """
import sys
from builder.media.source import trust
trust.Trust.__init__.__defaults__ = tuple(
    sys.argv[1] if value == trust.PIN else value for value in trust.Trust.__init__.__defaults__
)
sys.argv = ["prebake", *sys.argv[2:]]
from builder.cli import main
main()
"""
"""The command line with another pin, which no option and no variable can set."""


def pinned_command(server: Mirror, cache: Path, *words: object) -> list[str]:
    """Return an argument list that runs prebake with the test key in the place of Ubuntu's."""
    whom = trust(cache / "prebake")
    argv = [sys.executable, "-c", PINNED, whom.pin, *(str(word) for word in words)]
    return [*argv, "--mirror", server.url, "--signing-key", str(whom.key_file)]
