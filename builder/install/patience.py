"""How long to wait, measured in what this host can do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

HARDWARE = 3.0
"""The speed from which a host counts as one that runs guests in hardware; emulation is about 1."""


@dataclass(frozen=True)
class Patience:
    """Limits in seconds.

    ``first`` is for the first byte on the console, ``silence`` between two, ``install`` for all of it, ``boot``
    for an installed system's login prompt, ``answer`` for the answer of a shell.
    """

    first: float
    silence: float
    install: float
    boot: float
    answer: float


def patience(speed: float | None, *, install: float | None = None, silence: float | None = None) -> Patience:
    """Return the limits for a host of ``speed`` (1.0: emulation on a plain cloud machine; None: unknown).

    Complete installs under emulation on two busy cores have been silent for seven minutes and taken half an
    hour, so emulation gets 30 minutes and 4 hours; hardware a third and less of that. ``install`` and
    ``silence`` override.
    """
    factor = max(1.0, HARDWARE / max(speed or 1.0, 0.05))
    return Patience(
        first=120 * factor,
        silence=silence or 600 * factor,
        install=install or 4800 * factor,
        boot=300 * factor,
        answer=120 * factor,
    )
