"""Success, failure, stalled or incomplete: a pure fold over the console's events, and its conclusion.

Success needs proof; ``finish: subiquity/Install/install:`` is none, for it is printed after a failure as well. Proof
is this project's own sentinel, the installer's ``Shutdown/shutdown: mode=…`` (it reaches that step only when all before
ended well), or the kernel going down after the late-commands finished with no sign of failure. An error prompt is
final, although other lines may follow it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from builder.install.advice import INCOMPLETE, LOADERS
from builder.install.causes import Diagnosis, Evidence, Words, advise, diagnose
from builder.install.phases import BY_NAME
from builder.install.signals import (
    BootFailed,
    BootTrouble,
    CommandRunning,
    ConsoleEvent,
    CrashReport,
    EarlyCommands,
    ErrorLine,
    GuestDiskFull,
    KernelPanic,
    MediumDamaged,
    MediumMissing,
    OutOfMemory,
    Output,
    PowerState,
    Prompt,
    Sentinel,
    Step,
    StepFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Outcome = Literal["success", "failure", "stalled", "incomplete"]

MAX_WORDS = 32
"""How many possible reasons are kept; further ones are dropped."""


@dataclass(frozen=True)
class Verdict:
    """What a console shows.

    ``final`` means that no further line can change it. A success by sentinel alone is not final before the machine goes
    down; nor is a failure while error-commands may still save evidence. ``lines`` are the last meaningful lines.
    """

    verdict: Outcome
    phase: str | None
    cause: str | None = None
    reason: str | None = None
    hint: str | None = None
    lines: tuple[str, ...] = ()
    final: bool = False

    def to_json(self) -> dict[str, str | list[str] | None]:
        """Return what ``prebake explain --json`` prints."""
        return {
            "verdict": self.verdict,
            "phase": self.phase,
            "cause": self.cause,
            "reason": self.reason,
            "hint": self.hint,
            "lines": list(self.lines),
        }


@dataclass(frozen=True)
class Facts:
    """What the events so far amount to; ``token`` is the sentinels' expected one, None for any."""

    token: str | None = None
    outcome: Literal["success", "failure"] | None = None
    final: bool = False
    trigger: str = ""
    trigger_line: str = ""
    confirm: bool = False
    interactive: str = ""
    early: bool = False
    installing: bool = False
    late_finished: bool = False
    error_commands: bool = False
    early_commands: tuple[str, ...] = ()
    suspect: bool = False
    installer: bool = False
    login: bool = False
    down: bool = False
    traceback: bool = False
    command: str = ""
    stage: str = ""
    doing: str = ""
    section: str = ""
    words: tuple[Words, ...] = ()


def fold(facts: Facts, event: ConsoleEvent) -> Facts:
    """Return ``facts`` with what ``event`` adds. A final outcome stays as it is."""
    handler = None if facts.final else _HANDLERS.get(type(event))
    return facts if handler is None else handler(facts, event)


def _decide(facts: Facts, outcome: Literal["success", "failure"], trigger: str, line: str, *, final: bool) -> Facts:
    return replace(facts, outcome=outcome, trigger=trigger, trigger_line=line, final=final)


def _note(facts: Facts, text: str, path: str = "", phase: str | None = None) -> Facts:
    words = Words(text[:4000], path, phase)
    if words in facts.words:
        return facts
    kept = facts.words
    if len(kept) >= MAX_WORDS:
        # Those of a step are worth more than those of some command's output.
        loose = next((each for each in kept if not each.path), None)
        if loose is None or not path:
            return facts
        kept = tuple(each for each in kept if each is not loose)
    return replace(facts, words=(*kept, words))


def _sentinel(facts: Facts, event: Sentinel) -> Facts:
    expected = event.token == facts.token if facts.token is not None else event.whole
    if not expected:
        return facts
    if event.kind == "failed":
        return _decide(facts, "failure", "sentinel", event.line, final=True)
    return _decide(facts, "success", "sentinel", event.line, final=False)


_MODE = re.compile(r"mode=(?:REBOOT|POWEROFF)\b")
_LATE = re.compile(r"subiquity/Late/run(?:_user_supplied)?$")
_GROUP = re.compile(r"emory cgroup|CONSTRAINT_MEMCG")
_LASTING = re.compile(r"SQUASHFS|I/O error|medium error|Check finished|[Oo]ut of memory|oom")
_GOES_ON = re.compile(r"subiquity/(?:Meta/confirm_POST$|Install/install/(?:configure_apt|curtin_install)\b)")


