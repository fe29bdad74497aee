"""Earlier builds on this host: how long each took, and which of them were like the one under way."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from builder.store import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.media.image import Medium
    from builder.story import Job

NAME = "pace.json"
"""The file in the cache folder."""
MOST_RUNS = 8
MOST_KINDS = 40
MOST_MARKS = 500
LARGEST = 4 << 20
"""What the file may have, in bytes; ours stays far below."""
SHORTEST = 0.1
"""The seconds a build takes at least."""
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]


@dataclass(frozen=True)
class Kind:
    """What makes the times of two builds comparable. No name of a user or a host, and no secret is in it.

    ``host`` tells computers apart that share a cache, as far as it matters;
    ``medium`` is its volume id without numbers; ``packages``, ``snaps`` and ``commands`` are how many a class has.
    """

    host: str
    accelerator: str
    arch: str
    medium: str
    series: str
    firmware: str
    source: str
    storage: str
    network: str
    updates: str
    own: bool
    packages: int
    snaps: int
    commands: int
    cpus: int
    prove: str = "quick"
    both: bool = False
    reused: bool = False

    @property
    def family(self) -> tuple[str, str, str]:
        """What must be the same for one build to tell anything of another."""
        return self.accelerator, self.arch, self.medium


@dataclass(frozen=True)
class Run:
    """One build that went well: its ``total`` seconds, and when it came to each mark, in seconds since it began."""

    total: Annotated[float, Field(ge=SHORTEST, le=1e7, allow_inf_nan=False)]
    marks: Annotated[dict[str, Seconds], Field(max_length=MOST_MARKS)]


@dataclass(frozen=True)
class Entry:
    """The runs of one kind, the newest last."""

    kind: Kind
    runs: Annotated[tuple[Run, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Book:
    """The file's content: the kind that was built last is the last entry."""

    version: Literal[1]
    entries: tuple[Entry, ...]


_BOOK = TypeAdapter(Book)


def kind_of(job: Job, medium: Medium, accelerator: str, *, reused: bool = False) -> Kind:
    """Return the kind of a build; ``reused`` says that its system is installed already."""
    spec = job.spec
    return Kind(
        host=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        accelerator=accelerator,
        arch=medium.arch or "",
        medium=" ".join(re.sub(r"[\d.]+", " ", medium.volume_id).split()),
        series=medium.series or "",
        firmware=spec.firmware,
        source=spec.source,
        storage=spec.storage,
        network=spec.network,
        updates=spec.updates,
        own=job.own is not None,
        packages=len(spec.content.packages),
        snaps=len(spec.content.snaps),
        commands=len(spec.content.commands),
        cpus=spec.cpus,
        prove=job.prove,
        both=spec.both,
        reused=reused,
    )


def read(path: Path) -> tuple[Entry, ...]:
    """Return what is known of earlier builds: nothing if the file is missing, damaged, foreign or too new."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return ()
        return _BOOK.validate_json(path.read_bytes()).entries
    except (OSError, ValidationError):
        return ()


def nearest(entries: Sequence[Entry], kind: Kind) -> Entry | None:
    """Return the runs of that kind or, if there are none, of the most similar one of its family, or None."""
    kin = [one for one in entries if one.kind.family == kind.family]
    return max(reversed(kin), key=lambda one: _likeness(one.kind, kind), default=None)


def added(entries: Sequence[Entry], kind: Kind, run: Run) -> tuple[Entry, ...]:
    """Return the entries with one more run; of what is too much the oldest goes."""
    before = next((one.runs for one in entries if one.kind == kind), ())
    others = [one for one in entries if one.kind != kind]
    return (*others, Entry(kind, (*before, run)[-MOST_RUNS:]))[-MOST_KINDS:]


def save(path: Path, kind: Kind, run: Run) -> None:
    """Add a run to the file. Two builds that end at the same moment may lose one of them, which does no harm.

    Raises OSError.
    """
    write_whole(path, _BOOK.dump_json(Book(1, added(read(path), kind, run))) + b"\n")


def _likeness(one: Kind, other: Kind) -> int:
    return sum(getattr(one, each.name) == getattr(other, each.name) for each in fields(Kind))
