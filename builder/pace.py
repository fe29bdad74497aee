"""How long a build will still take, told from how long earlier ones took and how fast this one has been."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from builder.events import Estimate, Note, Phase, StageStarted, Tick
from builder.runs import MOST_MARKS, SHORTEST, Run, nearest, read, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from builder.events import Event, Reporter
    from builder.runs import Kind

SLOWEST, FASTEST = 4.0, 0.3
"""How many times the learned seconds a build is believed to take, at most and at least."""
DAMPING = 0.2
"""The part of a build that says little of its speed: so much, at the learned speed, is thought to lie before it."""
EVEN = 0.8
"""The part of a segment that passes by the clock; what follows only draws near to the next mark."""
ALMOST = 0.999
"""How much is done at most before all is."""


@dataclass(frozen=True)
class Profile:
    """What earlier runs took: ``total`` seconds (0.1 or more), and when they came to each mark, 0 to ``total``."""

    total: float
    marks: Mapping[str, float]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Profile:
        """Return the medians of one or more runs; a mark that most of them do not have is left out."""
        total = median(run.total for run in runs)
        times: dict[str, list[float]] = {}
        for run in runs:
            for name, at in run.marks.items():
                times.setdefault(name, []).append(at)
        common = {name: min(median(all_), total) for name, all_ in times.items() if 2 * len(all_) >= len(runs)}
        return cls(total, common)

    def estimate(self, reached: Mapping[str, float], now: float) -> tuple[float, float]:
        """Return the part that is done, 0 to below 1, and the seconds that are left, 0 or more.

        ``reached`` says when this run came to its marks, in order; ``now`` is the time, both in seconds since it
        began. As a run goes on, what is done never goes back. Within a segment, the time from one known mark to
        the next, what is left only falls, and never below what lies behind the segment, however long it lasts.
        Marks that no earlier run had count for nothing.
        """
        known = [name for name in reached if name in self.marks]
        last = max(known, key=self.marks.__getitem__, default=None)
        learned, since = (0.0, 0.0) if last is None else (self.marks[last], reached[last])
        damping = DAMPING * self.total
        factor = min(max((since + damping) / (learned + damping), FASTEST), SLOWEST)
        end = min((at for at in self.marks.values() if at > learned), default=self.total)
        position = learned + (end - learned) * _passed(max(now - since, 0.0), factor * (end - learned))
        return min(position / self.total, ALMOST), factor * max(self.total - position, 0.0)


class Pace:
    """Stands between a build and who shows it: passes every event on, and says each second how far the build is.

    A context manager. When it is left without an error, the run is remembered for later ones. A Tick tells each
    second that time passes, also while the guest is silent; an Estimate comes before it, and before each mark, as
    soon as `begin` has found an earlier run. ``clock`` is in seconds, as is ``beat``. No two events are passed on
    at once.
    """

    def __init__(
        self, report: Reporter, path: Path, *, clock: Callable[[], float] = time.monotonic, beat: float = 1.0
    ) -> None:
        self._report = report
        self._path = path
        self._clock = clock
        self._beat = beat
        self._begun = clock()
        self._stage = ""
        self._marks: dict[str, float] = {}
        self._kind: Kind | None = None
        self._profile: Profile | None = None
        self._sure = False
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pace", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(2 * self._beat)  # a terminal that takes nothing more must not hold up the end
        if kind is None:
            self._finish()

    def __call__(self, event: Event) -> None:
        """Take one event and pass it on."""
        with self._lock:
            if isinstance(event, StageStarted):
                self._stage = event.stage
                self._mark(event.stage)
            elif isinstance(event, Phase):
                # Not the title: it may name the user, or a command of a class. The first part of a phase is the phase,
                # wherever it is joined, for a console that comes in one piece shows only where a phase ends.
                name = f"{self._stage}/{event.name}"
                self._mark(name if name not in self._marks else f"{name}@{100 * event.done:.0f}")
            self._report(event)

    def begin(self, kind: Kind) -> None:
        """Learn what kind of build this is, which is known only after the medium was read."""
        found = nearest(read(self._path), kind)
        with self._lock:
            self._kind = kind
            if found is None:
                self._report(Note("No build like this one has been made here before: no time is foretold.", "debug"))
                return
            self._profile = Profile.of(found.runs)
            self._sure = found.kind == kind
            like = "like this one" if self._sure else "not quite like this one"
            words = f"The time that is left is told from earlier builds here, {like}: {len(found.runs)}."
            self._report(Note(words, "debug"))

    def tick(self) -> None:
        """Say that time has passed."""
        with self._lock:
            self._tell()
            self._report(Tick())

    def _mark(self, name: str) -> None:
        if len(self._marks) < MOST_MARKS:
            self._marks.setdefault(name, round(self._now(), 1))
        self._tell()

    def _tell(self) -> None:
        if self._profile is not None:
            done, rest = self._profile.estimate(self._marks, self._now())
            self._report(Estimate(round(done, 4), round(rest, 1), self._sure))

    def _now(self) -> float:
        return self._clock() - self._begun

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more, as the build will find by itself
            while not self._over.wait(self._beat):
                self.tick()

    def _finish(self) -> None:
        with self._lock:
            if self._profile is not None:
                self._report(Estimate(1.0, 0.0, self._sure))
            if self._kind is None:
                return
            try:
                save(self._path, self._kind, Run(round(max(self._now(), SHORTEST), 1), self._marks))
            except OSError as error:
                self._report(Note(f"How long this build took cannot be remembered: {error}", "debug"))


def _passed(elapsed: float, expected: float) -> float:
    """Return the part of a segment that is thought to be behind after ``elapsed`` of ``expected`` seconds, 0 to 1."""
    if expected <= 0:
        return 0.0
    part = elapsed / expected
    return part if part <= EVEN else 1 - (1 - EVEN) * math.exp((EVEN - part) / (1 - EVEN))
