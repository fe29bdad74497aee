"""The installer's serial console as typed events: a state machine fed with bytes, without I/O and clock.

The grammar is that of Ubuntu's live-server installer, subiquity 22.04 to 26.10 (``client/client.py``,
``server/server.py``), which prints its event history as

    ^(start|finish|info|warning|error): INDENT subiquity/PATH [: TEXT]$

with 2 blanks of indent a level before 24.04 and 1 since. Around it stand the lines of firmware, GRUB,
the kernel, casper's initramfs and systemd. Kernel messages may stand in the middle of another line.
"""

from __future__ import annotations

import re
from typing import Literal

from builder.install.machine import WORDS, machine
from builder.install.signals import (
    CommandRunning,
    ConsoleEvent,
    CrashReport,
    EarlyCommands,
    ErrorLine,
    GuestDiskFull,
    KernelMessage,
    Output,
    Prompt,
    PromptKind,
    Sentinel,
    Step,
    StepKind,
)
from builder.install.terminal import MAX_LINE, LineReader

_STEP = re.compile(
    r"(?P<kind>start|finish|info|warning|error): (?P<indent> {0,80})"
    r"(?P<path>subiquity/\S{1,500}?)(?::(?: (?P<text>.*))?)?$",
    re.DOTALL,
)
_KINDS: dict[str, StepKind] = {
    "start": "start",
    "finish": "finish",
    "info": "info",
    "warning": "warning",
    "error": "error",
}
_STAMP = re.compile(r"\[ {0,5}(?P<stamp>\d{1,7}\.\d{6})\](?:\[ *[TC]\d+\])? ")
_SENTINEL = re.compile(r"prebake-sentinel:(installed|failed):([0-9a-f]{8,64})(?![0-9a-f])")
_MARK = "prebake-sentinel:"
_CRASH = re.compile(r"subiquity/ErrorReporter/[\d.]*\.(?P<kind>\w+)/add_info$")
# What begins a line of its own and so cannot be the rest of a torn one.
_FRESH = re.compile(
    r"(?:start|finish|info|warning|error):  ?|  running |running early commands|connecting\.\.\."
    r"|An error occurred\. |Confirmation is required|Continue with autoinstall|Begin: "
    r"|\[ {0,2}(?:OK|FAILED|WARN|DEPEND|TIME|INFO) {0,2}\]|\S+ login:|\(initramfs\)|grub(?: rescue)?>|Shell>"
    r"|You are in |Press Enter |Please remove the inst|BdsDxe: |No bootable device|ALERT! "
)
_ERROR_PROMPT = "An error occurred. Press enter to start a shell"
_PROOF = re.compile(r"mode=(?:REBOOT|POWEROFF)")
_QUOTED = re.compile(r"echo|printf|['\"]$")
_FULL = "No space left on device"
_NOTABLE = re.compile(
    r"An error occurred\. Press|Continue with autoinstall\?|Continue in (?:basic|rich) mode|UP, DOWN and ENTER"
    r"|login:|grub|Shell>|\(initramfs\)|(?:emergency|rescue) mode|[Ee]nter for maintenance|for maintenance$|dracut:"
    r"|remove the inst|No space left|^E: |^error: |crash report|report saved|running early|" + WORDS
)
_PROMPTS: tuple[tuple[PromptKind, re.Pattern[str]], ...] = (
    ("confirm", re.compile(r"^Continue with autoinstall\? \(yes\|no\)")),
    ("interactive", re.compile(r"Continue in (?:basic|rich) mode|Use UP, DOWN and ENTER")),
    ("uefi-shell", re.compile(r"^Shell> ?$")),
    ("grub-rescue", re.compile(r"^grub(?: rescue)?>")),
    ("initramfs", re.compile(r"^\(initramfs\)")),
    (
        "emergency-shell",
        re.compile(
            r"^(?:You are in|Welcome to|Entering) emergency mode|^(?:You are in|Welcome to) rescue mode"
            r"|^Press Enter for maintenance|^Give root password for maintenance|^dracut:\S*[#>]",
            re.IGNORECASE,
        ),
    ),
    ("press-enter-remove-medium", re.compile(r"^Please remove the installation medium")),
    ("login", re.compile(r"^\S{1,64} login: ?$")),
)


