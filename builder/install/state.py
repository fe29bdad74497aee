"""The install as its console shows it so far: fed with bytes as they come, asked at any time."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from builder.install.causes import known
from builder.install.console import ConsoleParser
from builder.install.phases import BY_NAME, Phase, milestone_of, phase_of, phase_of_failure
from builder.install.signals import ConsoleEvent, PhaseFinished, PhaseStarted, Step, StepFailed
from builder.install.verdict import MAX_WORDS, Facts, Verdict, conclude, fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.install.causes import Words

USERS = frozenset({"early-commands", "late-commands"})
"""Phases that run a user's own commands."""
TAIL_LINES = 15
"""How many of the last meaningful lines a verdict repeats."""

_LONGEST_LINE = 400
_LONGEST_TEXT = 200
_MOST_PATHS = 2048
_MOST_TEXTS = 64
# Steps that end in other words than they began with, or fail, in an install that goes well.
_HARMLESS = re.compile(
    r"subiquity/(?:ErrorReporter|Meta|Refresh|Error|Drivers|OEM|SnapList|GeoIP)/|subiquity/Network/_send_update"
    r"|\S*/waiting$"
)
_HARMLESS_TEXT = "FAILED to apply security updates"
_NOISE = re.compile(r"(?:start|finish): +subiquity/(?:Meta/status_GET|Network/_send_update)|\[[ *]{6}\] |[-=_+| *]+$")


class Steps:
    """Remembers what each step said at its start, to tell an exception's words from a description.

    The installer prints no result: a ``finish`` whose text is not what the step started with holds the
    exception's words. Memory is bounded; what was forgotten is judged by the known exceptions alone.
    """

    def __init__(self) -> None:
        self._texts: dict[str, deque[str]] = {}

    def take(self, step: Step) -> StepFailed | None:
        """Take the next ``step``; return its failure if it is one."""
        text = step.text[:_LONGEST_TEXT]
        if step.kind == "start":
            if step.path not in self._texts and len(self._texts) >= _MOST_PATHS:
                self._texts.pop(next(iter(self._texts)))
            texts = self._texts.setdefault(step.path, deque(maxlen=_MOST_TEXTS))
            if text in texts:
                texts.remove(text)
            texts.append(text)
            return None
        if step.kind != "finish" or _HARMLESS.match(step.path) or step.text == _HARMLESS_TEXT:
            return None
        started = self._texts.get(step.path, ())
        if any(text == each or _garbled(text, each) for each in started):
            return None
        if not started and not known(step.text, step.path):
            return None
        doing = started[-1] if started else ""
        return StepFailed(
            line=step.line,
            at=step.at,
            path=step.path,
            text=step.text,
            doing=doing,
            phase=phase_of_failure(step.path, doing),
        )


def _garbled(one: str, other: str) -> bool:
    """Tell whether one text is the other with some characters lost, as a serial line loses them."""
    short, long = sorted((one, other), key=len)
    if len(short) * 4 < len(long) * 3 or not short:
        return False
    rest = iter(long)
    return all(character in rest for character in short)