def _step(facts: Facts, event: Step) -> Facts:
    path, start = event.path, event.kind == "start"
    if start and path == "subiquity/Shutdown/shutdown" and _MODE.match(event.text):
        return _decide(facts, "success", "shutdown", event.line, final=True)
    facts = _gone_on(facts if facts.installer else replace(facts, installer=True), path)
    if start and path == "subiquity/Error/run" and facts.outcome != "failure":
        facts = _decide(facts, "failure", "error-commands", event.line, final=False)
        return replace(facts, error_commands=True)
    if event.kind == "finish" and _LATE.match(path):
        return replace(facts, late_finished=True)
    if event.kind == "error":
        return _note(facts, event.text, path)
    if path.endswith("/load_autoinstall_data"):
        return replace(facts, section=path)
    return _working(facts, event) if start else facts


def _gone_on(facts: Facts, path: str) -> Facts:
    """Note that the installer works on the disk, so that nobody waits for a person any more."""
    waiting = facts.confirm or facts.interactive or facts.early or not facts.installing
    if not waiting or not _GOES_ON.match(path):
        return facts
    if facts.installing or "/Install/" not in path:
        return replace(facts, confirm=False, interactive="", early=False)
    # Nothing is installed after error-commands, so what failed before was harmless, or done again.
    announced = facts.error_commands and facts.outcome is None
    return replace(
        facts,
        confirm=False,
        interactive="",
        early=False,
        installing=True,
        suspect=False,
        doing="",
        error_commands=facts.error_commands and not announced,
        words=tuple(each for each in facts.words if not each.path and _LASTING.search(each.text)),
    )


def _working(facts: Facts, step: Step) -> Facts:
    """Note what curtin says it does."""
    if step.text.startswith("executing curtin install "):
        return replace(facts, stage="")
    if "/stage-" in step.path and step.text and not step.text.startswith(("running 'curtin", "curtin command")):
        return replace(facts, stage=step.text)
    return facts


def _step_failed(facts: Facts, event: StepFailed) -> Facts:
    facts = _note(replace(facts, suspect=True), event.text, event.path, event.phase)
    return facts if facts.doing else replace(facts, doing=event.doing)


def _command(facts: Facts, event: CommandRunning) -> Facts:
    # Only early- and error-commands are announced, early ones maybe again when a client starts anew.
    facts = replace(facts, command=event.command)
    if not facts.early:
        return replace(facts, error_commands=facts.error_commands or event.command not in facts.early_commands)
    if len(facts.early_commands) >= MAX_WORDS:
        return facts
    return replace(facts, early_commands=(*facts.early_commands, event.command))


def _prompt(facts: Facts, event: Prompt) -> Facts:
    if event.kind == "confirm":
        return replace(facts, confirm=True)
    if event.kind == "interactive":
        return replace(facts, interactive=facts.interactive or event.line.strip())
    if event.kind == "login":
        return replace(facts, login=True)
    if event.kind == "press-enter-remove-medium":
        return facts
    return _decide(facts, "failure", event.kind, event.line, final=True)


def _power(facts: Facts, event: PowerState) -> Facts:
    if facts.outcome is not None:
        return replace(facts, final=True)
    if facts.suspect or facts.error_commands:
        return _decide(facts, "failure", "power-off", event.line, final=True)
    if facts.late_finished:
        return _decide(facts, "success", "power-off", event.line, final=True)
    return replace(facts, down=True)


def _output(facts: Facts, event: Output) -> Facts:
    line = event.line
    if facts.confirm and line == "yes":
        return replace(facts, confirm=False)
    if facts.traceback and not line.startswith(" "):
        return _note(replace(facts, traceback=False), line)
    if line.startswith("Traceback (most recent call last)"):
        return replace(facts, traceback=True)
    return facts


def _crash(facts: Facts, event: CrashReport) -> Facts:
    facts = replace(facts, suspect=True)
    return _note(facts, event.kind) if event.kind.endswith("_probe_fail") else facts


def _memory(facts: Facts, event: OutOfMemory) -> Facts:
    facts = _note(facts, event.line)
    # A group of processes that outgrew its own limit says nothing about the machine.
    if facts.outcome is not None or "unpacking" in event.text or _GROUP.search(event.text):
        return facts
    return _decide(facts, "failure", "out-of-memory", event.line, final=False)


