"""What a build is asked for, and what has happened in it so far."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.events import StageFinished, StageStarted
from builder.install.stage import Trace
from builder.media.source.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.autoinstall.own import OwnAnswers
    from builder.events import Reporter
    from builder.spec import Spec
    from builder.vm.disk import Compression


@dataclass(frozen=True)
class Job:
    """One image to make: what, from which ISO, where to, and how.

    ``release`` and ``arch`` are what was asked for, if it was; ``own`` are an instructor's own answers; ``folders``
    hold templates that go before ours; ``prove`` is how much of the image is proved, "quick" or "full"; ``fresh``
    installs the system even if it is in the cache; ``compression`` is how the image's clusters are packed.
    """

    spec: Spec
    iso: Path
    output: Path
    origin: Origin = field(default_factory=Origin)
    release: str | None = None
    arch: str | None = None
    own: OwnAnswers | None = None
    folders: tuple[Path, ...] = ()
    accel: str = "auto"
    force: bool = False
    keep: bool = False
    install_seconds: float | None = None
    silent_seconds: float | None = None
    step_seconds: float | None = None
    prove: str = "quick"
    fresh: bool = False
    compression: Compression = "zstd"

    @property
    def target(self) -> Path:
        """The folder of the finished image."""
        return self.output / self.spec.name

    @property
    def image(self) -> Path:
        """The finished image."""
        return self.target / f"{self.spec.name}.qcow2"


@dataclass(frozen=True)
class IsoJob:
    """One ISO to remaster: for which machine, from which ISO; the rest as in `Job`."""

    spec: Spec
    iso: Path
    own: OwnAnswers | None = None
    folders: tuple[Path, ...] = ()


@dataclass
class Story:
    """What has happened so far: how long each stage took, and what the evidence will need."""

    report: Reporter
    seconds: dict[str, float] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Report and time one stage."""
        self.report(StageStarted(name, title))
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 2)
        self.report(StageFinished(name, title, self.seconds[name]))
