"""Whether a guest does anything: what tells a long silence from a hung machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.vm.machine import Machine

ANSWER = 5.0
"""How long (s) QEMU may take to answer such a question; it takes a few thousandths."""


def work(machine: Machine) -> tuple[float, int] | None:
    """Return what a running machine has done so far: seconds of processor time, bytes read from and written to disks.

    None where that cannot be told: on a host without /proc, or of a machine that is gone. QEMU's own work counts as
    the guest's; a guest that only keeps its clock costs a few hundredths of a second each second. Raises MachineError
    if QEMU does not answer.
    """
    try:
        # Fields 14 and 15 of proc_pid_stat(5), user and system time in ticks, counted after the name in parentheses.
        fields = Path(f"/proc/{machine.pid}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return seconds, total(machine.execute("query-blockstats", timeout=ANSWER))


def total(told: object) -> int:
    """Return the bytes in the answer of QEMU's ``query-blockstats`` (QMP reference, type BlockStats)."""
    rows = told if isinstance(told, list) else []
    stats = [row["stats"] for row in rows if isinstance(row, dict) and isinstance(row.get("stats"), dict)]
    return sum(int(one.get("rd_bytes", 0)) + int(one.get("wr_bytes", 0)) for one in stats)
