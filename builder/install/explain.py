"""Explain a saved serial console, also one that went on through several boots."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.install.advice import REBOOT_LOOP
from builder.install.phases import BY_NAME
from builder.install.signals import (
    CommandRunning,
    ConsoleEvent,
    EarlyCommands,
    Output,
    PowerState,
    Prompt,
    Sentinel,
    Step,
)
from builder.install.state import InstallState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.install.causes import Words
    from builder.install.verdict import Outcome, Verdict

LOOP = 3
"""How many boots in a row that came to nothing make a loop."""
_PIECE = 1 << 18
_LONGEST_BEGIN = 64
# What begins a boot. The first two kinds come once a boot, and the kernel's first line has no time yet; the others
# may come again in one boot, where a boot option fails or a menu is drawn anew.
_BEGIN = re.compile(
    rb"(?P<kernel>\[ {0,5}0\.000000\](?:\[ {0,7}T\d{1,7}\])? Linux version )"
    rb"|(?P<firmware>SeaBIOS \(version |UEFI firmware \(version )"
    rb"|BdsDxe: loading Boot|iPXE initiali[sz]ing|GNU GRUB  version "
)
_UP = re.compile(r"Reached target \S*(?:multi-user|graphical)\.target|Reached target (?:Multi-User|Graphical)")


@dataclass(frozen=True)
class Run:
    """One boot: its ``verdict``, whether an installer ``spoke`` in it, and whether it came to no end (``vain``)."""

    verdict: Verdict
    spoke: bool
    vain: bool

    @property
    def outcome(self) -> Outcome:
        """The verdict's one word."""
        return self.verdict.verdict


class _Boot:
    """A boot that is being read."""

    def __init__(self, token: str | None, words: Sequence[Words]) -> None:
        self._words = words
        self._state = InstallState(token)
        self._begun: set[str] = set()
        self._spoke = False
        self._up = False

    def feed(self, data: bytes) -> None:
        for event in self._state.feed(data):
            self._up = self._up or _up(event)
            self._spoke = self._spoke or _spoken(event)

    def begins(self, kind: str | None) -> bool:
        """Take note of words that begin a boot; return whether they begin another one than this."""
        reached = -1 if self._state.phase is None else self._state.phase.order
        if reached >= BY_NAME["live-system"].order or (kind in self._begun if kind else "kernel" in self._begun):
            return True
        if kind == "firmware" and reached >= BY_NAME["kernel"].order:
            return True
        if kind:
            self._begun.add(kind)
        return False

    def end(self) -> Run:
        verdict = self._state.verdict()
        if self._words and verdict.verdict == "failure":
            self._state.learn(self._words)
            verdict = self._state.verdict()
        up = self._up or (verdict.cause or "").startswith("no-installer")
        return Run(verdict, self._spoke, vain=verdict.verdict == "incomplete" and not up)


def explain(data: bytes | Iterable[bytes], token: str | None = None, words: Sequence[Words] = ()) -> Verdict:
    """Return the verdict on a whole console, ``data`` (bytes, or chunks of them), as QEMU wrote it, maybe cut off.

    ``token`` is that of the install's sentinels; without it any sentinel counts. ``words`` are what the guest's own
    logs say of a failure. Raises nothing of its own. Memory does not grow with the console.

    A console that goes on over several boots is judged by the last one in which an installer spoke: the boot of the
    system it left takes nothing from its success, and a further installer decides anew. Other boots count where no
    installer ended, and a failure among them more than silence. Three boots in a row that came to nothing, without a
    login or an orderly shutdown, are a failure: ``reboot-loop``.
    """
    said: Run | None = None
    vain: list[Run] = []
    for run in _runs(_sliced(data) if isinstance(data, bytes) else data, token, words):
        said = run if said is None or _counts_more(run, said) else said
        vain = [*vain, run][-LOOP:] if run.vain else []
    if said is None:
        return InstallState(token).verdict()
    return _looped(vain) if len(vain) >= LOOP and said.outcome == "incomplete" else said.verdict


def _counts_more(run: Run, said: Run) -> bool:
    if run.spoke or run.outcome == "success":
        return True
    if said.spoke:
        return run.outcome == "failure" and said.outcome in ("incomplete", "stalled")
    return not (run.vain and said.outcome == "failure")


def _looped(runs: list[Run]) -> Verdict:
    furthest = max((run.verdict for run in runs), key=lambda each: BY_NAME[each.phase].order if each.phase else -1)
    title = BY_NAME[furthest.phase].title if furthest.phase else "Start"
    return replace(
        furthest,
        verdict="failure",
        cause=f"{REBOOT_LOOP.slug}: {REBOOT_LOOP.explanation.format(phase=title)}",
        hint=REBOOT_LOOP.hint,
    )


def _spoken(event: ConsoleEvent) -> bool:
    if isinstance(event, Output):
        return event.line.startswith("connecting...")
    return isinstance(event, Step | EarlyCommands | CommandRunning | Sentinel)


def _up(event: ConsoleEvent) -> bool:
    if isinstance(event, Prompt):
        return event.kind == "login"
    return isinstance(event, PowerState) or _UP.search(event.line) is not None


def _runs(chunks: Iterable[bytes], token: str | None, words: Sequence[Words]) -> Iterator[Run]:
    boot = _Boot(token, words)
    for begin, piece in _pieces(chunks):
        if begin is not None and boot.begins(begin.lastgroup):
            yield boot.end()
            boot = _Boot(token, words)
            boot.begins(begin.lastgroup)
        boot.feed(piece)
    yield boot.end()


def _pieces(chunks: Iterable[bytes]) -> Iterator[tuple[re.Match[bytes] | None, bytes]]:
    """Yield the stream in pieces; words that begin a boot are a piece of their own, with the match."""
    held = b""
    for chunk in chunks:
        held += chunk
        at = 0
        for match in _BEGIN.finditer(held):
            yield None, held[at : match.start()]
            yield match, match[0]
            at = match.end()
        keep = max(at, len(held) - _LONGEST_BEGIN)
        yield None, held[at:keep]
        held = held[keep:]
    yield None, held


def _sliced(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    return (bytes(view[start : start + _PIECE]) for start in range(0, len(view), _PIECE))
