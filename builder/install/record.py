"""What happens during an install, written down as it happens: the raw console, when each piece came, the events.

The events are one JSON object a line: ``t`` (seconds since the machine was switched on), ``event`` (the kind), and
what belongs to the kind. From the console, the times and asciinema's own format (version 2,
https://docs.asciinema.org/manual/asciicast/v2/) comes a recording that plays.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import json
import re
import time
from typing import IO, TYPE_CHECKING, Any

from builder.install.signals import ConsoleEvent, KernelMessage, Output, Step
from builder.vm.clock import AwakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Self

CONSOLE = "console.log"
TIMES = "console.times"
EVENTS = "events.jsonl"
CAST = "console.cast"
WIDTH, HEIGHT = 132, 43
"""Columns and rows of the recording: a serial line has none, and the installer's lines are long."""
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


class Record:
    """A context manager that writes the record of one machine into ``folder`` as it comes.

    ``clock`` counts the seconds since it was made; ``console`` takes the console's bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = AwakeClock()
        self.console: IO[bytes]
        self._times: IO[str]
        self._events: IO[str]

    def __enter__(self) -> Self:
        self.console = (self._folder / CONSOLE).open("wb")
        self._times = (self._folder / TIMES).open("w", encoding="utf-8")
        self._events = (self._folder / EVENTS).open("w", encoding="utf-8")
        self.note("began", {"time": time.time()})
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.console, self._times, self._events):
            with contextlib.suppress(OSError):
                file.close()

    def came(self, size: int) -> None:
        """Take note that so many bytes of the console came now."""
        with contextlib.suppress(OSError):  # as the serial line does
            self._times.write(f"{self.clock.seconds():.3f} {size}\n")
            self._times.flush()

    def tell(self, events: Iterable[ConsoleEvent]) -> None:
        """Take what the console said; plain lines are in the console anyway."""
        for event in events:
            if not isinstance(event, Output | KernelMessage):
                self.note(name_of(event), fields_of(event), event.at)

    def note(self, event: str, more: dict[str, Any], at: float | None = None) -> None:
        """Take something else that happened, now or ``at`` (s)."""
        row = {"t": round(self.clock.seconds() if at is None else at, 3), "event": event, **more}
        with contextlib.suppress(OSError):
            self._events.write(json.dumps(row) + "\n")
            self._events.flush()


def name_of(event: ConsoleEvent) -> str:
    """Return the kind of an event as one word: ``step-failed``, ``warning``; a step goes by what it is."""
    if isinstance(event, Step):
        return event.kind
    return _WORDS.sub("-", type(event).__name__).lower()


def fields_of(event: ConsoleEvent) -> dict[str, Any]:
    """Return what belongs to an event, less its time."""
    found = {key: value for key, value in dataclasses.asdict(event).items() if key != "at"}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


def read_times(text: str) -> list[tuple[float, int]]:
    """Return when (s) how many bytes came, out of the file of times; a last line cut short is left out."""
    rows = [line.split(" ") for line in text.split("\n")[:-1]]
    return [(float(when), int(size)) for when, size in rows]


def cast(raw: bytes, times: Sequence[tuple[float, int]], *, title: str, began: int) -> Iterator[str]:
    """Yield the lines of a recording of the console ``raw``, of which ``times`` says when each piece came.

    ``began`` is in seconds since 1970. What is not UTF-8 becomes U+FFFD.
    """
    header = {"version": 2, "width": WIDTH, "height": HEIGHT, "timestamp": began, "title": title}
    yield json.dumps(header)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    start = 0
    for when, size in times:
        text = decoder.decode(raw[start : start + size])
        start += size
        if text:
            yield json.dumps([when, "o", text])


def write_cast(folder: Path, blot: Callable[[bytes], bytes], title: str) -> None:
    """Make the recording from the console and its times in ``folder``, which takes the times' place.

    ``blot`` returns the console with every secret in it replaced by something of the same length.
    """
    times = folder / TIMES
    if not times.exists():
        return
    raw, rows = blot((folder / CONSOLE).read_bytes()), read_times(times.read_text())
    began = int(times.stat().st_mtime - (rows[-1][0] if rows else 0.0))
    with (folder / CAST).open("w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in cast(raw, rows, title=title, began=began))
    times.unlink()


def entitle(folder: Path, title: str) -> None:
    """Give the recording in ``folder``, if there is one, another title. Raises OSError, ValueError if it is none."""
    path = folder / CAST
    if path.is_file():
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
        head = {**json.loads(first), "title": title}
        path.write_text(f"{json.dumps(head)}\n{rest}", encoding="utf-8")
