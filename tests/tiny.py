"""A guest of a few bytes for a child process to run, and what tests do to such a child."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FOR_EVER = bytes.fromhex("ebdc")
"""An action for the boot sector of tests/test_vm_machine.py: jmp to its first instruction, so it prints for ever."""

HEAD = """
    import os, signal, sys, time
    from pathlib import Path
    from builder import command
    from builder.vm.machine import Machine
    from builder.vm.qemu import Disk, MachineSpec
    here = Path(sys.argv[1])
    boot = Disk(here / "boot, sector:1.raw", "raw", boot=0)
    spec = MachineSpec("tiny", "amd64", "tcg", 1, 32, disks=(boot,), display=False)

    def say(*words):
        print(*words, flush=True)
"""


def child(folder: Path, script: str, **more: str) -> subprocess.Popen[str]:
    """Start a Python that runs ``script`` after `HEAD`; its sockets and its cache are in ``folder``."""
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache"), **more}
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HEAD) + textwrap.dedent(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def answer(process: subprocess.Popen[str]) -> list[str]:
    """Return the words of the next line the child says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())
    return line.split()


def gone(pid: int | None) -> bool:
    """Whether the process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def soon(look: Callable[[], bool], seconds: float = 30) -> bool:
    """Look again and again until it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
