"""The plain fetch, from a real HTTP server on loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from builder.errors import HostError, MediumError
from builder.events import Event, Note, Progress, silent
from builder.media.fetch import fetch, newest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ISO = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(ISO).hexdigest()
NAME = "ubuntu-24.04.10-live-server-amd64.iso"
OLD = "0" * 64
SUMS = f"""{OLD} *ubuntu-24.04.3-desktop-amd64.iso
{OLD} *ubuntu-24.04.9-live-server-amd64.iso
{DIGEST} *{NAME}
{OLD} *ubuntu-24.04.11-live-server-arm64.iso
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "www/24.04"
    folder.mkdir(parents=True)
    (folder / "SHA256SUMS").write_text(SUMS)
    (folder / NAME).write_bytes(ISO)
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/{{release}}", folder
        httpd.shutdown()
        thread.join()


def test_the_newest_point_release_is_by_number_not_by_letter() -> None:
    assert newest(SUMS, "24.04", "amd64") == (NAME, DIGEST)
    assert newest(SUMS, "24.04.9", "amd64") == ("ubuntu-24.04.9-live-server-amd64.iso", OLD)
    assert newest(SUMS, "24.04", "arm64")[0].endswith("24.04.11-live-server-arm64.iso")
    for release in ("24.0", "22.04", "24.04.1"):
        with pytest.raises(MediumError, match=f"No live-server ISO of {release} for amd64"):
            newest(SUMS, release, "amd64")


def test_it_is_fetched_once(server: tuple[str, Path], tmp_path: Path) -> None:
    mirror, folder = server
    events: list[Event] = []
    path = fetch("24.04", "amd64", tmp_path / "cache", events.append, mirror=mirror)
    assert path.read_bytes() == ISO
    assert path.name == NAME
    steps = [event for event in events if isinstance(event, Progress)]
    assert steps[-1].done == steps[-1].total == len(ISO)
    (folder / NAME).unlink()
    assert fetch("24.04", "amd64", tmp_path / "cache", silent, mirror=mirror) == path


def test_without_the_server_the_newest_fetched_before_is_used(server: tuple[str, Path], tmp_path: Path) -> None:
    path = fetch("24.04", "amd64", tmp_path / "cache", silent, mirror=server[0])
    events: list[Event] = []
    gone = "http://127.0.0.1:1/"
    assert fetch("24.04", "amd64", tmp_path / "cache", events.append, mirror=gone) == path
    assert any(isinstance(event, Note) and event.level == "warning" for event in events)
    with pytest.raises(MediumError, match="cannot be reached"):
        fetch("24.04", "arm64", tmp_path / "cache", silent, mirror=gone)


def test_another_iso_than_published_is_thrown_away(server: tuple[str, Path], tmp_path: Path) -> None:
    mirror, folder = server
    (folder / NAME).write_bytes(ISO[:-1] + b"!")
    with pytest.raises(MediumError) as caught:
        fetch("24.04", "amd64", tmp_path / "cache", silent, mirror=mirror)
    assert DIGEST in caught.value.message
    assert "is not the published ISO" in caught.value.message
    assert not list((tmp_path / "cache").rglob("*.iso")) + list((tmp_path / "cache").rglob("*.partial"))


def test_errors_of_the_server_are_told(server: tuple[str, Path], tmp_path: Path) -> None:
    mirror, folder = server
    with pytest.raises(MediumError, match="answers 404"):
        fetch("23.10", "amd64", tmp_path / "cache", silent, mirror=mirror)
    (folder / NAME).unlink()
    with pytest.raises(MediumError, match=f"{NAME} answers 404"):
        fetch("24.04", "amd64", tmp_path / "cache", silent, mirror=mirror)
    with pytest.raises(MediumError, match="cannot be reached"):
        fetch("24.04", "amd64", tmp_path / "cache", silent, mirror="http://127.0.0.1:1/")
    with pytest.raises(MediumError, match="'noble' is no release"):
        fetch("noble", "amd64", tmp_path / "cache", silent, mirror=mirror)


def test_too_little_room_is_known_before_the_download(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.media.fetch.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(HostError, match="only 1 MiB are free"):
        fetch("24.04", "amd64", tmp_path / "cache", silent, mirror=server[0])
    assert not list((tmp_path / "cache").rglob("*.partial"))
