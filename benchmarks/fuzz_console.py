"""Feeds damaged consoles to the grammar and the verdict: `python -m benchmarks.fuzz_console [--minutes 3]`.

Consoles of the tests, and recorded ones where they are, are damaged (tests/console_mutants.py): bits flipped, pieces
dropped, doubled, moved, interleaved with another console's, noise and words of the grammar put in. For each mutant the
verdict, by whatever chunks, must be the same and well formed; what proves no success must not become one; nothing
may raise. A finding's traceback and seed are printed, and the exit code is 1. `--again SEED` judges one mutant.
"""

from __future__ import annotations

import argparse
import collections
import random
import resource
import sys
import time
import traceback

from benchmarks.figures import say
from tests.console_mutants import corpus, judge, mutant, proves_nothing

LONG = 8000
CROPPED = 0.9
"""How many of the consoles that are longer than LONG bytes are cut to that."""


class Fuzzer:
    """The consoles, and what came of their mutants."""

    def __init__(self) -> None:
        self.consoles = corpus()
        self.names = sorted(self.consoles)
        self.harmless = [raw for raw in self.consoles.values() if proves_nothing(raw)]
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.findings: dict[str, str] = {}
        self.bytes = 0
        self.slowest = (0.0, 0, 0)

    def one(self, seed: int) -> str:
        """Judge the mutant that ``seed`` stands for; return the verdict's word. Raises whatever is wrong."""
        dice = random.Random(seed)  # noqa: S311 - no secret, and the same every time
        raw = self.consoles[dice.choice(self.names)]
        if len(raw) > LONG and dice.random() < CROPPED:  # a long one is judged slowly
            at = dice.randrange(len(raw) - LONG)
            raw = raw[at : at + LONG]
        others = self.harmless if proves_nothing(raw) else list(self.consoles.values())
        data = mutant(raw, others, dice)
        self.bytes += len(data)
        begun = time.perf_counter()
        outcome = judge(data, dice)
        self.slowest = max(self.slowest, ((time.perf_counter() - begun), len(data), seed))
        if outcome == "success" and proves_nothing(raw):
            raise AssertionError("a success was made of a console that proves none")
        return outcome

    def run(self, seconds: float, seed: int) -> None:
        """Judge mutants for some ``seconds``, from ``seed`` on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.outcomes[self.one(seed)] += 1
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                self.outcomes["finding"] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                name = f"{type(error).__name__} in {where.filename}:{where.lineno}"
                self.findings.setdefault(name, f"--again {seed}\n{traceback.format_exc()[-3000:]}")
            seed += 1


def main() -> int:
    """Run the fuzzer and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_console", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=int, metavar="SEED", help="judge this mutant")
    given = parser.parse_args()
    fuzzer = Fuzzer()
    if given.again is not None:
        say(fuzzer.one(given.again))
        return 0
    fuzzer.run(given.minutes * 60, given.seed)
    mutants = sum(fuzzer.outcomes.values())
    say(f"{mutants} mutants of {len(fuzzer.names)} consoles in {given.minutes:g} min, {fuzzer.bytes / 1e6:.0f} MB")
    for name, count in sorted(fuzzer.outcomes.items()):
        say(f"  {name:12}{count:9}")
    seconds, size, seed = fuzzer.slowest
    say(f"  slowest: {seconds:.2f} s for {size} bytes (--again {seed})")
    say(f"  peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    for name, text in fuzzer.findings.items():
        say(f"FINDING {name}\n{text}")
    return 1 if fuzzer.findings else 0


if __name__ == "__main__":
    sys.exit(main())
