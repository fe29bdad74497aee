"""Writing a changed ISO as a whole file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from builder.errors import HostError
from builder.events import Event, Progress
from builder.media import write
from builder.media.patch import Patch
from builder.media.write import write_iso

if TYPE_CHECKING:
    from pathlib import Path

PATCH = Patch(6144, ((0, b"A" * 2048), (4096, b"C" * 2048)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.iso"
    path.write_bytes(b"s" * 4096)
    return path


def test_it_is_the_source_with_the_extents(source: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    write_iso(source, PATCH, tmp_path / "new.iso", events.append)
    assert (tmp_path / "new.iso").read_bytes() == b"A" * 2048 + b"s" * 2048 + b"C" * 2048
    assert source.read_bytes() == b"s" * 4096
    assert events[-1] == Progress(write.WHAT, 6144, 6144)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.iso", "source.iso"]


def test_what_no_extent_holds_is_zero(source: Path, tmp_path: Path) -> None:
    write_iso(source, Patch(10240, ((8192, b"E" * 2048),)), tmp_path / "new.iso")
    assert (tmp_path / "new.iso").read_bytes() == b"s" * 4096 + bytes(4096) + b"E" * 2048


def test_an_old_file_is_replaced_and_even_the_source_may_be(source: Path, tmp_path: Path) -> None:
    (tmp_path / "new.iso").write_bytes(b"old")
    write_iso(source, PATCH, tmp_path / "new.iso")
    assert (tmp_path / "new.iso").stat().st_size == 6144
    write_iso(source, PATCH, source)
    assert source.read_bytes() == (tmp_path / "new.iso").read_bytes()


@pytest.mark.parametrize("fast", [True, False])
def test_without_reflinks_it_copies_and_says_how_far(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr(write, "CHUNK", 1000)
    monkeypatch.setattr(write, "_cloned", lambda _old, _new: False)
    if not fast:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    events: list[Event] = []
    write_iso(source, PATCH, tmp_path / "new.iso", events.append)
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == [1000, 2000, 3000, 4000, 4096, 6144]
    assert (tmp_path / "new.iso").read_bytes() == b"A" * 2048 + b"s" * 2048 + b"C" * 2048


def test_too_little_room_is_said_before_anything_is_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_cloned", lambda _old, _new: False)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(HostError, match="not enough room") as caught:
        write_iso(source, Patch(free * 2 + 2048, ()), tmp_path / "new.iso")
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == [source]


def test_a_full_disk_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    """A limit on the size of files makes the kernel refuse a write in the middle, as a full disk does."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from builder.errors import HostError; from builder.media.patch import Patch\n"
        "from builder.media.write import write_iso\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    write_iso(Path(sys.argv[1]), Patch(6144, ((4096, b'C' * 2048),)), Path(sys.argv[2]))\n"
        "except HostError as error:\n"
        "    print(error.message)\n"
    )
    argv = [sys.executable, "-c", program, str(source), str(tmp_path / "new.iso")]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "not enough room" in done.stdout
    assert list(tmp_path.iterdir()) == [source]


def test_other_failures_are_host_errors_too(source: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="could not be written"):
        write_iso(source, PATCH, tmp_path / "no" / "folder" / "new.iso")
    with pytest.raises(HostError, match="could not be written"):
        write_iso(tmp_path / "none.iso", PATCH, tmp_path / "new.iso")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match=os.strerror(errno.EISDIR)):
        write_iso(source, PATCH, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source.iso"]
