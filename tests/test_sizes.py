"""What takes the room in an image: the script with the tools of this host, and what is made of its words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from builder import outcome
from builder.bases import Base, Told
from builder.events import silent
from builder.image import prove, sizes
from builder.image.shell import Outcome
from builder.install.patience import patience
from builder.install.site import Site
from builder.resources import templates
from builder.spec import Spec
from builder.story import Job, Story
from builder.vm import disk
from builder.vm.qemu import MachineSpec
from tests.test_prove import ALL, SPEC, Faked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCRIPT = templates() / "guest/sizes.sh"
TOLD = "unit=1\n5000\t/\n3000\t/usr\n2000\t/usr/lib\n1500\t/var\n9\t/srv/a b\tc\n"


def said(*, path: str, seconds: str = "60") -> str:
    argv = ["/bin/sh", str(SCRIPT), seconds]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path})
    assert done.stderr == ""
    return done.stdout


def tools(folder: Path, names: Sequence[str], **scripts: str) -> str:
    """Make a folder that holds only these programs of this host, and scripts by their names."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_the_largest_come_first_and_the_whole_before_them() -> None:
    assert list(sizes.parse(TOLD).items()) == [
        ("/", 5000),
        ("/usr", 3000),
        ("/usr/lib", 2000),
        ("/var", 1500),
        ("/srv/a b\tc", 9),
    ]
    assert sizes.parse(TOLD.replace("unit=1\n", "unit=1024\n"))["/usr"] == 3000 << 10


def test_only_so_many_and_none_deeper_or_empty() -> None:
    rows = "".join(f"{100 + number}\t/d{number}\n" for number in range(40))
    found = sizes.parse(f"500\t/usr/lib/modules\n0\t/sys\n{rows}9999\t/\n")
    assert len(found) == sizes.MOST + 1
    assert list(found)[:2] == ["/", "/d39"]
    assert {"/usr/lib/modules", "/sys"}.isdisjoint(found)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "unit=1\n",
        "sh: 1: du: not found\n",
        "unit=1\n3000\t/usr\n",
        "[   30.1] a late kernel message\nunit=x\n12 /\n-5\t/\n\u0661\t/\n4\tusr\n",
    ],
)
def test_what_did_not_end_or_says_something_else_is_nothing(output: str) -> None:
    assert sizes.parse(output) == {}


def test_noise_between_the_lines_does_no_harm() -> None:
    assert sizes.parse("noise\n7\t/\n[  1.0] usb 1-1\n\n3\t/usr\nx\t/etc\n2\t/var\n") == {"/": 7, "/usr": 3, "/var": 2}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A du that counts a small tree instead of everything: its options are this host's own."""
    tree = tmp_path_factory.mktemp("tree")
    for name, size in (("usr/lib/deep/file", 300_000), ("usr/share/file", 100_000), ("a b/file", 200_000)):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_bytes(bytes(range(1, 251)) * (size // 250))
    return tree


def counting(tree: Path, real: str) -> str:
    """Return a script that is `du`, but for the root file system, of which it counts the tree."""
    there = f'cd {tree} && {real} "$1" "$2" "$3" "$4" . | sed "s,\t\\.$,\t/,;s,\t\\./,\t/,"'
    return f'[ "$5" = / ] || exec {real} "$@"\n{there}'


@pytest.mark.parametrize("real", ["du", "busybox"])
def test_the_script_counts_with_either_du(tmp_path: Path, known: Path, real: str) -> None:
    program = shutil.which(real)
    if program is None:
        pytest.skip(f"needs {real}")
    words = f"{program} du" if real == "busybox" else program
    path = tools(tmp_path / "bin", ["sh", "sort", "head", "timeout", "sed"], du=counting(known, words))
    output = said(path=path)
    assert output.startswith("unit=1\n" if real == "du" else "unit=1024\n")
    found = sizes.parse(output)
    assert list(found)[:2] == ["/", "/usr"]
    assert found["/usr/lib"] in range(300_000, 340_000)
    assert found["/a b"] in range(200_000, 240_000)
    assert not [one for one in found if one.startswith("/usr/lib/")]


@pytest.mark.parametrize("names", [["sort", "head", "timeout"], ["sort", "head", "du"]])
def test_without_du_or_timeout_there_is_nothing(tmp_path: Path, names: list[str]) -> None:
    assert sizes.parse(said(path=tools(tmp_path / "bin", names))) == {}


def test_a_du_that_does_not_end_is_nothing(tmp_path: Path) -> None:
    slow = "for last; do :; done\n[ \"$last\" = / ] || exit 0\nprintf '5\\t/usr\\n'\nexec sleep 30"
    path = tools(tmp_path / "bin", ["sort", "head", "timeout", "sleep"], du=slow)
    assert sizes.parse(said(path=path, seconds="1")) == {}


def test_a_system_is_asked_once_and_within_its_time() -> None:
    shell = MagicMock(run=MagicMock(return_value=Outcome(0, TOLD)))
    system: Any = SimpleNamespace(shell=shell, limits=patience(12.0), scripts="/run/prebake")
    assert sizes.measured(system)["/var"] == 1500
    shell.run.assert_called_once_with("sh /run/prebake/sizes.sh 120", seconds=240.0)


@pytest.mark.parametrize("asked", [True, False])
def test_only_the_first_boot_of_a_build_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    counted = MagicMock(return_value={"/": 1})
    monkeypatch.setattr(sizes, "measured", counted)
    monkeypatch.setattr(prove, "session", Faked(ALL))
    disk.create(tmp_path / "image.qcow2", SPEC.disk)
    site = Site(tmp_path, tmp_path, patience(1.0), silent)
    machine = MachineSpec("t", "amd64", "tcg", 2, 4096)
    done = prove.prove(tmp_path / "image.qcow2", machine, SPEC, site, prove.Plan("full", sizes=asked))
    assert [boot.seen.sizes for boot in done.boots if boot.seen] == [{"/": 1} if asked else {}, {}, {}, {}, {}]
    assert counted.call_count == asked


@pytest.mark.parametrize("told", [True, False])
def test_the_manifest_says_it_where_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool) -> None:
    monkeypatch.setattr(outcome, "qemu_version", lambda _arch: "7")
    iso = tmp_path / "x.iso"
    iso.touch()
    medium = MagicMock(path=iso, volume_id="V", disk_info="i", size=0, arch="amd64")
    facts, counted = ({"root-used": "4711"}, sizes.parse(TOLD)) if told else ({}, {})
    proof = MagicMock(first=prove.Seen(facts, 3.0, counted), to_json=dict)
    job = Job(Spec(name="x"), iso, tmp_path)
    info, base = disk.Info("qcow2", 10, 5, compression="zlib"), Base(iso, Told(1, 7.0, {}, 3.0))
    details = outcome.describe(job, medium, "tcg", info, base=base, proof=proof, story=Story(silent))
    again = json.loads(json.dumps(details))
    assert again["image"].get("used") == (4711 if told else None)
    assert (again["image"]["virtual_size"], again["image"]["compression"]) == (10, "zlib")
    assert list(again.get("sizes", [])) == (["/", "/usr", "/usr/lib", "/var", "/srv/a b\tc"] if told else [])