class ConsoleParser:
    """Bytes in, events out; one event a line that is not blank, whatever the chunks."""

    def __init__(self) -> None:
        self._reader = LineReader()
        self._torn = ""

    def feed(self, data: bytes, at: float = 0.0) -> list[ConsoleEvent]:
        """Take the next ``data`` of the stream, which came ``at`` (s); return the events it completed."""
        events: list[ConsoleEvent] = []
        for line in self._reader.feed(data):
            self._take(line, at, events)
        return events

    def peek(self, at: float = 0.0) -> list[ConsoleEvent]:
        """Return what the last line, which has no end yet, says so far; the parser stays as it is.

        Only what cannot become something else by growing is typed: a prompt, the last words of a machine.
        """
        line, torn = self._reader.partial(), self._torn
        texts = [torn, line] if torn and (_FRESH.match(line) or _STAMP.search(line)) else [torn + line]
        return [_unfinished(text.rstrip(), at) for text in texts if text.strip()]

    def flush(self, at: float = 0.0) -> list[ConsoleEvent]:
        """Return what ``peek`` returns, and begin with an empty line."""
        events = self.peek(at)
        self._reader.flush()
        self._torn = ""
        return events

    def _take(self, line: str, at: float, events: list[ConsoleEvent]) -> None:
        """Take a line as it came: the kernel's part of it is whole, the other may be torn by it."""
        stamp = _STAMP.search(line) if "[" in line else None
        if stamp is None:
            self._rest(line, at, events)
            return
        self._hold(line[: stamp.start()], at, events)
        starts = [each.start() for each in _STAMP.finditer(line, stamp.start())]
        for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
            piece = _take_sentinels(line[start:end], at, events)
            events.append(_kernel(piece.rstrip(), at))

    def _hold(self, head: str, at: float, events: list[ConsoleEvent]) -> None:
        """Keep ``head``, torn off by something else, until its rest comes."""
        if not head:
            return
        if self._torn and (_FRESH.match(head) or len(self._torn) + len(head) > MAX_LINE):
            self._release(at, events)
        self._torn += head

    def _rest(self, line: str, at: float, events: list[ConsoleEvent]) -> None:
        """Take a line without a kernel message: the rest of a torn one, or one of its own."""
        if self._torn and _FRESH.match(line):
            self._release(at, events)
        line, self._torn = self._torn + line, ""
        rest = _take_sentinels(line, at, events)
        if rest != line:
            # The sentinel is written past the installer, maybe into one of its lines, which then goes on.
            self._hold(rest, at, events)
        elif line.strip():
            events.append(classify(line.rstrip(), at))

    def _release(self, at: float, events: list[ConsoleEvent]) -> None:
        rest = _take_sentinels(self._torn, at, events).rstrip()
        self._torn = ""
        if rest:
            events.append(classify(rest, at))


def _take_sentinels(line: str, at: float, events: list[ConsoleEvent]) -> str:
    """Move the sentinels in ``line`` to ``events``; return what else it holds."""
    if _MARK not in line:
        return line
    events.extend(_sentinel(each, at, whole=True) for each in _SENTINEL.finditer(line))
    return _SENTINEL.sub("", line)


def _sentinel(match: re.Match[str], at: float, *, whole: bool) -> Sentinel:
    kind: Literal["installed", "failed"] = "installed" if match[1] == "installed" else "failed"
    return Sentinel(line=match[0], at=at, kind=kind, token=match[2], whole=whole)


def _kernel(line: str, at: float) -> ConsoleEvent:
    match = _STAMP.match(line + " ")
    if match is None:
        return Output(line=line, at=at)
    text = line[match.end() :]
    return machine(line, text, at) or KernelMessage(line=line, at=at, stamp=float(match["stamp"]), text=text)


def classify(line: str, at: float) -> ConsoleEvent:
    """Type one clean ``line`` that is whole and not a kernel message."""
    step = _STEP.match(line)
    if step is not None:
        return _step(line, at, step)
    if line.startswith("  running "):
        return CommandRunning(line=line, at=at, command=line[len("  running ") :])
    if _NOTABLE.search(line) is None:
        return Output(line=line, at=at)
    return machine(line, line, at) or _notable(line, at)


def _step(line: str, at: float, match: re.Match[str]) -> ConsoleEvent:
    kind, path, text = match["kind"], match["path"], (match["text"] or "").strip()
    crash = _CRASH.match(path)
    if crash is not None:
        written = text[len("written to ") :] if text.startswith("written to ") else None
        return CrashReport(line=line, at=at, kind=crash["kind"], path=written)
    return Step(line=line, at=at, kind=_KINDS[kind], path=path, text=text, depth=max(0, path.count("/") - 2))


def _notable(line: str, at: float) -> ConsoleEvent:
    kind = _prompt(line)
    if kind is not None:
        return Prompt(line=line, at=at, kind=kind)
    if line == "running early commands":
        return EarlyCommands(line=line, at=at)
    if line.startswith(("E: ", "error: ")):
        return ErrorLine(line=line, at=at, text=line.partition(": ")[2])
    if line.startswith(("generating crash report", "report saved to ")):
        saved = line[len("report saved to ") :] if line.startswith("report") else None
        return CrashReport(line=line, at=at, kind="ui", path=saved)
    return GuestDiskFull(line=line, at=at) if _FULL in line else Output(line=line, at=at)


def _prompt(line: str) -> PromptKind | None:
    before, found, after = line.partition(_ERROR_PROMPT)
    if found and not after.strip() and not _QUOTED.search(before):
        return "error-shell"
    return next((kind for kind, words in _PROMPTS if words.search(line)), None)


def _unfinished(text: str, at: float) -> ConsoleEvent:
    sentinel = _SENTINEL.search(text)
    if sentinel is not None:
        return _sentinel(sentinel, at, whole=False)
    event = _kernel(text, at) if _STAMP.match(text) else classify(text, at)
    if isinstance(event, Step):
        proof = event.kind == "start" and _PROOF.fullmatch(event.text)
        return event if proof else Output(line=text, at=at)
    if isinstance(event, CommandRunning | CrashReport | ErrorLine | EarlyCommands):
        return Output(line=text, at=at)
    return event