def _panic(facts: Facts, event: KernelPanic) -> Facts:
    return _decide(_note(facts, event.line), "failure", "panic", event.line, final=True)


def _error(facts: Facts, event: ErrorLine) -> Facts:
    if facts.installer:
        return _note(facts, event.line)
    # GRUB says this on every boot of Ubuntu's media.
    return facts if "can't find command" in event.text else _note(facts, event.line, phase="boot-loader")


_HANDLERS: dict[type[ConsoleEvent], Callable[[Facts, Any], Facts]] = {
    Sentinel: _sentinel,
    Step: _step,
    StepFailed: _step_failed,
    CommandRunning: _command,
    Prompt: _prompt,
    PowerState: _power,
    Output: _output,
    CrashReport: _crash,
    OutOfMemory: _memory,
    EarlyCommands: lambda facts, _event: replace(facts, early=True),
    KernelPanic: _panic,
    BootFailed: lambda facts, event: _decide(facts, "failure", f"boot-{event.kind}", event.line, final=True),
    BootTrouble: lambda facts, event: _note(facts, event.line, phase=event.stage),
    MediumMissing: lambda facts, event: _decide(facts, "failure", "no-medium", event.line, final=True),
    MediumDamaged: lambda facts, event: _note(facts, event.line),
    GuestDiskFull: lambda facts, event: _note(facts, event.line),
    ErrorLine: _error,
}


def conclude(facts: Facts, phase: str | None, lines: tuple[str, ...]) -> Verdict:
    """Return the verdict on ``facts``, the ``phase`` last reached (its name) and the last ``lines``."""
    if facts.outcome == "success":
        return Verdict("success", phase, lines=lines, final=facts.final)
    if facts.outcome == "failure":
        evidence = _evidence(facts, _failed_phase(facts, phase))
        return _explained("failure", evidence, diagnose(evidence), lines, final=facts.final)
    if facts.confirm or facts.interactive:
        kind = "confirm" if facts.confirm else "interactive"
        line = "Continue with autoinstall? (yes|no)" if facts.confirm else f"interactive screen: {facts.interactive}"
        evidence = Evidence(kind, phase, line)
        return _explained("stalled", evidence, diagnose(evidence), lines, final=False)
    evidence = _evidence(facts, _failed_phase(facts, phase) if facts.suspect else phase)
    if facts.suspect:
        return _explained("incomplete", evidence, diagnose(evidence), lines, final=False)
    key = "powered-off" if facts.down else "ended"
    if phase is None:
        key = "empty"
    elif facts.login and not facts.installer:
        key = "installed-system"
    return _explained("incomplete", evidence, advise(INCOMPLETE[key], evidence, None), lines, final=False)


def _explained(
    outcome: Outcome, evidence: Evidence, found: Diagnosis, lines: tuple[str, ...], *, final: bool
) -> Verdict:
    return Verdict(outcome, evidence.phase, found.cause, found.reason, found.hint, lines, final)


_BEFORE = {
    "boot-loader": LOADERS | {"panic"},
    "live-system": {"initramfs", "no-medium", "emergency-shell", "panic"},
}


def _failed_phase(facts: Facts, reached: str | None) -> str | None:
    if facts.trigger in LOADERS:
        return "boot-loader"
    if facts.trigger in ("no-medium", "initramfs"):
        return "live-system"
    if facts.trigger in ("panic", "emergency-shell", "out-of-memory"):
        return reached
    for words in facts.words:
        if words.phase is not None and words.phase not in _BEFORE:
            return words.phase
    # The installer speaks, but no step was shown: it stopped over the answers.
    if reached is None or BY_NAME[reached].order < BY_NAME["early-commands"].order:
        return "answers"
    return reached


def _evidence(facts: Facts, phase: str | None) -> Evidence:
    words = tuple(each for each in facts.words if facts.trigger in _BEFORE.get(each.phase or "", {facts.trigger}))
    if not words and facts.suspect and phase == "answers":
        # Some exceptions have no words: then the section read last is all there is.
        words = (Words("", facts.section, phase),)
    curtin = any("/curtin_install" in each.path for each in words)
    return Evidence(
        trigger=facts.trigger,
        phase=phase,
        trigger_line=facts.trigger_line,
        words=words,
        doing=facts.doing,
        stage=facts.stage if curtin else "",
        command=facts.command,
    )
