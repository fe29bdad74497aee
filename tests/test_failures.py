"""Every failure a build can meet, provoked for real: what is said of it, how it ends, what is left, how soon.

They run in the background, in the order of the table, so each test waits for its own only. Under emulation a guest
takes half a minute to its installer, and a busy host doubles that: fifteen minutes for all of them.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from builder.vm import disk
from tests.journey import MISSING
from tests.provoke import FAILURES, Failure, Seen, fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.skipif(sys.platform != "linux", reason="some are provoked with what only Linux has"),
]
LATEST = 120.0
"""Seconds from the first sign of a failure to the verdict: many times what it takes, a fraction of every time-out."""


@pytest.fixture(scope="module")
def provoked(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Seen]]]:
    """All failures, on their way."""
    names = [name for name, each in FAILURES.items() if not each.small or os.geteuid() == 0]
    with ThreadPoolExecutor(1) as pool:
        running = {name: pool.submit(fail, name, iso, tmp_path_factory.mktemp("fail")) for name in names}
        try:
            yield running
        finally:
            for future in running.values():
                future.cancel()


def seen_of(provoked: dict[str, Future[Seen]], name: str) -> Seen:
    if name not in provoked:
        pytest.skip("needs root, to mount a small disk")
    return provoked[name].result()


@pytest.mark.parametrize("name", FAILURES)
def test_it_is_known_named_and_leaves_its_evidence(provoked: dict[str, Future[Seen]], name: str) -> None:
    failure, seen = FAILURES[name], seen_of(provoked, name)
    said = " ".join(seen.err.split())
    assert (seen.code, seen.out) == (failure.code, ""), seen.err
    for words in failure.words:
        assert words in said
    assert "What to do: " in said
    if not failure.small:  # that disk is no more
        assert [path.name for path in seen.folder.parent.iterdir()] == ["x.failed"]
        kept_as_told(failure, seen)
    assert f"Evidence: {seen.folder}" in said


def kept_as_told(failure: Failure, seen: Seen) -> None:
    kept = {path.name for path in seen.folder.iterdir()}
    assert {"console.log", "console.cast", "events.jsonl", "error.txt", "qemu.txt", "user-data", "host.json"} <= kept
    if failure.slug is not None:
        assert str(seen.told["cause"]).startswith(f"{failure.slug}: ")
    assert seen.verdict - seen.sign < LATEST
    assert seen.exit >= seen.verdict
    for path in seen.folder.rglob("*"):
        if path.is_file() and path.name != "disk.qcow2":  # the system's own, and kept on demand
            data = path.read_bytes()
            assert not any(word in data for word in (b"powercoders", b"$6$")), path


def test_the_guests_own_logs_are_there(provoked: dict[str, Future[Seen]]) -> None:
    """Saved by error-commands after a late-command, and through the shell behind the prompt where there are none."""
    seen = seen_of(provoked, "late-command")
    log = seen.folder / "guest/var/log/installer/subiquity-server-debug.log"
    assert "to-the-log" in log.read_text()
    seen = seen_of(provoked, "answers invalid, no error-commands")
    assert "'shutdown' section" in (seen.folder / "guest/var/log/installer/subiquity-traceback.txt").read_text()
    seen = seen_of(provoked, "out of memory")
    assert "Out of memory" in (seen.folder / "guest/var/log/installer/installer-journal.txt").read_text()


def test_the_disk_is_kept_on_demand(provoked: dict[str, Future[Seen]]) -> None:
    kept = disk.info(seen_of(provoked, "late-command").folder / "disk.qcow2")
    assert kept.backing is None
    assert kept.size == 10 << 30
    assert not (seen_of(provoked, "package missing").folder / "disk.qcow2").exists()


def test_a_machine_that_still_ran_left_a_picture(provoked: dict[str, Future[Seen]]) -> None:
    for name in ("silent", "kernel panic", "no autoinstall"):
        seen = seen_of(provoked, name)
        (picture,) = seen.folder.glob("screen.*")
        assert picture.stat().st_size > 500, name


def test_the_record_can_be_read(provoked: dict[str, Future[Seen]]) -> None:
    seen = seen_of(provoked, "late-command")
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
