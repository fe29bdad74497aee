"""Settled systems in the cache: which builds share one, when it is too old or damaged, what is kept and what goes."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from builder import bases, larder, outcome
from builder.autoinstall.password import hash_password
from builder.autoinstall.render import render
from builder.bases import DAY, DISK, FOLDER, FRESH, LOGS, RECORD, Base, Told
from builder.errors import InstallError
from builder.events import Note, silent
from builder.leftovers import scratch
from builder.media.source.origin import Origin
from builder.spec import Content, File, Spec, User
from builder.store import shared
from builder.story import Job, Story
from builder.vm import disk

if TYPE_CHECKING:
    from builder.autoinstall.render import Answers

NAME = "0" * 32
NOW = 1_800_000_000.0
SPEC = Spec("x")


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        bases, "time", SimpleNamespace(time=lambda: NOW, strftime=lambda *_: "made then", localtime=int)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def made(folder: Path, at: float = NOW) -> Base:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settled.qcow2"
    disk.create(path, 1 << 20)
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs/console.log").write_text("the install")
    (folder / "logs/console.cast").write_text('{"version": 2, "title": "first"}\n[0.1, "o", "x"]\n')
    return Base(path, Told(1, at, {"machine-id": "m"}, 3.0), folder / "logs")


def kept(cache: Path, name: str = NAME, at: float = NOW) -> Path:
    with ExitStack() as holding:
        return bases.keep(cache, name, made(cache.parent / "work", at), silent, holding).disk.parent


def found(cache: Path, *, ages: bool = True) -> Base | None:
    with ExitStack() as holding:
        return bases.reuse(cache, NAME, ages=ages, holding=holding)


def test_one_is_kept_and_used_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert found(cache) is None
    folder = kept(cache)
    assert not (tmp_path / "work/settled.qcow2").exists(), "moved, not copied"
    assert sorted(path.name for path in folder.iterdir()) == [RECORD, DISK, LOGS]
    assert (folder.stat().st_mode & 0o777, (folder / DISK).stat().st_mode & 0o777) == (0o700, 0o400)
    base = found(cache)
    assert base is not None
    assert (base.disk, base.told) == (folder / DISK, Told(1, NOW, {"machine-id": "m"}, 3.0))
    logs = tmp_path / "logs"
    base.restore(logs, "second")
    assert (logs / "console.cast").read_text() == '{"version": 2, "title": "second"}\n[0.1, "o", "x"]\n'
    assert (logs / "console.log").read_text() == "the install"
    overlay = tmp_path / "overlay.qcow2"
    disk.create(overlay, None, base.disk, "qcow2")
    outcome.kept_disk(overlay, tmp_path / "alone.qcow2")
    assert disk.info(tmp_path / "alone.qcow2").backing is None


def test_an_old_one_is_not_used_where_updates_come(tmp_path: Path) -> None:
    kept(tmp_path, at=NOW - FRESH - 1)
    assert found(tmp_path) is None
    assert found(tmp_path, ages=False) is not None
    newer = kept(tmp_path, at=NOW - FRESH + DAY)
    base = found(tmp_path)
    assert base is not None
    assert base.disk.parent == newer
    rows = {item.path: item for item in larder.contents(tmp_path) if item.kind == "settled"}
    assert [rows[path].superseded for path in sorted(rows)] == [True, False]
    assert {item.detail for item in rows.values()} == {"made then"}


@pytest.mark.parametrize("harm", ["record", "version", "disk", "gone", "logs"])
def test_a_damaged_one_is_not_used(tmp_path: Path, harm: str) -> None:
    folder = kept(tmp_path)
    path = folder / DISK
    path.chmod(0o600)
    if harm == "record":
        (folder / RECORD).write_text("{")
    elif harm == "version":
        (folder / RECORD).write_text((folder / RECORD).read_text().replace('"version":1', '"version":2'))
    elif harm == "disk":
        path.write_bytes(path.read_bytes()[:60000])
        with path.open("r+b") as data:
            data.seek(65536 * 2)
            data.write(b"\xff" * 4096)
    elif harm == "logs":
        (folder / LOGS / "console.cast").unlink()
    else:
        path.unlink()
    before = bases.last_use(folder)
    assert found(tmp_path) is None
    assert bases.last_use(folder) == before, "what is of no use was not used"


def test_a_system_that_cannot_be_kept_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of its name is taken, or making room fails: the build goes on with what it has."""
    base = made(tmp_path / "work")
    taken = tmp_path / FOLDER / f"{NAME}-{int(NOW):010x}"
    (taken / "something").mkdir(parents=True)
    heard: list[Any] = []
    with ExitStack() as holding:
        assert bases.keep(tmp_path, NAME, base, heard.append, holding) == base
        assert disk.check(base.disk).clean
        assert "is not kept for the next build" in heard[0].text
        (taken / "something").rmdir()
        monkeypatch.setattr(bases, "unused", MagicMock(side_effect=OSError("no room")))
        assert bases.keep(tmp_path, NAME, base, silent, holding).disk == taken / DISK
    assert not base.disk.exists()


def test_where_there_are_no_links_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", MagicMock(side_effect=OSError("Invalid cross-device link")))
    folder = kept(tmp_path)
    assert (folder / DISK).stat().st_mode & 0o777 == 0o400
    assert not (tmp_path.parent / "work/settled.qcow2").exists()
    assert found(tmp_path) is not None


