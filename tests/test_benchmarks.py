"""The figures of packing, on a disk of a few megabytes."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks import compact
from builder.command import CommandError, Finished

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    words = " ".join(random.Random(1).choices(["boot", "root", "swap", "home", "data", "free"], k=300_000))  # noqa: S311
    path.write_bytes(words.encode() + bytes(4 << 20))
    return path


def test_every_way_is_told_and_its_result_is_whole(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compact, "SPARSIFY", "no-such-program")
    (tmp_path / "work").mkdir()
    compact.main([str(raw), "--rounds", "2", "--work", str(tmp_path / "work")])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert "qemu-img version" in head
    told = {row[2:36].strip(): row[36:].split() for row in rows}
    assert list(told) == [way.title for way in compact.WAYS]
    assert " ".join(told.pop("virt-sparsify --compress")) == "The program `no-such-program` is not installed."
    assert {row[-1] for row in told.values()} == {"clean"}
    size = {title: int(row[0].replace(",", "")) for title, row in told.items()}
    assert size["prebake image (zstd)"] == size["qemu-img convert -c, zstd"] < size["qemu-img convert"]
    assert size["prebake image --compression zlib"] == size["qemu-img convert -c"] < size["qemu-img convert"]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_way_that_fails_is_told_and_not_tried_again(tmp_path: Path) -> None:
    tried = []

    def fail(source: Path, result: Path) -> None:
        tried.append(source)
        result.write_bytes(b"half")
        raise CommandError(Finished(("x",), 1, b"", b"[ 3.0] Filling\nx: error: it crashed\nmore words"))

    def late(_source: Path, _result: Path) -> None:
        raise CommandError(Finished(("x",), -1, b"", b"[ 3.0] Filling\nno answer within 9 s"))

    made = compact.measure(tmp_path / "source", tmp_path, 1, [compact.Way("late", late)])
    assert made["late"].trouble == "no answer within 9 s"
    made = compact.measure(tmp_path / "source", tmp_path, 3, [compact.Way("bad", fail)])
    assert made["bad"].trouble == "x: error: it crashed"
    assert len(tried) == 1
    assert list(tmp_path.iterdir()) == []
