"""How long to wait, measured in what this host can do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HARDWARE = 3.0
"""The speed from which a host counts as one that runs guests in hardware; emulation is about 1."""
SLOWEST, FASTEST = 0.05, 5.0
"""Speeds beyond which waiting does not change: a processor's speed says little about disks."""
SHORTEST = 60.0
"""No silence shorter than this counts, however fast the host is."""
OTHER = (900.0, 300.0)

QUIET: Mapping[str, tuple[float, float]] = {
    "boot-loader": (1200.0, 60.0),
    "kernel": (1200.0, 60.0),
    "live-system": (1200.0, 200.0),
    "cloud-init": (900.0, 660.0),
    "early-commands": (900.0, 3600.0),
    "answers": (600.0, 300.0),
    "mirror": (600.0, 900.0),
    "partitioning": (600.0, 60.0),
    "extract": (1800.0, 60.0),
    "curthooks": (1800.0, 600.0),
    "packages": (1800.0, 1800.0),
    "updates": (1800.0, 3600.0),
    "late-commands": (900.0, 3600.0),
    "shutdown": (600.0, 200.0),
}
"""How long each phase may say nothing: seconds of work at speed 1.0, and seconds of waiting on any host.

The work is three times and more what was seen on busy emulated machines, where the kernel was silent for 187 s,
its start up to systemd for 153 s, partitioning for 109 s, copying for 131 s, building the initramfs for 418 s; a
kernel told to be quiet says nothing at all until the installer speaks. The waiting is for what does not depend on
the host: systemd gives a job 90 s, the installer waits 600 s for cloud-init, asks mirrors one after the other, fetches
packages, and runs commands of the user's.
"""


@dataclass(frozen=True)
class Patience:
    """Limits in seconds.

    ``first`` is for the first byte on the console, ``install`` for all of an install, ``boot`` for an installed
    system's login prompt, ``answer`` for the answer of a shell, ``step`` for one step of a class's content. ``scale``
    is by how much longer this host takes than one of speed 1.0; ``silent`` is a user's own limit for every silence.
    ``still`` is how long a guest may say nothing *and* do nothing, no work for a processor, no byte to or from a disk,
    where it has nothing to wait for.
    """

    first: float
    install: float
    boot: float
    answer: float
    still: float
    step: float = 1600.0
    scale: float = 1.0
    silent: float | None = None

    def silence(self, phase: str | None) -> float:
        """Return how long the phase of that name (None: before the first) may say nothing."""
        if self.silent is not None:
            return self.silent
        work, waiting = QUIET.get(phase or "boot-loader", OTHER)
        return max(SHORTEST, work * self.scale + waiting)

    def idle(self, phase: str | None) -> float:
        """Return how long a guest in that phase may say nothing and do nothing; a user's own limit goes for both."""
        if self.silent is not None:
            return self.silent
        return max(self.still, QUIET.get(phase or "boot-loader", OTHER)[1])


def patience(
    speed: float | None, *, install: float | None = None, silence: float | None = None, step: float | None = None
) -> Patience:
    """Return the limits for a host of ``speed`` (1.0: emulation on a plain cloud machine; None: unknown).

    Complete installs under emulation on two busy cores have taken half an hour, so emulation gets 4 hours; hardware
    a third of that. A class's step gets a third of an install. ``install``, ``silence`` and ``step`` override.
    """
    measured = min(max(speed or 1.0, SLOWEST), FASTEST)
    factor = max(1.0, HARDWARE / measured)
    whole = install or 4800 * factor
    return Patience(
        first=120 * factor,
        install=whole,
        boot=300 * factor,
        answer=120 * factor,
        still=60 + 60 * factor,
        step=step or whole / 3,
        scale=1 / measured,
        silent=silence,
    )
