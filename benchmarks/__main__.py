"""Prints how long things take here: `make bench`. Compare ratios within one run; these are no limits.

Remaster: an ISO as large as Ubuntu's, by prebake and by others (`benchmarks.figures` has options for it). Journey:
one image of the rehearsal medium, which is cached, by stage.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import SIZE, remaster, say
from builder.events import silent
from builder.rehearsal.build import rehearsal_iso
from builder.size import parse_size
from builder.store import cache_folder


def journey(iso: Path, work: Path) -> None:
    """Time one image, by stage."""
    argv = [sys.executable, "-m", "builder.cli", "image", "--iso", str(iso), "--offline", "--name", "bench", "-q"]
    begun = time.perf_counter()
    subprocess.run([*argv, "-o", str(work)], check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - begun
    told = json.loads((work / "bench/manifest.json").read_text())["prebake"]
    say(f"Image of the rehearsal medium, {told['accelerator']}, {told['qemu']}")
    for name, seconds in told["seconds"].items():
        say(f"  {name:30} {seconds:7.1f} s")
    say(f"  {'all':30} {whole:7.1f} s")
    say(f"  image {told['image']['size'] >> 20} MiB")


def main() -> None:
    """Print all figures."""
    remaster(parse_size(SIZE))
    iso = rehearsal_iso(cache_folder(), silent)
    with tempfile.TemporaryDirectory(dir=Path("output")) as name:
        journey(iso, Path(name))


if __name__ == "__main__":
    main()
