"""A clock for patience: it stands while prebake does not run, as after SIGSTOP or while its host sleeps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE = 1.0
"""Seconds that one look may take while something is waited for; short waits have shorter ones."""


class AwakeClock:
    """Seconds since it was made in which prebake was awake.

    It must be looked at every few seconds. Whoever looks as often and still finds that more than ``longest``
    seconds have gone since the last look has not run meanwhile, so no more than ``longest`` of them count.
    ``now`` is the clock beneath, in seconds; one that goes backwards is taken to stand.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, longest: float = 5.0) -> None:
        self._now = now
        self._longest = longest
        self._last = now()
        self._awake = 0.0

    def seconds(self) -> float:
        """Return how many seconds prebake was awake since the clock was made."""
        now = self._now()
        self._awake += max(0.0, min(now - self._last, self._longest))
        self._last = now
        return self._awake


def patiently(look: Callable[[float], bool], seconds: float, now: Callable[[], float] = time.monotonic) -> bool:
    """Call ``look`` until it is true or prebake was awake for ``seconds``; say whether it was true.

    ``look`` is told how long it may wait, and is called at least once. After a pause it is called again before
    anything is given up: what is waited for was paused too, or has come meanwhile.
    """
    step = max(min(SLICE, seconds / 8), 0.001)
    clock = AwakeClock(now, longest=2 * step)
    while not look(step):
        if clock.seconds() >= seconds:
            return False
    return True
