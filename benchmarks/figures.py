"""Times the ways to put answers on a large ISO, side by side: `python -m benchmarks.figures [--size 2.5G]`.

An ISO of that size with Ubuntu's layout is made once and kept in the cache (`benchmarks.medium`). Then, in rounds and
in turns that rotate: the thin overlay that `prebake image` boots, the file that `prebake iso` writes, a copy of the
ISO brought to the disk and one that is not, xorriso loading it and writing it anew, and all of it extracted and made
into a new ISO. Each is done by a child of its own, with no results of others on the disk and nothing left to be
written; `benchmarks.cost` says what is counted. The ISO itself is in the page cache, for all ways alike. Compare
ratios within one run; these are no limits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cost import spend
from benchmarks.medium import medium
from benchmarks.peers import SEED
from builder import boot
from builder.autoinstall import render
from builder.media.image import inspect
from builder.media.menus import edited_menus
from builder.size import parse_size
from builder.spec import Spec
from builder.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.cost import Cost

ROUNDS = 5
SIZE = "2.5G"
MB = 1e6
Costs = dict[str, list["Cost"]]


@dataclass(frozen=True)
class Way:
    """A way to a medium: what it is called, and the module and the name there that do it."""

    title: str
    module: str
    name: str


OVERLAY = Way("thin overlay (prebake image)", "benchmarks.ways", "overlay")
WHOLE = Way("prebake iso", "benchmarks.ways", "whole")
COPY = Way("cp, and fsync", "benchmarks.peers", "copy")
COPY_UNSYNCED = Way("cp, left in memory", "benchmarks.peers", "copy-unsynced")
REPLAY = Way("xorriso replay", "benchmarks.peers", "replay")
EXTRACT = Way("extract, then mkisofs", "benchmarks.peers", "extract")
START = Way("start", "benchmarks.ways", "start")
WAYS = (OVERLAY, WHOLE, COPY, COPY_UNSYNCED, REPLAY, EXTRACT)
REFLINK_WAYS = (WHOLE, COPY)

PARTS: Mapping[str, str] = {
    "parse": "reading the medium",
    "answers": "the answers, password hash and all",
    "plan": "planning the change",
    "proof": "proving it: pycdlib reads back what it makes",
    "write": "writing the overlay",
    "disk": "an empty disk",
    "QEMU": "QEMU, until its guest runs",
    "probe": "not in the sum: which accelerator works",
    "fsync": "not in the sum: the overlay to the disk, which no build waits for",
}
"""What the parts on the way to a running machine are called."""
APART = ("probe", "fsync")


def say(text: str = "") -> None:
    """Write a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def sow(iso: Path, folder: Path) -> None:
    """Put into ``folder`` what the others' ways put on the medium: prebake's own menus and answers."""
    found = inspect(iso)
    arguments = [*render.KERNEL_ARGUMENTS, *boot.CONSOLES["amd64"]]
    files = {
        **edited_menus(found, kernel_arguments=arguments),
        **boot.answers_for(Spec(name="bench"), found, watched=False).files(),
    }
    for name, data in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def run_rounds(ways: Sequence[Way], iso: Path, work: Path, rounds: int) -> Costs:
    """Go all ``ways`` in turn, ``rounds`` times; return the costs by title. ``work`` is empty again afterwards."""
    costs: Costs = {way.title: [] for way in ways}
    results = work / "results"
    sow(iso, work / SEED)
    for number in range(rounds):
        for place in range(len(ways)):  # disks have bursts and pauses: each way comes after each other one
            way = ways[(place + number) % len(ways)]
            results.mkdir()
            os.sync()
            costs[way.title].append(spend(way.module, way.name, iso, results))
            shutil.rmtree(results)
    shutil.rmtree(work / SEED)
    return costs


def middle(costs: Sequence[Cost], what: Callable[[Cost], float]) -> float:
    """Return the median of one of the figures."""
    return statistics.median(what(one) for one in costs)


def spread(values: Sequence[float]) -> str:
    """Return the least and the greatest."""
    return f"({min(values):.2f} to {max(values):.2f})"


