"""Is the archive there? Asked of real servers on loopback, before anything is fetched or booted."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from builder.errors import HostError
from builder.events import Note
from builder.reach import settled, unreachable
from builder.spec import Content, Snap, Spec
from tests.command_line import prebake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.events import Event


class Archive(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the address names: /200/dists/ with 200."""

    seen: list[str]

    def do_GET(self) -> None:
        """Answer."""
        self.seen.append(self.path)
        status = int(re.findall(r"/(\d{3})/", self.path)[0])
        if status == 206:  # a mirror that lists no folders
            status = 200 if self.path.endswith("/InRelease") else 403
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200/dists/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    handler = type("Handler", (Archive,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def decide(spec: Spec) -> tuple[Spec, list[str]]:
    said: list[str] = []

    def report(event: Event) -> None:
        assert isinstance(event, Note)
        said.append(event.text)

    return settled(spec, "amd64", report), said


def test_an_archive_that_answers_is_used(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", nobody)  # this host's own proxy is not the guest's
    with serving() as (address, seen):
        for network in ("auto", "nat"):
            spec = Spec(name="x", network=network, mirror=f"{address}/200/")
            assert decide(spec) == (spec, [])
        assert unreachable(f"{address}/302") is None
        assert seen[:2] == ["/200/dists/", "/200/dists/"]


def test_what_is_no_archive_is_told(nobody: str) -> None:
    with serving() as (address, _):
        said = unreachable(f"{address}/404") or ""
        assert said == f"it answers 404 to {address}/404/dists/jammy/InRelease, so it holds no archive of Ubuntu's"
        assert unreachable(f"{address}/206") is None
        assert unreachable(f"{address}/503") == "it answers 503"
        assert unreachable(f"{address}/407") == "it answers 407"
    for wrong in (nobody, "http://a..b/ubuntu", "http://no-such-host.invalid/ubuntu"):
        assert unreachable(wrong)


def test_a_proxy_is_asked_instead(nobody: str) -> None:
    with serving() as (address, seen):
        spec = Spec(name="x", network="nat", mirror="http://archive.invalid/200", proxy=f"{address}/")
        assert decide(spec) == (spec, [])
        assert seen == ["http://archive.invalid/200/dists/"]
    with pytest.raises(HostError, match=r"through the proxy http://127.0.0.1:\d+: ") as caught:
        decide(Spec(name="x", network="nat", mirror="http://a.invalid", proxy=nobody.replace("//", "//me:hunter2@")))
    assert "hunter2" not in caught.value.message


def test_without_an_archive_it_is_an_error_where_it_is_needed_and_a_warning_where_not(nobody: str) -> None:
    spec = Spec(name="x", network="auto", mirror=nobody)
    decided, said = decide(spec)
    assert (decided.network, len(said)) == ("offline", 1)
    assert "made offline, without security updates" in said[0]
    for needs, words in (
        ({"network": "nat"}, "packages come"),
        ({"content": Content(packages=("git",))}, "the class's packages come"),
        ({"content": Content(snaps=(Snap("lxd"),))}, "the class's snaps come"),
        ({"updates": "all"}, "updates come"),
    ):
        with pytest.raises(HostError) as caught:
            decide(Spec(**{"name": "x", "network": "auto", "mirror": nobody, **needs}))  # type: ignore[arg-type]
        assert f"The archive {nobody}, from which {words}, cannot be used" in caught.value.message
        assert "--offline" in str(caught.value.hint)
        assert caught.value.exit_code == 4


def test_offline_asks_nobody(nobody: str) -> None:
    spec = Spec(name="x", network="offline", mirror=nobody)
    assert decide(spec) == (spec, [])


def test_the_command_ends_before_a_medium_is_fetched(tmp_path: Path, nobody: str) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(f"mirror: {nobody}/ubuntu\npackages: [git]\n")
    result = prebake("image", path, "-o", tmp_path / "output", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert (result.code, result.out) == (4, "")
    assert "from which the class's packages come, cannot be used" in result.err
    assert not (tmp_path / "output").exists()