class InstallState:
    """Follows one install.

    ``token`` is what the sentinels of this install carry (8 to 64 hexadecimal digits); sentinels with another
    are ignored; without it any counts.
    """

    def __init__(self, token: str | None = None) -> None:
        self._parser = ConsoleParser()
        self._steps = Steps()
        self._facts = Facts(token=token)
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._phase: Phase | None = None
        self._since = 0.0
        self._step: str | None = None
        self._progress = 0.0
        self._last_output: float | None = None
        self._last_event: float | None = None

    def feed(self, data: bytes, at: float = 0.0) -> list[ConsoleEvent]:
        """Take the next ``data`` of the console, which came ``at`` (s on any clock).

        Returns the events it completed, with a PhaseFinished and a PhaseStarted before the event that begins a
        phase, a PhaseFinished after the one that ends all, and a StepFailed after a step that failed.
        """
        if data:
            self._last_output = at
        events: list[ConsoleEvent] = []
        for event in self._parser.feed(data, at):
            self._last_event = at
            self._take(event, events)
        return events

    @property
    def phase(self) -> Phase | None:
        """The furthest phase reached, or None before the first line."""
        return self._phase

    @property
    def step(self) -> str | None:
        """What is done within the phase, for people, or None where the phase's title says all."""
        return self._step

    @property
    def progress(self) -> float:
        """The part of the install that is behind, 0 to 1; never goes back."""
        return self._progress

    @property
    def last_output(self) -> float | None:
        """When the last byte came (s, on the clock ``feed`` was given), or None before the first."""
        return self._last_output

    @property
    def last_event(self) -> float | None:
        """When the last line came to its end; a turning bar says nothing, though it moves."""
        return self._last_event

    @property
    def trigger(self) -> str:
        """What decided that the install failed, such as a prompt's kind; empty as long as nothing has."""
        return self._facts.trigger if self._facts.outcome == "failure" else ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The last meaningful lines; after a failure that is final, those up to it."""
        return tuple(self._lines)

    def verdict(self) -> Verdict:
        """Return the verdict so far; a last line without an end counts as far as it is certain."""
        pending = [] if self._facts.final else self._parser.peek(self._last_output or 0.0)
        facts = reduce(fold, pending, self._facts)
        phase = self._phase
        lines = deque(self._lines, maxlen=TAIL_LINES)
        for event in pending:
            phase = phase or BY_NAME["boot-loader"]
            _remember(lines, event)
        return conclude(facts, phase.name if phase is not None else None, tuple(lines))

    def learn(self, words: Iterable[Words]) -> None:
        """Take what the guest's own logs say, which counts before what the console said, in the phase that failed."""
        phase = next((each.phase for each in self._facts.words if each.phase is not None), None)
        # A command of the user's is named by the console, and what else its programs said need not have mattered.
        known = phase in USERS and any(each.phase == phase and each.text for each in self._facts.words)
        mine = [replace(each, phase=each.phase or phase) for each in words if each.basic or not known]
        self._facts = replace(self._facts, words=(*mine[:MAX_WORDS], *self._facts.words))

    def _take(self, event: ConsoleEvent, events: list[ConsoleEvent]) -> None:
        failed_for_good = self._facts.final and self._facts.outcome == "failure"
        if not failed_for_good:
            _remember(self._lines, event)
            self._advance(event, events)
        events.append(event)
        self._facts = fold(self._facts, event)
        if isinstance(event, Step):
            failure = self._steps.take(event)
            if failure is not None:
                events.append(failure)
                self._facts = fold(self._facts, failure)
        if self._facts.outcome == "success" and self._progress < 1:
            self._progress = 1.0
            self._finish(event, events)

    def _finish(self, event: ConsoleEvent, events: list[ConsoleEvent]) -> None:
        if self._phase is not None:
            events.append(
                PhaseFinished(
                    line=event.line,
                    at=event.at,
                    name=self._phase.name,
                    title=self._phase.title,
                    seconds=event.at - self._since,
                )
            )

    def _advance(self, event: ConsoleEvent, events: list[ConsoleEvent]) -> None:
        phase = BY_NAME[phase_of(event)]
        if self._phase is None or phase.order > self._phase.order:
            if self._progress < 1:
                self._finish(event, events)
            self._phase, self._step, self._since = phase, None, event.at
            self._progress = max(self._progress, phase.progress)
            events.append(
                PhaseStarted(line=event.line, at=event.at, name=phase.name, title=phase.title, progress=self._progress)
            )
        milestone = milestone_of(event)
        if milestone is not None and milestone.progress > self._progress:
            self._step, self._progress = milestone.title, milestone.progress


def _remember(lines: deque[str], event: ConsoleEvent) -> None:
    line = event.line if len(event.line) <= _LONGEST_LINE else event.line[: _LONGEST_LINE - 1] + "…"
    if lines and lines[-1] == line:
        return
    if not _NOISE.match(line):
        lines.append(line)
