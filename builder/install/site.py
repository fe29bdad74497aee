"""Where and how a stage works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Reporter
    from builder.install.patience import Patience


@dataclass(frozen=True)
class Site:
    """``work`` takes what is thrown away at the end, ``logs`` what is kept; ``limits`` are how long to wait.

    ``secrets`` are blotted out in what is kept.
    """

    work: Path
    logs: Path
    limits: Patience
    report: Reporter
    secrets: tuple[str, ...] = field(default=(), repr=False)
