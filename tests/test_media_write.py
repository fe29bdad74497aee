"""Writing a changed ISO as a whole file."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.command import run
from builder.errors import HostError, PrebakeError, RemasterError
from builder.events import Event, Progress
from builder.media import part, write
from builder.media.patch import Patch
from builder.media.write import write_iso

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

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


def test_the_patch_may_be_made_meanwhile(source: Path, tmp_path: Path) -> None:
    write_iso(source, lambda: PATCH, tmp_path / "new.iso")
    assert (tmp_path / "new.iso").read_bytes() == b"A" * 2048 + b"s" * 2048 + b"C" * 2048


def test_what_stops_the_patch_stops_the_copying(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copying goes on until the refusal is there, and not to its end."""
    refused = threading.Event()
    copied: list[int] = []

    def refuse() -> Patch:
        try:
            raise RemasterError("not this one")
        finally:
            refused.set()

    def slow(old: BinaryIO, new: BinaryIO, length: int, at: int) -> int:
        del old, new, length
        copied.append(at)
        assert refused.wait(10)
        time.sleep(0.01)
        return 1

    monkeypatch.setattr(write, "_cloned", lambda _old, _new: False)
    monkeypatch.setattr(write, "_kernel_copy", slow)
    monkeypatch.setattr(write, "_plain_copy", slow)
    with pytest.raises(RemasterError, match="not this one"):
        write_iso(source, refuse, tmp_path / "new.iso")
    assert len(copied) < 100
    assert list(tmp_path.iterdir()) == [source]


def test_a_disk_that_fails_meanwhile_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells a failed write-back once, and that may be in the middle."""
    main = threading.get_ident()
    synced, plainly = os.fsync, write._plain_copy
    failed = threading.Event()

    def fails(handle: int) -> None:
        if threading.get_ident() != main:
            failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced(handle)

    def slow(old: BinaryIO, new: BinaryIO, length: int, at: int) -> int:
        assert not at or failed.wait(10)
        return plainly(old, new, min(length, 1000), at)

    monkeypatch.setattr(write, "_kernel_copy", slow)

    monkeypatch.setattr(os, "fsync", fails)
    monkeypatch.setattr(write, "FLUSHED", 1)
    monkeypatch.setattr(write, "_cloned", lambda _old, _new: False)
    with pytest.raises(HostError, match=os.strerror(errno.EIO)):
        write_iso(source, PATCH, tmp_path / "new.iso")
    assert list(tmp_path.iterdir()) == [source]


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


@pytest.mark.skipif(sys.platform != "linux", reason="reflinks and copy_file_range are Linux's")
@pytest.mark.parametrize("able", ["reflink", "copy_file_range", "neither"])
def test_the_fastest_way_the_file_system_has_is_taken(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: str
) -> None:
    """The kernel is played: what it is asked for, in which order, and what is done when it cannot."""
    asked: list[tuple[str, str, str]] = []

    def name(handle: int) -> str:
        opened = str(Path(f"/proc/self/fd/{handle}").readlink())
        return "source" if opened == str(source) else "new" if opened.endswith(".part") else opened

    def ioctl(target: int, request: int, argument: int) -> int:
        assert request == 0x40049409  # FICLONE of linux/fs.h, _IOW(0x94, 9, int)
        asked.append(("reflink", name(target), name(argument)))
        if able != "reflink":
            raise OSError(errno.EOPNOTSUPP, "not supported")
        os.pwrite(target, source.read_bytes(), 0)
        return 0

    def copy_file_range(old: int, new: int, count: int, offset_old: int, offset_new: int) -> int:
        asked.append(("copy_file_range", name(new), name(old)))
        if able != "copy_file_range":
            raise OSError(errno.EXDEV, "not supported")
        return os.pwrite(new, os.pread(old, count, offset_old), offset_new)

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    write_iso(source, PATCH, tmp_path / "new.iso")
    assert (tmp_path / "new.iso").read_bytes() == b"A" * 2048 + b"s" * 2048 + b"C" * 2048
    expected = [(way, "new", "source") for way in ("reflink", "copy_file_range")]
    assert asked == expected[: 1 if able == "reflink" else 2]


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="Python has no os.copy_file_range here")
def test_an_error_while_the_kernel_copies_is_not_hidden(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(write, "_cloned", lambda _old, _new: False)
    monkeypatch.setattr(os, "copy_file_range", fails)
    with pytest.raises(HostError, match=os.strerror(errno.EIO)):
        write_iso(source, PATCH, tmp_path / "new.iso")
    assert list(tmp_path.iterdir()) == [source]


@pytest.fixture
def reflinking(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system with reflinks: XFS in a file, mounted; where that is not allowed, a skip."""
    image, folder = tmp_path / "xfs.img", tmp_path / "xfs"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    try:
        run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)])
        run(["mount", "-o", "loop", str(image), str(folder)])
    except PrebakeError as error:
        pytest.skip(f"no file system with reflinks: {error.message}")
    yield folder
    run(["umount", str(folder)])
    image.unlink()


