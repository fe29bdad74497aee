"""What killed runs leave: known, listed, told of, and removed; and nothing else ever is."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from builder import command, larder, leftovers
from builder.errors import HostError
from builder.events import Note
from builder.leftovers import found, remove, scratch
from builder.workspace import workspace
from tests.command_line import Result, inside
from tests.tiny import answer, child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills real processes")
WORK = """
from builder.leftovers import scratch
from builder.workspace import workspace
with workspace(here / "output", "lab.1") as work, scratch(here, "prebake-", "a test, and more") as sockets:
    (work / "result").mkdir()
    (work / "result/disk").write_bytes(bytes(300_000))
    (work / "link").symlink_to(here / "precious")
    (sockets / "qmp").touch()
    say("ready")
    sys.stdin.readline()
"""
IDENT = "0123abcd"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/prebake"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file").write_text("mine")
    return folder


def list_of(*words: str) -> list[dict[str, object]]:
    rows = json.loads(inside("cache", *words, "--json").out)
    return list(rows["items"] if isinstance(rows, dict) else rows)


def record(cache: Path, path: object, *, ident: str = IDENT, **more: object) -> Path:
    """Write a record as of a run that is over."""
    place = cache / "work"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{ident}.json").write_text(json.dumps({"path": str(path), "what": "a test", "pid": 1, **more}))
    return place / f"{ident}.json"


def test_a_killed_run_leaves_what_is_listed_told_of_and_pruned(tmp_path: Path, cache: Path, precious: Path) -> None:
    with child(tmp_path, WORK) as prebake:
        assert answer(prebake) == ["ready"]
        assert len(list((cache / "work").iterdir())) == 2
        assert list_of("list") == []
        assert inside("cache", "prune", "--all").out == ""
        (work,) = (tmp_path / "output").iterdir()
        assert (work / "result/disk").exists(), "a build that lives is never touched"
        prebake.kill()
    rows = list_of("list")
    assert {row["kind"] for row in rows} == {"leftover"}
    assert all(row["superseded"] for row in rows)
    by_path = {str(row["path"]): row for row in rows}
    assert by_path[str(work)]["detail"] == f"the build of lab.1, killed (process {prebake.pid})"
    size = by_path[str(work)]["size"]
    assert isinstance(size, int)
    assert size >= 300_000
    (sockets,) = set(by_path) - {str(work)}
    assert str(work) in inside("cache", "list").out

    told: list[object] = []
    leftovers.tell(told.append)
    words = "Runs that were killed have left 2 folders: `prebake cache prune` removes what is left."
    assert told == [Note(words)]

    assert f"Would remove {work}" in inside("cache", "prune", "--dry-run").out
    assert work.exists()
    gone = list_of("prune")
    assert {row["path"] for row in gone} == {str(work), sockets}
    assert all(row["removed"] for row in gone)
    assert not work.exists()
    assert not Path(sockets).exists()
    assert list((cache / "work").iterdir()) == []
    assert (precious / "file").read_text() == "mine"
    told.clear()
    leftovers.tell(told.append)
    assert told == []


def test_what_ends_well_leaves_no_record(tmp_path: Path, cache: Path) -> None:
    with workspace(tmp_path / "output", "x") as work:
        (row,) = (cache / "work").iterdir()
        assert json.loads(row.read_text()) == {"path": str(work), "what": "the build of x", "pid": os.getpid()}
        assert work.stat().st_mode & 0o777 == 0o700
        assert found(cache) == []
    assert list((cache / "work").iterdir()) == []
    assert not (tmp_path / "output").exists()


def test_the_same_command_after_a_kill_works_and_tells(tmp_path: Path) -> None:
    """Here it gets as far as reading a file that is no ISO; a whole one is in tests/test_journey_kill.py."""
    with child(tmp_path, WORK) as prebake:
        answer(prebake)
        prebake.kill()
    iso = tmp_path / "no.iso"
    iso.write_bytes(bytes(1 << 20))
    done = inside("image", "--iso", iso, "--offline", "--name", "lab.1", "-o", tmp_path / "output")
    assert done.code == 5
    assert done.err.count("`prebake cache prune` removes what is left") == 1
    with workspace(tmp_path / "output", "lab.1") as work:
        assert work.is_dir()
    assert len(list((tmp_path / "output").iterdir())) == 1


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_a_cache_that_cannot_be_written_breaks_nothing(cache: Path, tmp_path: Path, kind: str) -> None:
    cache.parent.mkdir()
    if kind == "file":
        cache.write_text("in the way")
    else:
        cache.mkdir()
        try:
            command.run(["mount", "-t", "tmpfs", "-o", "ro", "prebake-test", str(cache)])
        except (HostError, command.CommandError):
            pytest.skip("this user may not mount")
    try:
        with scratch(tmp_path, "prebake-", "a test") as folder:
            assert folder.is_dir()
        assert not folder.exists()
    finally:
        if kind == "read-only":
            command.run(["umount", str(cache)])


def test_a_name_that_nobody_could_know_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name"), scratch(tmp_path, "other-", "a test"):
        pass


def kept(precious: Path) -> Result:
    """Prune everything; nothing may be listed, and nothing may go."""
    assert list_of("list") == []
    done = inside("cache", "prune", "--all")
    assert done.code == 0, done.err
    assert (precious / "file").read_text() == "mine"
    return done


@pytest.mark.parametrize(
    "name",
    [
        "precious",
        "precious/",
        ".",
        "precious/.",
        f"link-{IDENT}",
        f"prebake-{IDENT}/..",
        f"prebake-{IDENT}/../precious",
        f"prebake-{IDENT}x",
        f"prebake-{IDENT}/",
        f"linked/prebake-{IDENT}",
        "prebake-ffffffff",
    ],
)
def test_a_record_of_anything_else_is_not_believed(tmp_path: Path, cache: Path, precious: Path, name: str) -> None:
    for folder in (f"prebake-{IDENT}", "prebake-ffffffff"):
        (tmp_path / folder).mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / f"real/prebake-{IDENT}").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    before = sorted(tmp_path.glob("*"))
    record(cache, f"{tmp_path}/{name}")
    kept(precious)
    assert sorted({*tmp_path.glob("*")} - {tmp_path / "cache"}) == sorted({*before} - {tmp_path / "cache"})
    assert (tmp_path / f"real/prebake-{IDENT}").exists()


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path, cache: Path, precious: Path) -> None:
    path = tmp_path / f"prebake-{IDENT}"
    record(cache, path)
    path.symlink_to(precious)
    kept(precious)
    assert path.is_symlink()


def test_a_link_that_takes_the_place_after_the_look_is_not_followed(
    tmp_path: Path, cache: Path, precious: Path
) -> None:
    path = tmp_path / f"prebake-{IDENT}"
    path.mkdir()
    record(cache, path)
    (one,) = found(cache)
    path.rmdir()
    path.symlink_to(precious)
    assert not remove(one)
    assert (precious / "file").exists()


def test_a_file_is_no_folder(tmp_path: Path, cache: Path, precious: Path) -> None:
    path = tmp_path / f"prebake-{IDENT}"
    path.write_text("mine")
    record(cache, path)
    kept(precious)
    assert path.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")
@pytest.mark.parametrize("whose", ["folder", "record"])
def test_what_belongs_to_somebody_else_stays(tmp_path: Path, cache: Path, precious: Path, whose: str) -> None:
    path = tmp_path / f"prebake-{IDENT}"
    path.mkdir()
    row = record(cache, path)
    os.chown(path if whose == "folder" else row, 12345, 12345)
    kept(precious)
    assert path.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 16000,
        b'{"path": 1, "what": "", "pid": 1}',
        b'{"path": "/tmp/prebake-0123abcd"}',
        b'{"path": "prebake-0123abcd", "what": "", "pid": 1}',
        b'{"path": "/tmp/\\u0000/prebake-0123abcd", "what": "", "pid": 1}',
        b'{"path": "/tmp/prebake-0123abcd", "what": "\\u001b[2J", "pid": 1}',
    ],
)
def test_what_is_no_record_is_left_alone(cache: Path, precious: Path, data: bytes) -> None:
    row = record(cache, "")
    row.write_bytes(data)
    assert kept(precious).out == ""
    assert row.read_bytes() == data


def test_a_record_that_is_a_link_a_pipe_or_a_folder_is_left_alone(tmp_path: Path, cache: Path, precious: Path) -> None:
    path = tmp_path / f"prebake-{IDENT}"
    path.mkdir()
    row = record(cache, path)
    row.rename(tmp_path / "elsewhere.json")
    row.symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(row.with_name("11111111.json"))
    row.with_name("22222222.json").mkdir()
    kept(precious)
    assert path.exists()
    assert row.is_symlink()


def test_a_record_whose_folder_is_gone_is_forgotten_unless_its_disk_is(tmp_path: Path, cache: Path) -> None:
    row = record(cache, tmp_path / f"prebake-{IDENT}")
    away = record(cache, tmp_path / "unplugged/.x.building-11111111", ident="11111111")
    assert found(cache) == []
    assert not row.exists()
    assert away.exists()
    (tmp_path / "unplugged/.x.building-11111111").mkdir(parents=True)
    assert [item.kind for item in larder.contents(cache)] == ["leftover"]


def test_what_cannot_be_removed_is_told_and_kept(tmp_path: Path, cache: Path, precious: Path) -> None:
    path = tmp_path / f"prebake-{IDENT}"
    (path / "a b\\c").mkdir(parents=True)
    row = record(cache, path)
    try:
        command.run(["mount", "--bind", str(precious), str(path / "a b\\c")])
    except (HostError, command.CommandError):
        pytest.skip("this user may not mount")
    try:
        done = inside("cache", "prune")
        assert f"Cannot be removed: {path}" in done.out
        assert (precious / "file").read_text() == "mine"
        assert row.exists()
    finally:
        command.run(["umount", str(path / "a b\\c")])
    assert f"Removed {path}" in inside("cache", "prune").out
    assert not path.exists()
    assert (precious / "file").exists()


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_names_that_prebake_makes_are_names_it_knows(tmp_path: Path, cache: Path) -> None:
    """Every prefix in the source: one that is not known would be an error at the worst time."""
    del cache
    for prefix in ("prebake-", "prebake-verify-", "prebake-base-", ".a b.building-", ".ünï-1.2.building-"):
        with scratch(tmp_path, prefix, "a test") as folder:
            assert folder.name.startswith(prefix)
