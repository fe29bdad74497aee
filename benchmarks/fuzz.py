"""Feeds mutants of a small ISO to prebake, guided by coverage: `python -m benchmarks.fuzz [--minutes 10]`.

Needs atheris (libFuzzer for Python): pip install 'prebake[fuzz]'. The parsers in builder.media and pycdlib are
instrumented; an input is a recipe (tests/mutants.py), and the mutator works on its steps and on what is repaired.
Each mutant is inspected, read and planned. It has to be refused in words (exit code 5 or 6) or accepted; what is
accepted is applied, opened again, and has to hold the files, and now and then xorriso has to find them too. The
source must be as it was. Anything else is a finding: its traceback and recipe are printed and kept in --findings,
and the exit code is 1. `--again HEX` judges one recipe.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP = 8
LONGEST = 12 * STEP + 1
SECONDS = 60
"""How long one mutant may take before libFuzzer calls it a hang; a sound one takes a tenth of a second."""
MEGABYTES = 1024
SAMPLE = 20
"""Every how many accepted mutants xorriso is asked."""
PULSE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass
class Tally:
    """What has happened so far."""

    mutants: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    asked: int = 0
    slowest: float = 0
    slow_recipe: str = ""
    findings: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        path.write_text(json.dumps({**vars(self), "memory": memory}))


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Target:
    """What libFuzzer calls: one mutant after the other in one scratch file."""

    def __init__(self, media: Sequence[Path], stats: Path) -> None:
        from tests import mutants  # noqa: PLC0415 - imported while imports are instrumented

        self.mutants = mutants
        self.templates = [mutants.Template.of(path, quick=number > 0) for number, path in enumerate(media)]
        self.tally = Tally()
        self.stats = stats
        self.image = stats.with_name("mutant.iso")

    def __call__(self, recipe: bytes) -> None:
        """Judge one mutant; a finding is kept and the run goes on."""
        begun = time.perf_counter()
        try:
            outcome = self.judge(recipe)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            outcome = "finding"
            where = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}"
            self.tally.findings.setdefault(name, recipe.hex() + "\n" + traceback.format_exc()[-3000:])
        took = time.perf_counter() - begun
        self.tally.mutants += 1
        self.tally.outcomes[outcome] += 1
        if took > self.tally.slowest:
            self.tally.slowest, self.tally.slow_recipe = took, recipe.hex()
        if self.tally.mutants % 50 == 0 or outcome == "finding":
            self.tally.save(self.stats)

    def judge(self, recipe: bytes) -> str:
        """Return the outcome of one recipe. Raises whatever is wrong."""
        from builder.media.image import read_file  # noqa: PLC0415 - as above
        from builder.media.remaster import plan  # noqa: PLC0415

        template = self.templates[(recipe[-1] >> 3) % len(self.templates) if recipe else 0]
        data = template.mutant(recipe)
        self.image.write_bytes(data)
        outcome, patch = self.mutants.judge(self.image)
        if self.image.read_bytes() != data:
            raise AssertionError("the source has changed")
        if patch is not None:
            result = self.mutants.applied(data, patch)
            self.image.write_bytes(result)
            for path, content in self.mutants.FILES.items():
                if read_file(self.image, path) != content:
                    raise AssertionError(f"{path} does not hold what it should")
            if plan(self.image, self.mutants.FILES).extents:
                raise AssertionError("a second remaster changes something")
            if self.tally.outcomes["accepted"] % SAMPLE == 0:
                self.ask(data, result)
        return outcome

    def ask(self, source: bytes, result: bytes) -> None:
        """Raise AssertionError if xorriso lists the source but not the new file in the result."""
        self.image.write_bytes(source)
        if "vmlinuz" not in self.listed("/casper"):
            return
        self.tally.asked += 1
        self.image.write_bytes(result)
        if "user-data" not in self.listed("/nocloud"):
            raise AssertionError("xorriso does not list the new file")

    def listed(self, folder: str) -> str:
        """Return what xorriso lists."""
        argv = ["xorriso", "-abort_on", "NEVER", "-indev", f"stdio:{self.image}", "-lsl", folder]
        return subprocess.run(argv, capture_output=True, check=False).stdout.decode("utf-8", "replace")


class Mutator:
    """Makes a recipe from another: steps are added, dropped, exchanged with other recipes' or changed in a byte."""

    def __init__(self) -> None:
        self.pool: collections.deque[bytes] = collections.deque(maxlen=400)

    def __call__(self, data: bytes, most: int, seed: int) -> bytes:
        """Return the new recipe."""
        dice = random.Random(seed)  # noqa: S311 - no secret, and the same every time
        steps = [data[at : at + STEP] for at in range(0, len(data) - STEP + 1, STEP)]
        last = data[-1] if len(data) % STEP == 1 else 0
        self.pool.extend(steps)
        for _ in range(dice.choice((1, 1, 2, 3))):
            at = dice.randrange(len(steps)) if steps else 0
            what = dice.choice(("add", "add", "add", "drop", "exchange", "repair", "nudge", "byte", "byte"))
            if what == "add" or not steps:
                steps.insert(at, dice.randbytes(STEP))
            elif what == "drop":
                del steps[at]
            elif what == "exchange":
                steps[at] = dice.choice(self.pool)
            elif what == "repair":
                last = dice.randrange(256)
            elif what == "nudge":
                number = int.from_bytes(steps[at], "little") + dice.choice((-1, 1)) * dice.choice((1, 2, 8, 16, 64))
                steps[at] = (number % (1 << 8 * STEP)).to_bytes(STEP, "little")
            else:
                byte = dice.randrange(STEP)
                steps[at] = steps[at][:byte] + bytes([dice.randrange(256)]) + steps[at][byte + 1 :]
        return (b"".join(steps[-12:]) + bytes([last]))[:most] if most > STEP else data[:most]


