"""What an installer can meet, provoked for real: what is said of it, how it ends, what is left.

Under emulation a guest takes half a minute to its installer, and a busy host doubles that: twelve minutes for all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from builder.vm import disk
from tests.failing import MACHINE, MARKS, Provoked, cases, known_named_and_kept
from tests.provoke import FAILURES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS


@pytest.fixture(scope="module")
def provoked(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Provoked:
    return Provoked(iso, tmp_path_factory)


@pytest.mark.parametrize("name", cases(name for name in FAILURES if name not in MACHINE))
def test_it_is_known_named_and_leaves_its_evidence(provoked: Provoked, name: str) -> None:
    known_named_and_kept(FAILURES[name], provoked[name])


def test_the_guests_own_logs_are_there(provoked: Provoked) -> None:
    """Saved by error-commands after a late-command, and through the shell behind the prompt where there are none."""
    seen = provoked["late-command"]
    log = seen.folder / "guest/var/log/installer/subiquity-server-debug.log"
    assert "to-the-log" in log.read_text()
    seen = provoked["answers invalid, no error-commands"]
    assert "'shutdown' section" in (seen.folder / "guest/var/log/installer/subiquity-traceback.txt").read_text()


def test_the_disk_is_kept_on_demand(provoked: Provoked) -> None:
    kept = disk.info(provoked["late-command"].folder / "disk.qcow2")
    assert kept.backing is None
    assert kept.size == 10 << 30
    assert not (provoked["answers not found"].folder / "disk.qcow2").exists()


def test_the_record_can_be_read(provoked: Provoked) -> None:
    seen = provoked["late-command"]
    rows = [json.loads(line) for line in (seen.folder / "events.jsonl").read_text().splitlines()]
    times = [row["t"] for row in rows if row["event"] != "qemu"]
    assert times == sorted(times)
    phases = [row["name"] for row in rows if row["event"] == "phase-started"]
    assert phases[:1] == ["boot-loader"]
    assert phases[-1] == "late-commands"
    assert "late-commands" not in [row["name"] for row in rows if row["event"] == "phase-finished"]
    assert any(row["event"] == "qemu" and row["qemu"]["event"] == "SHUTDOWN" for row in rows)
    lines = (seen.folder / "console.cast").read_text().splitlines()
    assert json.loads(lines[0])["version"] == 2
    played = "".join(json.loads(line)[2] for line in lines[1:])
    assert "subiquity/Install/install/curtin_install" in played
    assert "prebake-sentinel:failed:" in played
    host = json.loads((seen.folder / "host.json").read_text())
    assert host["accelerator"]
    assert host["speed"] > 0
