"""Why an install failed: known patterns in the installer's own words, and what to do about each.

The words are those of subiquity and curtin in the releases 22.04 to 26.10, of casper, GRUB and the kernel.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.install.advice import LOADERS, TRIGGERS, Advice
from builder.install.phases import BY_NAME
from builder.install.remedies import RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARGUMENT = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_ARGUMENTS = re.compile(r"'?(\[(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[, ])+\])'?")
_WRAPPER = ("systemd-cat", "systemd-run")

LONGEST = 1000
"""Characters kept of a reason."""


@dataclass(frozen=True)
class Words:
    """Something that may be the reason: where it was said (a step's path, a log, or ""), and in which phase.

    ``basic`` words are those of kernel and systemd on the machine itself, from which the rest follows.
    """

    text: str
    path: str = ""
    phase: str | None = None
    basic: bool = False


@dataclass(frozen=True)
class Evidence:
    """All that bears on why an install ended as it did.

    ``trigger`` names what decided, ``words`` are in order of appearance, ``stage`` is what curtin said it was
    doing last, ``command`` the early-command or error-command last announced.
    """

    trigger: str
    phase: str | None
    trigger_line: str = ""
    words: tuple[Words, ...] = ()
    doing: str = ""
    stage: str = ""
    command: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The likely cause (``slug`` and ``explanation``), the installer's words and what to do."""

    slug: str
    explanation: str
    reason: str | None
    hint: str

    @property
    def cause(self) -> str:
        """The cause as one string: ``slug: explanation``."""
        return f"{self.slug}: {self.explanation}"


def arguments(text: str) -> tuple[str, ...]:
    """Return the strings in ``text``, the way Python writes a list of strings. Never raises."""
    found = []
    for match in _ARGUMENT.finditer(text):
        raw = match[1] if match[1] is not None else match[2]
        found.append(_ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), raw))
    return tuple(found)


def command_of(argv: tuple[str, ...]) -> str:
    """Return the command a person wrote, out of the argument list the installer made of it."""
    rest = list(argv)
    if rest and rest[0] in _WRAPPER:
        rest.pop(0)
        while rest and rest[0].startswith("-"):
            if rest.pop(0) == "--":
                break
    shell = rest[:2] in (["sh", "-c"], ["/bin/sh", "-c"], ["bash", "-c"])
    return rest[2] if shell and len(rest) == 3 else shlex.join(rest)  # noqa: PLR2004 - sh -c COMMAND


def readable(text: str) -> str:
    """Return ``text`` with argument lists replaced by the commands they stand for."""

    def replace(match: re.Match[str]) -> str:
        argv = arguments(match[1])
        quoted = match[0].startswith("'")
        wrapped = bool(argv) and (argv[0] in _WRAPPER or argv[0] in ("sh", "/bin/sh", "bash"))
        if not (quoted or wrapped):
            return match[0]
        return f"'{command_of(argv)}'" if quoted else command_of(argv)

    return _ARGUMENTS.sub(replace, text) if "['" in text or '["' in text else text


def known(text: str, path: str) -> bool:
    """Tell whether ``text`` at the end of the step ``path`` is that of a known exception."""
    words = Words(readable(text), path)
    return any(rule.exception and _fits(rule, words) is not None for rule in RULES)


def diagnose(evidence: Evidence) -> Diagnosis:
    """Return the likely cause of what ``evidence`` shows."""
    words = [replace(each, text=readable(each.text)) for each in evidence.words]
    for rule, each in (
        *((rule, each) for rule in RULES for each in words if each.basic),
        *((rule, each) for rule in RULES for each in words),
    ):
        groups = _fits(rule, each)
        if groups is None or (rule.phases and (each.phase or evidence.phase) not in rule.phases):
            continue
        return advise(rule.advice, evidence, each.text or _doing(evidence), groups)
    told = sorted((each for each in words if each.text), key=lambda each: not each.path)
    reason = told[0].text if told else None
    advice = TRIGGERS.get(evidence.trigger)
    if advice is None:
        return advise(_unexplained(evidence, reason, words), evidence, reason or _doing(evidence))
    own = evidence.trigger_line or None
    return advise(advice, evidence, reason or own if evidence.trigger in LOADERS else own or reason)


def _fits(rule: Rule, words: Words) -> dict[str, str] | None:
    where = rule.path.search(words.path) if rule.path is not None else None
    if rule.path is not None and where is None:
        return None
    match = rule.words.search(words.text)
    if match is None:
        return None
    groups = {**(where.groupdict() if where is not None else {}), **match.groupdict()}
    return {name: value.strip() for name, value in groups.items() if value is not None}


def _doing(evidence: Evidence) -> str | None:
    return ": ".join(part for part in (evidence.doing, evidence.stage) if part) or None


def _unexplained(evidence: Evidence, reason: str | None, words: list[Words]) -> Advice:
    """Choose an advice for a failure whose words are not known, or which has none."""
    key = "unknown"
    if any("/curtin_install" in each.path for each in words):
        stage = f"stage-{evidence.phase}"
        key = stage if stage in TRIGGERS else "stage"
    elif reason is None and evidence.phase == "early-commands":
        key = "silent-early-command"
    elif reason is None and evidence.phase in (None, "cloud-init", "answers"):
        key = "silent-answers"
    return TRIGGERS[key]


class _Fields(dict[str, str]):
    def __missing__(self, _key: str) -> str:
        return "(not shown)"


def advise(
    advice: Advice, evidence: Evidence, reason: str | None, groups: Mapping[str, str] | None = None
) -> Diagnosis:
    """Return ``advice`` with its blanks filled from ``groups`` and the ``evidence``."""
    phase = BY_NAME.get(evidence.phase or "")
    fields = _Fields(phase=phase.title if phase else "Start")
    if evidence.command:
        fields["command"] = evidence.command
    if evidence.stage or evidence.doing:
        fields["stage"] = evidence.stage or evidence.doing
    fields.update(groups or {})
    if "only" in fields:
        fields["command"] = fields["only"]
    return Diagnosis(
        slug=advice.slug,
        explanation=_short(advice.explanation.format_map(fields)),
        reason=None if reason is None else _short(reason),
        hint=advice.hint.format_map(fields),
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