def ratio(costs: Costs, over: Way, under: Way, without: str = "") -> str:
    """Return how many times as long one way takes as another: the median of the rounds' own ratios, and the spread.

    ``without`` is a part of the other that is left out.
    """
    pairs = zip(costs[over.title], costs[under.title], strict=True)
    ratios = [one.seconds / (other.seconds - other.parts.get(without, 0)) for one, other in pairs]
    return f"{statistics.median(ratios):.2f} x {spread(ratios)}"


def table(costs: Costs, first: Way) -> None:
    """Print the costs of the ways, a line each; ``first`` is what the others are compared with."""
    least = middle(costs[first.title], lambda one: one.seconds)
    say(f"  {'':29}{'seconds':>8} {'least to most':>17} {'ratio':>8} {'written':>11} {'on disk':>11} {'memory':>8}")
    for title, row in costs.items():
        seconds = middle(row, lambda one: one.seconds)
        written, kept = middle(row, lambda one: one.written) / MB, middle(row, lambda one: one.kept) / MB
        memory = middle(row, lambda one: one.peak) / MB
        say(
            f"  {title:29}{seconds:8.2f} {spread([one.seconds for one in row]):>17} {seconds / least:6.1f} x"
            f" {written:8.1f} MB {kept:8.1f} MB {memory:5.0f} MB"
        )


def started(costs: Sequence[Cost]) -> None:
    """Print the parts on the way from the ISO to a running machine."""
    say("From the ISO to a running machine, in seconds")
    for part, title in PARTS.items():
        values = [one.parts[part] for one in costs]
        say(f"  {title:65}{statistics.median(values):8.3f} {spread(values):>17}")
    sums = [sum(one.parts[part] for part in PARTS if part not in APART and part != "parse") for one in costs]
    say(f"  {'from the end of reading to a guest that runs':65}{statistics.median(sums):8.3f} {spread(sums):>17}")


def remaster(size: int, rounds: int = ROUNDS, folder: Path | None = None, reflinks: Path | None = None) -> None:
    """Print everything about an ISO of ``size`` bytes.

    Results are written to ``folder``, by default that of the ISO; what it takes is three times the ISO. ``reflinks``
    is a folder on a file system where files can share blocks: the ISO is copied there, and what depends on it is
    measured there too.
    """
    cache = cache_folder() / "bench"
    cache.mkdir(parents=True, exist_ok=True)
    iso = medium(cache, size)
    with tempfile.TemporaryDirectory(dir=folder or cache) as name:
        costs = run_rounds((*WAYS, START), iso, Path(name), rounds)
    starts = costs.pop(START.title)
    say(f"Remaster of {iso.stat().st_size / 1e9:.2f} GB, median of {rounds} rounds; ratios to the first line")
    table(costs, OVERLAY)
    imports = middle(costs[OVERLAY.title], lambda one: one.process - one.seconds)
    say(f"  Python's start and imports, in no line above: {imports:.2f} s")
    say(f"  prebake iso takes, of a copy that is brought to the disk: {ratio(costs, WHOLE, COPY)}")
    say(f"  xorriso's replay takes, of the thin overlay: {ratio(costs, REPLAY, OVERLAY)}")
    say(f"  of the thin overlay without its proof, as the others: {ratio(costs, REPLAY, OVERLAY, 'proof')}")
    started(starts)
    if reflinks is not None:
        with tempfile.TemporaryDirectory(dir=reflinks) as name:
            there = Path(name, iso.name)
            shutil.copyfile(iso, there)
            shared = run_rounds(REFLINK_WAYS, there, Path(name), rounds)
        say("The same where files can share blocks")
        table(shared, WHOLE)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures for the size on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description="Times ways to remaster an ISO.")
    parser.add_argument("--size", type=parse_size, default=parse_size(SIZE), help=f"of the ISO  [{SIZE}]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"[{ROUNDS}]")
    parser.add_argument("--folder", type=Path, help="where results are written and removed  [the cache]")
    parser.add_argument("--reflink-dir", type=Path, help="a folder on XFS, Btrfs or the like")
    given = parser.parse_args(argv)
    remaster(given.size, given.rounds, given.folder, given.reflink_dir)


if __name__ == "__main__":
    main()
