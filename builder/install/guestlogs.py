"""What the guest's own logs say of a failure, where the console does not. Pure.

The logs are those of Ubuntu's live session: ``/var/log/installer`` with the server's debug log, its traceback and
curtin's log, the journal that the error-commands add to them, and apport's reports in ``/var/crash``. curtin writes
a failed program as the lines "Command:", "Exit code:", "Reason:", "Stdout:" and "Stderr:"
(``curtin/util.py``, ProcessExecutionError).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.install.causes import Words, arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GUEST = "guest"
"""The folder of the guest's own logs, beside the console."""
JOURNAL = "var/log/installer/installer-journal.txt"
SERVER = "var/log/installer/subiquity-server-debug.log"
CURTIN = "var/log/installer/curtin-install.log"
TRACEBACK = "var/log/installer/subiquity-traceback.txt"
READ = (JOURNAL, SERVER, CURTIN, TRACEBACK)
"""The logs read, beside every report in ``CRASHES``."""
CRASHES = "var/crash/"
LONGEST = 400
MOST = 3
"""How many of apt's complaints are repeated."""

# A line of the journal: what speaks, and what it says.
_ENTRY = re.compile(r"^\w{3} +\d+ [\d:]{8} \S+ (?P<unit>[^\s:\[]+)(?:\[\d+\])?: (?P<text>.*)$")
_BASIC = re.compile(
    r"Out of memory: Killed process.*|SQUASHFS error: .*|I/O error, dev loop\d.*|Kernel panic - not syncing.*"
    r"|(?:snap\.subiquity|rehearsal-server)\S*: Main process exited, code=(?:killed|dumped).*"
)
_APT = re.compile(r"^[ \t]*(E: .*)$", re.MULTILINE)
_FAILED = re.compile(
    r"^[ \t]*Command: (?P<command>.*)\n[ \t]*Exit code: (?P<code>.*)\n[ \t]*Reason: .*\n"
    r"[ \t]*Stdout: (?P<out>(?:.*\n){0,20000}?)[ \t]*Stderr: (?P<err>.*(?:\n[ \t]{8,}\S.*)*)",
    re.MULTILINE,
)
_FULL = re.compile(r"^.*No space left on device.*$", re.MULTILINE)
_SCHEMA = re.compile(r"^jsonschema\.exceptions\.ValidationError: (?P<detail>.+)$", re.MULTILINE)
_SECTION = re.compile(r"Malformed autoinstall in '[^']+' section")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Timeout|Exit|Interrupt)\b.*$")
_EMPTY = ("", "''", '""', "b''", "-")


def said(logs: Mapping[str, str]) -> list[Words]:
    """Return what ``logs`` (texts by path in the guest) say of the failure, the most basic first.

    Never raises, whatever the logs are.
    """
    found: dict[str, Words] = {}
    for words in _all(logs):
        found.setdefault(words.text, words)
    return list(found.values())


def _all(logs: Mapping[str, str]) -> Iterator[Words]:
    journal, curtin = logs.get(JOURNAL, ""), logs.get(CURTIN, "")
    yield from _journal(journal)
    yield from _apt(curtin, CURTIN)
    # The programs of the later steps speak to the journal: "... subiquity_log.1234[5678]: E: Unable to ...".
    rows = (each for each in map(_ENTRY.match, journal.splitlines()) if each and each["unit"].startswith("subiquity"))
    yield from _apt("\n".join(each["text"] for each in rows), JOURNAL)
    yield from _commands(curtin)
    yield from _schema(logs)
    traces = [logs.get(TRACEBACK, ""), *(logs[name] for name in sorted(logs) if name.startswith(CRASHES))]
    for text in traces:
        last = last_exception(text)
        # curtin's error has no words of its own: they are in its log.
        if last and not last.endswith("CurtinInstallError"):
            yield _words(last, TRACEBACK)


def _words(text: str, path: str, *, basic: bool = False) -> Words:
    text = " ".join(text.split())
    return Words(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…", path, basic=basic)


def _journal(text: str) -> Iterator[Words]:
    """Yield what the kernel and systemd say of the machine itself; once each kind, for such lines come in heaps."""
    kinds = set()
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry is None or entry["unit"] not in {"kernel", "systemd"}:
            continue
        match = _BASIC.search(entry["text"])
        if match is not None and match[0][:12] not in kinds:
            kinds.add(match[0][:12])
            yield _words(match[0], JOURNAL, basic=True)


def _apt(text: str, path: str) -> Iterator[Words]:
    for line in list(dict.fromkeys(each[1] for each in _APT.finditer(text)))[:MOST]:
        yield _words(line, path)


def _commands(text: str) -> Iterator[Words]:
    """Yield what the programs that curtin ran said, the innermost of the last failure first."""
    for match in reversed(list(_FAILED.finditer(text))):
        error = match["err"].strip().strip("'\"")
        if error in _EMPTY or "Unexpected error while running command" in error:
            continue
        argv = arguments(match["command"])
        name = argv[0] if argv else match["command"][:80]
        yield _words(f"{name} failed with exit code {match['code'].strip()}: {error}", CURTIN)
        return
    full = list(_FULL.finditer(text))
    if full:
        yield _words(full[-1][0], CURTIN)


def _schema(logs: Mapping[str, str]) -> Iterator[Words]:
    """Yield which value of a section is wrong: the console names the section only."""
    text = logs.get(SERVER, "") + "\n" + logs.get(TRACEBACK, "")
    section, detail = _SECTION.search(text), _SCHEMA.search(text)
    if section is not None and detail is not None:
        yield _words(f"{section[0]}: {detail['detail']}", SERVER)


def last_exception(text: str) -> str:
    """Return the last line of the last traceback in ``text``, or "".

    In apport's reports a field's further lines begin with a blank.
    """
    inside, last = False, ""
    for line in text.splitlines():
        if line.strip().startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and _EXCEPTION.match(line.strip()):
            inside, last = False, line.strip()
    return last