def test_the_ones_used_last_stay_and_those_in_use(tmp_path: Path) -> None:
    folders = [kept(tmp_path, f"{number:032x}") for number in range(bases.MOST)]
    for number, folder in enumerate(folders):
        os.utime(bases.lock_of(folder), (number, number))
    with shared(bases.lock_of(folders[0])):
        os.utime(bases.lock_of(folders[0]), (0, 0))
        last = kept(tmp_path, "f" * 32)
        assert [folder.exists() for folder in folders] == [True, True, True, True]
    os.utime(bases.lock_of(folders[0]), (0, 0))
    bases.tidy(tmp_path)
    assert [folder.exists() for folder in folders] == [False, True, True, True]
    assert last.exists()


def test_pruning_leaves_what_a_build_uses(tmp_path: Path) -> None:
    folder = kept(tmp_path)
    (item,) = (one for one in larder.contents(tmp_path) if one.kind == "settled")
    told: list[bool] = []
    with ExitStack() as holding:
        assert bases.reuse(tmp_path, NAME, ages=True, holding=holding) is not None
        larder.prune([item], lambda _, gone: told.append(gone))
    larder.prune([item], lambda _, gone: told.append(gone))
    assert told == [False, True]
    assert not folder.exists()


def test_the_second_build_waits_for_the_first(tmp_path: Path) -> None:
    heard: list[Any] = []
    order: list[str] = []

    def second() -> None:
        with bases.making(tmp_path, NAME, heard.append):
            order.append("second")

    with bases.making(tmp_path, NAME, silent):
        other = threading.Thread(target=second)
        other.start()
        while not heard:
            pass
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert heard == [Note("Another build installs the same system; this one waits for it.")]


def test_a_cache_that_cannot_be_written_costs_only_the_next_build(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    heard: list[Any] = []
    base = made(tmp_path / "work")
    with ExitStack() as holding, bases.making(tmp_path, NAME, silent):
        assert bases.reuse(tmp_path, NAME, ages=True, holding=holding) is None
        assert bases.keep(tmp_path, NAME, base, heard.append, holding) == base
    assert base.disk.exists()
    assert heard[0].text.startswith("The system is not kept for the next build: ")


def test_a_disk_on_another_file_system_is_copied_if_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    if place.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    with scratch(place, "prebake-", "a test") as work, ExitStack() as holding:
        base = made(work)
        monkeypatch.setattr("builder.bases.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
        heard: list[Any] = []
        assert bases.keep(tmp_path, NAME, base, heard.append, holding) == base
        assert "too little room" in heard[0].text
        monkeypatch.undo()
        monkeypatch.setattr(bases, "time", SimpleNamespace(time=lambda: NOW))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert bases.keep(tmp_path, NAME, base, silent, holding).disk.exists()
        assert found(tmp_path) is not None


HASH, SALTED = hash_password("powercoders"), hash_password("powercoders")


def ident(spec: Spec, hashed: str = HASH, **more: Any) -> str:
    answers: Answers = render(spec, password_hash=spec.user.password_hash or hashed)
    medium = MagicMock(path=Path(__file__), arch="amd64")
    return bases.ident(Job(spec, Path("x.iso"), Path("output"), **more), medium, answers)


def test_classes_share_a_system_and_nothing_else_does() -> None:
    one = ident(SPEC)
    content = Content(packages=("vim",), files=(File("/opt/x", None, "x"),), commands=("true",))
    same = (
        *(replace(SPEC, name="y", content=content), replace(SPEC, cloud_init="nocloud", firmware_budget=None)),
        *(replace(SPEC, memory=2048, cpus=1), replace(SPEC, may_fail=("x.service",), exports=("ova",))),
    )
    assert {ident(each) for each in same} == {one}
    assert ident(SPEC, SALTED) == one, "a salt is new each time"
    others = [
        *(replace(SPEC, hostname="h"), replace(SPEC, disk=20 << 30), replace(SPEC, both=False)),
        *(replace(SPEC, firmware="uefi"), replace(SPEC, storage="lvm"), replace(SPEC, network="offline")),
        *(
            replace(SPEC, updates="none"),
            replace(SPEC, user=User(password="another")),
            replace(SPEC, locale="de_CH.UTF-8"),
        ),
        *(replace(SPEC, user=User(password_hash=SALTED)), replace(SPEC, autoinstall={"late-commands": ["true"]})),
    ]
    answers = render(SPEC, password_hash=HASH)
    medium = MagicMock(path=Path(__file__), arch="amd64")
    other = replace(answers, meta_data=f"{answers.meta_data}local-hostname: other\n")
    assert bases.ident(Job(SPEC, Path("x.iso"), Path("output")), medium, other) != one
    idents = [one, *map(ident, others), ident(SPEC, origin=Origin(sha256="a" * 64))]
    assert len(set(idents)) == len(idents)


def test_a_disk_that_cannot_be_kept_costs_no_other_evidence(tmp_path: Path) -> None:
    work, output = tmp_path / "work", tmp_path / "output"
    (work / "result/logs").mkdir(parents=True)
    (work / "result/logs/console.log").write_bytes(b"said")
    output.mkdir()
    disk.create(work / "settled.qcow2", 1 << 20)
    disk.create(work / "disk.qcow2", None, work / "settled.qcow2", "qcow2")
    (work / "settled.qcow2").unlink()
    heard: list[Any] = []
    error = InstallError("The class failed.")
    outcome.keep_evidence(Job(SPEC, Path("x.iso"), output, keep=True), work, None, Story(heard.append), error)
    assert error.evidence == output / "x.failed"
    assert {"error.txt", "console.log"} <= {path.name for path in (output / "x.failed").iterdir()}
    assert "could not be kept as a whole" in heard[-1].text
