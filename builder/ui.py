"""The terminal: the only place that writes to it. People read stderr, programs read stdout."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from builder import alarm
from builder.errors import StalledError
from builder.events import (
    ConsoleOutput,
    Estimate,
    Fallback,
    Note,
    Phase,
    Progress,
    StageFinished,
    StageStarted,
    Tick,
)

if TYPE_CHECKING:
    from builder.errors import PrebakeError
    from builder.events import Event

SHAPE = "{percentage:3.0f}%|{bar:24}| {elapsed}{postfix} {desc}"
WEIGHTS = {
    "medium": 2,
    "remaster": 2,
    "install": 44,
    "settle": 14,
    "class": 14,
    "compact": 4,
    "prove": 18,
    "publish": 2,
}
"""The parts of a build that its stages take, in percent: what the bar is drawn by if nothing is learned."""
ALONE = {"verify": 100}
"""The same for what is done alone."""
OFTEN = 5.0
"""Seconds between two JSON lines about the time that is left, unless a phase begins."""
PACE = 30.0
"""Seconds between two lines about a long transfer where there is no bar."""
SOON, ROUGH = 5, 120
"""Seconds: what is left below the one is not counted, above the other not to the second."""
RED, YELLOW, DIM, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class Ui:
    """Shows events: a bar on a terminal, plain lines elsewhere, JSON lines on demand."""

    def __init__(
        self, *, form: str = "text", verbose: bool = False, quiet: bool = False, console: bool = False
    ) -> None:
        self._json = form == "json"
        self._verbose = verbose
        self._quiet = quiet
        self._console = console
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # one of another alphabet shows what it cannot as an escape
                stream.reconfigure(errors="backslashreplace")
        terminal = sys.stderr.isatty() and not alarm.on("CI")
        self._colour = terminal and not os.environ.get("NO_COLOR")
        self._bar: tqdm[Any] | None = None
        self._bars = terminal and _has_size() and not (self._json or quiet or console)
        self._behind = 0
        self._weight = 0
        self._fallback: Fallback | None = None
        self._begun = time.monotonic()
        self._last = ""
        self._estimate: Estimate | None = None
        self._estimated: tuple[Estimate | None, float] = (None, 0.0)
        self._moving: str | None = None
        self._told: tuple[str, float] = ("", 0.0)
        self._pacing: tuple[str, float, int, float] | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, ConsoleOutput):
            if self._console:
                sys.stderr.buffer.write(event.data)
                sys.stderr.buffer.flush()
        elif isinstance(event, (Estimate, Tick)):
            self._time(event)
        elif self._json:
            self._tell(event)
        elif isinstance(event, Fallback):
            self._alarm(event)
        elif isinstance(event, Note):
            self._note(event)
        elif isinstance(event, (StageStarted, StageFinished)):
            self._stage(event)
        elif isinstance(event, Phase):
            self._move(event.done, event.title)
        else:
            self._progress(event)

    def _tell(self, event: Event) -> None:
        """Write an event for a program."""
        if isinstance(event, Progress) and self._too_soon(event):
            return
        self._record(event)
        if isinstance(event, (StageStarted, Phase)):
            self._record_estimate()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._moving = None

    def say(self, text: str) -> None:
        """Write a line for a person."""
        if not self._quiet:
            self._line(text)

    def result(self, text: str) -> None:
        """Write a line for a program; after a fallback in CI, say once more on stderr what it cost."""
        self.close()
        if alarm.on("CI"):
            self._remind()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def error(self, error: PrebakeError) -> None:
        """Say what failed, the console's last lines, where the evidence is and what to do next."""
        self.close()
        if self._json:
            self._line(
                json.dumps(
                    {
                        "event": "Error",
                        "message": error.message,
                        "hint": error.hint,
                        "console": error.console,
                        "evidence": str(error.evidence) if error.evidence else None,
                        "exit_code": error.exit_code,
                    }
                )
            )
            return
        self._line(self._painted(RED, "error: ") + error.message)
        if error.console:
            self._line(self._painted(DIM, "The console's last lines:"))
            for row in error.console:
                self._line(self._painted(DIM, f"  | {row}"))
        if error.evidence:
            self._line(f"Evidence: {error.evidence}")
        if error.hint:
            self._line(f"What to do: {error.hint}")
        if isinstance(error, StalledError) or alarm.on("CI"):
            self._remind()

    def _alarm(self, event: Fallback) -> None:
        """Tell of a fallback to emulation: a warning for a person, and in CI, where nobody looks, a banner."""
        self._fallback = event
        if alarm.on("GITHUB_ACTIONS"):
            self._line(alarm.workflow_command(event))
        if alarm.on("CI"):
            for row in alarm.banner(event):
                self._line(row)
        else:
            self._note(event)

    def _remind(self) -> None:
        if self._fallback is not None:
            self._line(self._painted(YELLOW, "warning: ") + alarm.reminder(self._fallback))
            self._fallback = None

    def _note(self, note: Note) -> None:
        if note.level == "warning":
            self._line(self._painted(YELLOW, "warning: ") + note.text)
        elif (note.level == "info" and not self._quiet) or self._verbose:
            self._line(note.text)

    def _stage(self, event: StageStarted | StageFinished) -> None:
        if isinstance(event, StageStarted):
            if self._moving is not None:
                self.close()
            self._weight = WEIGHTS.get(event.stage, ALONE.get(event.stage, 0))
            if self._bars and self._bar is None:
                self._bar = tqdm(total=100, bar_format=SHAPE, file=sys.stderr, leave=False, dynamic_ncols=True)
            self._move(0.0, event.title)
            return
        self._behind += self._weight
        self._weight = 0
        self.say(f"{event.title:<32} {event.seconds:8.1f} s")

    def _move(self, done: float, title: str) -> None:
        if self._bar is not None:
            self._bar.n = self._behind + self._weight * done
            self._set_rest(self._bar)
            self._bar.set_description_str(title)
        elif not (self._quiet or self._json or self._console) and title != self._last:
            self._last = title
            rest = f" ({left(self._estimate)})" if self._estimate else ""
            self._line(f"[{time.monotonic() - self._begun:6.1f} s] {title}{rest}")

    def _time(self, event: Estimate | Tick) -> None:
        """Take what is known of the time that is left; with a Tick draw the bar anew, whose clock goes on."""
        if isinstance(event, Estimate):
            self._estimate = event
            if self._json and (event.done == 1 or time.monotonic() - self._estimated[1] >= OFTEN):
                self._record_estimate()
        elif self._bar is not None:
            if self._moving is None:
                self._set_rest(self._bar)
            self._bar.refresh()

    def _set_rest(self, bar: tqdm[Any]) -> None:
        """Set the bar of the build to what is known of the time that is left, if it is."""
        if self._estimate is not None:
            bar.n = int(100 * self._estimate.done)  # never rounded up to an end that is not there
            bar.set_postfix_str(left(self._estimate), refresh=False)

    def _record(self, event: Event) -> None:
        self._line(json.dumps({"event": type(event).__name__, "at": time.time(), **dataclasses.asdict(event)}))

    def _record_estimate(self) -> None:
        """Write the last estimate as JSON, unless that has been done."""
        if self._estimate is not None and self._estimate is not self._estimated[0] and not self._quiet:
            self._estimated = (self._estimate, time.monotonic())
            self._record(self._estimate)

    def _progress(self, event: Progress) -> None:
        part = event.done / event.total if event.total else 0.0
        if self._bar is not None and self._moving is None:
            self._move(part, event.what)
        elif self._bars:
            self._transfer(event)
        elif not (self._quiet or self._console):
            self._pace(event)

    def _transfer(self, event: Progress) -> None:
        """Show one long transfer in a bar of its own, with its rate and what is left."""
        if self._bar is not None and (self._moving != event.what or event.done < self._bar.n):
            self.close()  # another one, or the same anew
        if self._bar is None:
            self._moving = event.what
            self._bar = tqdm(
                desc=event.what,
                total=event.total or None,
                initial=event.done,  # what an earlier run has fetched is no rate of this one
                unit=event.unit,
                unit_scale=True,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.update(event.done - self._bar.n)
        if event.total and event.done >= event.total:
            self.close()

    def _too_soon(self, event: Progress) -> bool:
        """Say whether a transfer was told of within the last second; its end never is too soon."""
        now = time.monotonic()
        if self._told[0] == event.what and now - self._told[1] < 1 and event.done != event.total:
            return True
        self._told = (event.what, now)
        return False

    def _pace(self, event: Progress) -> None:
        """Where there is no bar, say every half a minute how far a long transfer is, how fast, and what is left."""
        now = time.monotonic()
        if self._pacing is None or self._pacing[0] != event.what or event.done < self._pacing[2]:
            self._pacing = (event.what, now, event.done, now)
        _, begun, first, last = self._pacing
        if now - last < PACE:
            return
        self._pacing = (event.what, begun, first, now)
        rate = (event.done - first) / (now - begun)
        rest = tqdm.format_interval((event.total - event.done) / rate) if rate and event.total else "?"
        whole = f" of {event.total / 1e6:.0f}" if event.total else ""
        self._line(f"{event.what}: {event.done / 1e6:.0f}{whole} MB, {rate / 1e6:.1f} MB/s, {rest} left")

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
        if self._bar is not None:
            self._bar.refresh()

    def _painted(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._colour else text


def left(estimate: Estimate) -> str:
    """Return the time that is left, for people: "about 02:10 left"; above two minutes in steps of ten seconds."""
    if estimate.rest < SOON:
        return "almost done"
    seconds = round(estimate.rest, -1 if estimate.rest > ROUGH else None)
    return f"{'about' if estimate.sure else 'perhaps'} {tqdm.format_interval(seconds)} left"


def _has_size() -> bool:
    """Say whether the terminal knows its size; some pseudo-terminals are 0 by 0, where no bar is drawn."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return bool(size.columns and size.lines)