@pytest.mark.parametrize("way", ["reflink", "copy_file_range", "plain"])
def test_on_a_file_system_with_reflinks_nothing_is_copied(
    reflinking: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """XFS shares blocks for both requests; a copy that is not shared takes its room, so the check can fail."""
    size = 32 << 20
    source, target = reflinking / "source.iso", reflinking / "new.iso"
    content = os.urandom(size)
    with source.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    if way != "reflink":
        monkeypatch.setattr(write, "_cloned", lambda _old, _new: False)
    if way != "copy_file_range":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    patch = Patch(size + 4096, ((2048, b"A" * 2048), (size, b"E" * 4096)))
    free = shutil.disk_usage(reflinking).free
    write_iso(source, patch, target)
    taken = free - shutil.disk_usage(reflinking).free
    assert target.read_bytes() == content[:2048] + b"A" * 2048 + content[4096:] + b"E" * 4096
    assert source.read_bytes() == content
    if way == "plain":
        assert taken > size * 0.9
    else:
        assert taken < size * 0.1


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


KILLED = """\
import os, signal, sys
from pathlib import Path
from builder.media import part, write
from builder.media.patch import Patch

def killed(old, new, length, at):
    new.write(b"half")
    new.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write._cloned = lambda old, new: False
write._kernel_copy = write._plain_copy = killed
write.write_iso(Path(sys.argv[1]), Patch(6144, ()), Path(sys.argv[2]))
"""


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


@pytest.mark.skipif(os.name != "posix", reason="locks of this kind are POSIX systems'")
def test_the_next_writing_removes_what_a_killed_one_left(source: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(tmp_path / "new.iso")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(parts(tmp_path)) == 1
    write_iso(source, PATCH, tmp_path / "other.iso")
    assert len(parts(tmp_path)) == 1
    write_iso(source, PATCH, tmp_path / "new.iso")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.iso", "other.iso", "source.iso"]


def test_it_does_not_remove_what_another_one_writes(source: Path, tmp_path: Path) -> None:
    """Two of the same name at once: the one that ends last has its file in place, and both end well."""
    seen: list[list[str]] = []

    def another() -> Patch:
        write_iso(source, Patch(4096, ()), tmp_path / "new.iso", lambda _: seen.append(parts(tmp_path)))
        assert (tmp_path / "new.iso").read_bytes() == b"s" * 4096
        return PATCH

    write_iso(source, another, tmp_path / "new.iso")
    assert len(seen[-1]) == 1
    assert (tmp_path / "new.iso").stat().st_size == 6144
    assert parts(tmp_path) == []


def test_only_parts_of_the_same_iso_are_removed(source: Path, tmp_path: Path) -> None:
    names = [".new.iso.0123456.part", ".new.iso.0123456z.part", ".new.iso.00000000.part2", ".newXiso.00000000.part"]
    for name in (*names, "new.iso.00000000.part"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / ".new.iso.00000001.part").mkdir()
    os.mkfifo(tmp_path / ".new.iso.00000002.part")
    (tmp_path / ".new.iso.00000003.part").symlink_to(source)
    before = sorted(path.name for path in tmp_path.iterdir())
    write_iso(source, PATCH, tmp_path / "new.iso")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "new.iso"])


def test_a_part_that_is_taken_for_a_remainder_too_early_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may look between the making of a part and its lock."""
    locked, tried = part._locked, []

    def late(handle: int) -> bool | None:
        tried.append(handle)
        if len(tried) == 1:
            (name,) = parts(tmp_path)
            (tmp_path / name).unlink()
        return False if len(tried) == 2 else locked(handle)

    monkeypatch.setattr(part, "_locked", late)
    with part.part_of(tmp_path / "new.iso") as path:
        assert parts(tmp_path) == [path.name]
    assert len(tried) == 3
    assert parts(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="locks of this kind are POSIX systems'")
def test_without_locks_nothing_is_removed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    (tmp_path / ".new.iso.00000000.part").write_bytes(b"?")
    write_iso(source, PATCH, tmp_path / "new.iso")
    assert parts(tmp_path) == [".new.iso.00000000.part"]


def test_other_failures_are_host_errors_too(source: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="could not be written"):
        write_iso(source, PATCH, tmp_path / "no" / "folder" / "new.iso")
    with pytest.raises(HostError, match="could not be written"):
        write_iso(tmp_path / "none.iso", PATCH, tmp_path / "new.iso")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match=os.strerror(errno.EISDIR)):
        write_iso(source, PATCH, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source.iso"]