def fuzz(media: Sequence[Path], work: Path, minutes: float, seed: int) -> None:
    """Be the child process that libFuzzer runs in; it never returns."""
    import atheris  # noqa: PLC0415 - an extra

    with atheris.instrument_imports(include=["builder.media", "pycdlib"]):
        import pycdlib  # noqa: F401, PLC0415

        import builder.media.remaster  # noqa: F401, PLC0415 - instrumented
    target = Target(media, work / "stats.json")
    corpus = work / "corpus"
    corpus.mkdir()
    dice = random.Random(seed)  # noqa: S311 - no secret, and the same every time
    for number in range(200):
        (corpus / f"seed-{number}").write_bytes(dice.randbytes(STEP * dice.choice((1, 1, 2, 3)) + 1))
    limits = [f"-max_total_time={minutes * 60:.0f}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    words = [f"-max_len={LONGEST}", "-len_control=0", f"-seed={seed}", f"-artifact_prefix={work}/stopped-"]
    atheris.Setup([sys.argv[0], *limits, *words, str(corpus)], target, custom_mutator=Mutator())
    atheris.Fuzz()


def watch(
    process: subprocess.Popen[str], minutes: float, words: collections.deque[str]
) -> list[tuple[float, int, int, int]]:
    """Read libFuzzer's words to their end; return seconds, mutants, edges and features as they grew.

    What is no figure goes into ``words``.
    """
    begun, shown = time.monotonic(), 0.0
    growth: list[tuple[float, int, int, int]] = []
    for line in process.stderr or ():
        match = PULSE.search(line)
        now = time.monotonic() - begun
        if match is None:
            words.append(line.rstrip())
            continue
        growth.append((now, int(match[1]), int(match[2]), int(match[3])))
        if now >= shown:
            say(f"  {now:7.0f} s {match[1]:>9} mutants {match[2]:>7} edges {match[3]:>7} features")
            shown = now + max(minutes * 6, 5)
    return growth


def report(stats: dict[str, Any], growth: Sequence[tuple[float, int, int, int]], seconds: float, keep: Path) -> int:
    """Print the figures, keep the findings and return the exit code."""
    outcomes = stats["outcomes"]
    say(f"{stats['mutants']} mutants in {seconds:.0f} s, {stats['mutants'] / seconds:.1f} a second")
    for name, meaning in (
        ("accepted", "accepted and right"),
        ("5", "refused, exit code 5"),
        ("6", "refused, exit code 6"),
    ):
        say(f"  {meaning:30}{outcomes.get(name, 0):9}")
    say(f"  {'findings':30}{outcomes.get('finding', 0):9}   of {len(stats['findings'])} kinds")
    say(f"  {'xorriso was asked about':30}{stats['asked']:9}   accepted ones")
    if growth:
        say(f"  edges reached in the parsers: {growth[0][2]} with the first seeds, {growth[-1][2]} at the end")
    say(f"  slowest mutant: {stats['slowest']:.2f} s ({stats['slow_recipe'][:40]}…)")
    say(f"  peak memory: {stats['memory'] / 1e6:.0f} MB, the fuzzer's own included")
    for name, text in stats["findings"].items():
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}.txt").write_text(f"{name}\n{text}")
        say(f"FINDING {name}\n{text}")
    return 1 if stats["findings"] else 0


def main() -> int:
    """Run the fuzzer in a child process and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("output/fuzz"))
    parser.add_argument("--again", metavar="HEX", help="judge this recipe")
    parser.add_argument("--child", type=Path, nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fuzz(given.child[1:], given.child[0], given.minutes, given.seed)
        return 0
    from tests.isofixture import medium  # noqa: PLC0415 - not in the child
    from tests.mutants import SMALL, SMALL_MBR, SMALL_PLAIN  # noqa: PLC0415

    media = [medium(variant) for variant in (SMALL_PLAIN, SMALL, SMALL_MBR, SMALL)]
    memory = Path("/dev/shm")  # noqa: S108 - a mutant is a megabyte, and there are thousands
    with tempfile.TemporaryDirectory(prefix="prebake-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        work = Path(folder)
        if given.again:
            say(Target(media, work / "stats.json").judge(bytes.fromhex(given.again)))
            return 0
        try:
            import atheris  # noqa: F401, PLC0415 - an extra
        except ImportError:
            say("The fuzzer needs atheris: pip install 'prebake[fuzz]' (CPython 3.11 to 3.13 on Linux).")
            return 4
        argv = [sys.executable, "-m", "benchmarks.fuzz", "--minutes", str(given.minutes), "--seed", str(given.seed)]
        begun = time.monotonic()
        words: collections.deque[str] = collections.deque(maxlen=30)
        with subprocess.Popen(
            [*argv, "--child", str(work), *map(str, media)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONHASHSEED": "0"},
        ) as process:
            growth = watch(process, given.minutes, words)
        stats: dict[str, Any] = {
            "mutants": 0,
            "outcomes": {},
            "findings": {},
            "asked": 0,
            "slowest": 0,
            "slow_recipe": "",
        }
        with contextlib.suppress(FileNotFoundError):
            stats = json.loads((work / "stats.json").read_text())
        for stopped in work.glob("stopped-*"):
            stats["findings"][stopped.name] = (
                f"{stopped.read_bytes().hex()}\nlibFuzzer stopped here: a hang or its memory"
            )
        if process.returncode and not stats["findings"]:
            stats["findings"]["the fuzzer itself"] = f"ended with {process.returncode}\n" + "\n".join(words)
        return report({"memory": 0, **stats}, growth, time.monotonic() - begun, given.findings)


if __name__ == "__main__":
    sys.exit(main())
