"""What can be seen of a guest from outside: the words on its screen, and whether it does anything. Real QEMU."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builder.vm import activity, screen
from builder.vm.machine import Machine
from builder.vm.qemu import Disk, MachineSpec
from tests.test_vm_machine import SLEEP, boot_sector

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
SPEC = MachineSpec(name="look", arch="amd64", accel="tcg", cpus=1, memory_mib=64)
SPIN = bytes.fromhex("ebfe")


def test_the_words_on_the_screen_are_read() -> None:
    with Machine(SPEC) as machine:
        rows: list[str] = []
        for _ in range(150):
            rows = screen.text(machine)
            if "No bootable device." in rows:
                break
            time.sleep(0.2)
        assert rows[-1] == "No bootable device."
        assert rows[0].startswith("SeaBIOS")
    assert screen.text(machine) == [], "a machine that is gone has none"
    with Machine(replace(SPEC, display=False)) as machine:
        assert screen.text(machine) == []


def test_what_is_no_text_is_not_taken_for_it() -> None:
    blank = b"\0\x07" * 2000
    assert screen.lines(blank) == []
    assert screen.lines(b"".join(bytes((letter, 7)) for letter in b"grub> ") + blank[12:]) == ["grub>"]
    assert screen.lines(blank[:-2]) == []
    assert screen.lines(b"\x01\x02" * 2000) == [], "a picture"
    assert screen.lines(bytes(range(256)) * 15 + bytes(160)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_guest_that_works_is_told_from_one_that_rests(tmp_path: Path) -> None:
    def spent(action: bytes) -> tuple[float, int]:
        path = tmp_path / "disk.raw"
        path.write_bytes(boot_sector(action).ljust(1 << 20, b"\0"))
        with Machine(replace(SPEC, disks=(Disk(path, format="raw", boot=0),))) as machine:
            heard = b""
            while b"\x7e\r\n" not in heard:
                heard += machine.serial.recv(100)
            time.sleep(0.5)
            before = activity.work(machine)
            time.sleep(2)
            after = activity.work(machine)
            assert before is not None
            assert after is not None
            return after[0] - before[0], after[1] - before[1]

    rests, nothing = spent(SLEEP)
    works, none = spent(SPIN)
    assert nothing == none == 0
    assert works > 5 * max(rests, 0.05)


def test_of_a_machine_that_is_gone_nothing_is_told() -> None:
    with Machine(SPEC) as machine:
        pass
    assert activity.work(machine) is None


def test_the_bytes_of_all_disks_count() -> None:
    told = [{"stats": {"rd_bytes": 5, "wr_bytes": 7}}, {"stats": {"rd_bytes": 1}}, {"other": 1}, "x"]
    assert activity.total(told) == 13
    assert activity.total(None) == 0
