"""What a piece of work costs: it is done in a process of its own, whose end the kernel sums up.

What is counted:

- ``seconds``: wall time around the work alone, taken inside the process, the programs it starts included;
- ``process``: wall time of the whole process, with Python's start and imports;
- ``written``: pages made dirty by the process and the programs it started, in bytes (ru_oublock, on Linux the
  write_bytes of /proc/PID/io). A file that is removed before it reaches the disk counts, one in memory does not;
- ``kept``: blocks its results hold on the disk when it ends, the cross-check of ``written``;
- ``peak``: the largest resident memory of any one of its processes. Linux counts what the Python that starts a
  program has as that program's too, about 15 MB: for `cp` this is all there is to see.

This module and `benchmarks.peers` import nothing heavy, so that this least is small.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
BLOCK = 512
"""The unit of ru_oublock and st_blocks, in bytes."""

Parts = dict[str, float]
"""Seconds of the parts of a work, by name, in order."""


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes, as the module says."""

    seconds: float
    process: float
    written: int
    kept: int
    peak: int
    parts: Parts = field(default_factory=dict)


def main(ways: Mapping[str, Callable[[Path, Path], Parts | None]]) -> None:
    """Do, in the child, what the command line names: WAY ISO FOLDER; tell how long it took on standard output."""
    way, iso, folder = ways[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    begun = time.perf_counter()
    parts = way(iso, folder)
    seconds = time.perf_counter() - begun
    sys.stdout.write(json.dumps({"seconds": seconds, "parts": parts or {}, "peak": _peak()}))


def _peak() -> int:
    """Return the largest resident memory of this process, and of the programs it started, in bytes.

    What the kernel sums up for this process itself includes the one that started it; its own is in /proc.
    """
    status = Path("/proc/self/status")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
    if status.exists():
        own = next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * MAXRSS_UNIT)


def spend(module: str, way: str, iso: Path, folder: Path) -> Cost:
    """Do one work in a child, with the results in ``folder``, which is empty before and the caller's afterwards.

    Raises CalledProcessError if it fails; what it says goes to standard error.
    """
    argv = [sys.executable, "-m", module, way, str(iso), str(folder)]
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        told = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.perf_counter() - begun
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    answer = json.loads(told)
    kept = sum(path.lstat().st_blocks for path in folder.rglob("*")) * BLOCK
    return Cost(
        seconds=answer["seconds"],
        process=elapsed,
        written=usage.ru_oublock * BLOCK,
        kept=kept,
        peak=answer["peak"],
        parts=answer["parts"],
    )
