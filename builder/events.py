"""What happens during a build, as values: every room reports these, and only ``builder.ui`` shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StageStarted:
    """A stage of the pipeline begins."""

    stage: str
    title: str


@dataclass(frozen=True)
class StageFinished:
    """A stage of the pipeline ended well after ``seconds`` of wall clock."""

    stage: str
    title: str
    seconds: float


@dataclass(frozen=True)
class Phase:
    """A phase within a stage begins; ``done`` is the part of the stage that is behind, 0 to 1."""

    name: str
    title: str
    done: float


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` units of work (``unit`` is "B" for bytes)."""

    what: str
    done: int
    total: int
    unit: str = "B"


@dataclass(frozen=True)
class Note:
    """A sentence worth reading; ``level`` is "info", "warning" or "debug"."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class Fallback(Note):
    """A warning that guests are emulated because no hardware runs them: a build takes many times as long.

    ``why`` is the reason, ``cost`` what it means for time, ``fix`` what would mend it, if that is known; ``text``
    says it all in one.
    """

    level: str = "warning"
    accelerator: str = "tcg"
    why: str = ""
    cost: str = ""
    fix: str | None = None


@dataclass(frozen=True)
class ConsoleOutput:
    """Bytes from the guest's serial console, exactly as they came."""

    data: bytes


@dataclass(frozen=True)
class Estimate:
    """How far the build is, as earlier ones on this host tell: ``done`` is 0 to 1, ``rest`` the seconds left.

    It is ``sure`` if those were like this one, and not if they differed in something that may matter.
    """

    done: float
    rest: float
    sure: bool


@dataclass(frozen=True)
class Tick:
    """A second has passed."""


Event = StageStarted | StageFinished | Phase | Progress | Note | ConsoleOutput | Estimate | Tick
Reporter = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Report to nobody."""
