"""Prints how long things take here: `make bench`. Compare ratios within one run; these are no limits.

Remaster: the thin overlay that `prebake image` boots, the whole file that `prebake iso` writes, a plain copy and
xorriso's own way, each the median of several rounds taken in turn, on the rehearsal medium. Journey: one image of
it with the medium cached, by stage.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from builder import boot, command, pipeline
from builder.events import silent
from builder.media.image import inspect
from builder.rehearsal.build import rehearsal_iso
from builder.spec import Spec
from builder.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def remaster(iso: Path, work: Path) -> None:
    """Time the ways to a remastered medium, in turn."""
    spec = Spec(name="bench")
    medium = inspect(iso)
    answers = boot.answers_for(spec, medium)
    data = work / "user-data"
    data.write_text(answers.user_data)
    out = work / "out.iso"

    def replay() -> None:
        # fmt: off
        command.run((
            "xorriso", "-indev", str(iso), "-outdev", str(out), "-boot_image", "any", "replay",
            "-joliet", "on", "-compliance", "joliet_long_paths:joliet_long_names",
            "-map", str(data), "/nocloud/user-data",
        ))
        # fmt: on

    ways: dict[str, Callable[[], object]] = {
        "thin overlay (prebake image)": lambda: boot.boot_medium(medium, answers, work / "overlay.qcow2", silent),
        "whole file (prebake iso)": lambda: pipeline.write_remastered_iso(spec, iso, out, silent, force=True),
        "plain copy": lambda: shutil.copyfile(iso, out),
        "xorriso replay": replay,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            for path in (out, work / "overlay.qcow2"):
                path.unlink(missing_ok=True)
            begun = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begun)
    least = statistics.median(times["thin overlay (prebake image)"])
    say(f"Remaster of {medium.size >> 20} MiB, median of {ROUNDS}")
    for name, row in times.items():
        middle = statistics.median(row)
        say(f"  {name:30} {middle:7.2f} s   {middle / least:5.1f} x   ({min(row):.2f} to {max(row):.2f})")


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
    iso = rehearsal_iso(cache_folder(), silent)
    with tempfile.TemporaryDirectory(dir=Path("output")) as name:
        work = Path(name)
        remaster(iso, work)
        journey(iso, work)


if __name__ == "__main__":
    main()
