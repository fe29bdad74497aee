"""Fetches the newest point release of a series, and makes sure that it arrived as it was published."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from typing import TYPE_CHECKING

import httpx

from builder.errors import HostError, MediumError
from builder.events import Note, Progress
from builder.store import locked

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Reporter

MIRRORS = {
    "amd64": "https://releases.ubuntu.com/{release}",
    "arm64": "https://cdimage.ubuntu.com/releases/{release}/release",
}
"""Where Ubuntu publishes; `{release}` stands for the series or point release."""
LINE = re.compile(r"([0-9a-f]{64}) [ *](ubuntu-(\d+\.\d+(?:\.\d+)?)-live-server-(\w+)\.iso)")
RELEASE = re.compile(r"\d+\.\d+(\.\d+)?")
TIMEOUT = httpx.Timeout(30.0)
CHUNK = 1 << 20


def newest(sums: str, release: str, arch: str) -> tuple[str, str]:
    """Return file name and SHA-256 of the newest live-server ISO of ``release`` in the text of a SHA256SUMS.

    ``release`` is a series ("24.04") or a point release ("24.04.3"). Raises MediumError if there is none.
    """
    found = [
        (tuple(int(part) for part in version.split(".")), name, digest)
        for digest, name, version, of_arch in LINE.findall(sums)
        if of_arch == arch and (version == release or version.startswith(f"{release}."))
    ]
    if not found:
        raise MediumError(
            f"No live-server ISO of {release} for {arch} is published there.",
            hint="Is it a release with a live server (20.04 or newer)? --iso FILE takes an ISO you have.",
        )
    _, name, digest = max(found)
    return name, digest


def fetch(release: str, arch: str, cache: Path, report: Reporter, *, mirror: str | None = None) -> Path:
    """Return the path of the newest ISO of ``release`` in ``cache``, fetched if it is not there yet.

    ``mirror`` replaces Ubuntu's server and may contain `{release}`. HTTPS_PROXY and NO_PROXY are honoured.

    Without a way to the server the newest one fetched before is used, with a warning.

    Raises MediumError if the server does not have it or what came is not what its SHA256SUMS says, HostError
    if the disk is full.
    """
    if not RELEASE.fullmatch(release):
        raise MediumError(f"{release!r} is no release.", hint="Write something like 24.04 or 24.04.3.")
    base = (mirror or MIRRORS.get(arch, MIRRORS["arm64"])).rstrip("/").replace("{release}", release)
    folder = cache / "iso"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
            answer = client.get(f"{base}/SHA256SUMS")
            answer.raise_for_status()
            name, digest = newest(answer.text, release, arch)
            with locked(folder / f"{digest}.lock"):
                kept = folder / digest / name
                if not kept.exists():
                    _download(client, f"{base}/{name}", kept, digest, report)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        raise MediumError(
            f"{error.request.url} answers {code} {error.response.reason_phrase}.",
            hint="Is the release right? --iso FILE takes an ISO you have, --mirror URL another server.",
        ) from error
    except httpx.HTTPError as error:
        old = cached(folder, release, arch)
        if old is not None:
            report(
                Note(f"{base} cannot be reached: {str(error) or type(error).__name__}. Using {old.name}.", "warning")
            )
            return old
        raise MediumError(
            f"{base} cannot be reached: {str(error) or type(error).__name__}.",
            hint="Is there a way to the Internet (HTTPS_PROXY)? --iso FILE takes an ISO you have.",
        ) from error
    report(Note(f"Medium: {kept}"))
    return kept


def cached(folder: Path, release: str, arch: str) -> Path | None:
    """Return the newest ISO of ``release`` that was fetched into ``folder`` before, or None."""
    kept = {path.name: path for path in folder.glob("*/*.iso")}
    sums = "".join(f"{path.parent.name} *{name}\n" for name, path in kept.items())
    try:
        return kept[newest(sums, release, arch)[0]]
    except MediumError:
        return None


def _download(client: httpx.Client, url: str, kept: Path, digest: str, report: Reporter) -> None:
    kept.parent.mkdir(exist_ok=True)
    partial = kept.with_suffix(".partial")
    seen = hashlib.sha256()
    try:
        with client.stream("GET", url) as answer, partial.open("wb") as out:
            answer.raise_for_status()
            total = int(answer.headers.get("content-length", 0))
            _check_room(kept.parent, total)
            done = 0
            for chunk in answer.iter_bytes(CHUNK):
                out.write(chunk)
                seen.update(chunk)
                done += len(chunk)
                report(Progress(f"Fetching {kept.name}", done, total))
            out.flush()
            os.fsync(out.fileno())
        if seen.hexdigest() != digest:
            raise MediumError(
                f"{url} is not the published ISO: its SHA-256 is {seen.hexdigest()}, SHA256SUMS says {digest}.",
                hint="It was thrown away. A proxy or a mirror may have changed it; try again or another --mirror.",
            )
        partial.rename(kept)
    except OSError as error:
        raise HostError(f"{partial} cannot be written: {error.strerror}.", hint="Make room in the cache.") from error
    finally:
        partial.unlink(missing_ok=True)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"The ISO has {needed >> 20} MiB, and only {free >> 20} MiB are free in {folder}.",
            hint="Make room, or set XDG_CACHE_HOME to a larger disk.",
        )
