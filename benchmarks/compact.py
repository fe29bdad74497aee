"""Packs one disk in several ways, side by side: `python -m benchmarks.compact DISK [--rounds 3] [--work FOLDER]`.

DISK is any qcow2 or raw image. A copy of it that is not packed is made first, outside of all times, and every way
starts from that: prebake's compaction as `prebake image` does it (its check included) with zstd and with zlib,
`qemu-img convert` with and without packing, and `virt-sparsify --compress` where it is installed. The last starts a
small machine, fills what is free with zeroes and packs the rest; without a usable KVM it takes minutes, so it runs
once. `qemu-img check` and `compare` look at every result; virt-sparsify's differs in what is free. prebake has the
guest trim what is free before it is sealed: give a disk that its guest has trimmed, or see what virt-sparsify finds
beyond. Ways take turns that rotate; the seconds are medians. Bytes are exact; of the seconds compare the ratios within
one run.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import say, spread
from builder import command
from builder.errors import PrebakeError
from builder.events import silent
from builder.image.stages import compact
from builder.vm import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 3
SPARSIFY = "virt-sparsify"
LONGEST = 1800.0
"""Seconds that virt-sparsify may take."""
BACKEND = {"LIBGUESTFS_BACKEND": "direct"}
"""libguestfs starts QEMU itself, for there need be no libvirt."""


@dataclass(frozen=True)
class Way:
    """A way to pack: what it is called, what writes the second path from the first, and how often it is tried."""

    title: str
    pack: Callable[[Path, Path], object]
    rounds: int | None = None


@dataclass
class Made:
    """What came of a way: bytes of the file, seconds of each round, what qemu-img finds in it, or why nothing."""

    size: int = 0
    seconds: list[float] = field(default_factory=list)
    check: str = ""
    trouble: str = ""


def convert(*options: str) -> Callable[[Path, Path], object]:
    """Return a plain ``qemu-img convert`` with these options."""
    return lambda source, result: command.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", *options, str(source), str(result)]
    )


def sparsify(source: Path, result: Path) -> None:
    """Have virt-sparsify do it. Raises HostError if it is not installed, CommandError if it fails."""
    command.run([SPARSIFY, "--compress", str(source), str(result)], env=BACKEND, timeout=LONGEST)


def prebake(compression: disk.Compression) -> Callable[[Path, Path], object]:
    """Return what `prebake image` does with that compression."""
    return functools.partial(compact, report=silent, compression=compression)


WAYS = (
    Way("prebake image (zstd)", prebake("zstd")),
    Way("prebake image --compression zlib", prebake("zlib")),
    Way("qemu-img convert", convert()),
    Way("qemu-img convert -c", convert("-c")),
    Way("qemu-img convert -c, zstd", convert("-c", "-o", "compression_type=zstd")),
    Way(f"{SPARSIFY} --compress", sparsify, rounds=1),
)


def measure(source: Path, work: Path, rounds: int, ways: Sequence[Way] = WAYS) -> dict[str, Made]:
    """Go all ``ways`` in turn, ``rounds`` times; return what came of each. ``work`` is as before afterwards."""
    made = {way.title: Made() for way in ways}
    result = work / "result.qcow2"
    for number in range(rounds):
        for place in range(len(ways)):
            way = ways[(place + number) % len(ways)]
            if made[way.title].trouble or len(made[way.title].seconds) >= (way.rounds or rounds):
                continue
            os.sync()
            _once(way, source, result, made[way.title])
            result.unlink(missing_ok=True)
    return made


def _once(way: Way, source: Path, result: Path, made: Made) -> None:
    begun = time.perf_counter()
    try:
        way.pack(source, result)
        made.seconds.append(time.perf_counter() - begun)
        found = disk.check(result)
        argv = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", str(source), str(result)]
        same = command.run(argv, ok=(0, 1)).returncode == 0
        made.check = ("clean" if found.clean else str(found)) + ("" if same else ", other content")
        made.size = result.stat().st_size
    except PrebakeError as error:
        rows = error.message.splitlines()
        made.trouble = next((row for row in rows if "error: " in row), rows[-1]).strip()


def table(made: dict[str, Made]) -> None:
    """Print a line for each way; the first is what the others are compared with."""
    first = next(iter(made.values()))
    say(f"  {'':34}{'bytes':>15} {'ratio':>7} {'seconds':>9} {'least to most':>18} {'ratio':>8}  qemu-img")
    for title, one in made.items():
        if one.trouble or not one.seconds:
            say(f"  {title:34}{one.trouble}")
            continue
        middle = statistics.median(one.seconds)
        ratios = (f"{one.size / first.size:7.2f}", f"{middle / statistics.median(first.seconds):6.2f} x")
        seconds = f"{middle:9.2f} {spread(one.seconds):>18}"
        say(f"  {title:34}{one.size:15,} {ratios[0]} {seconds} {ratios[1]}  {one.check}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all figures; ``arguments`` are the command line's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compact", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("disk", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--work", type=Path, help="where the copies are made")
    asked = parser.parse_args(arguments)
    found = disk.info(asked.disk)
    with tempfile.TemporaryDirectory(dir=asked.work, prefix="prebake-compact-") as name:
        source = Path(name, "source.qcow2")
        disk.convert(asked.disk, source, source_format=found.format)
        version = command.run(["qemu-img", "--version"]).stdout.decode().splitlines()[0]
        taken = source.stat().st_size
        say(f"{asked.disk.name}: {found.size:,} bytes of disk, {taken:,} in a file that is not packed; {version}")
        table(measure(source, Path(name), asked.rounds))


if __name__ == "__main__":
    main()
