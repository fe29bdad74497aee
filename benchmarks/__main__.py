"""Prints how long things take here: `make bench`. Compare ratios within one run; these are no limits.

Remaster: an ISO as large as Ubuntu's, by prebake and by others (`benchmarks.figures` has options for it). Journey:
one image of the rehearsal medium, which is cached, by stage; then another class of the same settled system
(`python -m benchmarks --journey` prints these alone).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import SIZE, remaster, say
from builder.events import silent
from builder.rehearsal.build import rehearsal_iso
from builder.size import parse_size
from builder.store import cache_folder


def journey(iso: Path, work: Path) -> None:
    """Time one image, by stage, and another of the same system."""
    whole, told = image(iso, work, "bench", "--fresh")
    say(f"Image of the rehearsal medium, {told['accelerator']}, {told['qemu']}")
    for name, seconds in told["seconds"].items():
        say(f"  {name:30} {seconds:7.1f} s")
    say(f"  {'all':30} {whole:7.1f} s")
    say(f"  image {told['image']['size'] >> 20} MiB")
    again, told = image(iso, work, "again")
    say("The next class of the same system")
    for name, seconds in told["seconds"].items():
        say(f"  {name:30} {seconds:7.1f} s")
    say(f"  {'all':30} {again:7.1f} s, {again / whole:.2f} of the whole build")


def image(iso: Path, work: Path, name: str, *more: str) -> tuple[float, dict[str, Any]]:
    """Make one image in ``work``; return the seconds that it took and what its manifest says."""
    argv = [sys.executable, "-m", "builder", "image", "--iso", str(iso), "--offline", "--name", name, "-q", *more]
    begun = time.perf_counter()
    subprocess.run([*argv, "-o", str(work)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    told: dict[str, Any] = json.loads((work / name / "manifest.json").read_text())["prebake"]
    return seconds, told


def main() -> None:
    """Print all figures."""
    if sys.argv[1:] != ["--journey"]:
        remaster(parse_size(SIZE))
    iso = rehearsal_iso(cache_folder(), silent)
    with tempfile.TemporaryDirectory(dir=Path("output")) as name:
        journey(iso, Path(name))


if __name__ == "__main__":
    main()
