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
DEEP = 8
"""Blanks before the further lines of what a program said."""
NEAR = 180
"""Seconds before the last entry of the journal in which the kernel's word counts as the reason."""
MOST = 3
"""How many of apt's complaints are repeated."""

# A line of the journal: what speaks, and what it says.
_ENTRY = re.compile(r"^\w{3} +\d+ (?P<time>\d\d:\d\d:\d\d) \S+ (?P<unit>[^\s:\[]+)(?:\[\d+\])?: (?P<text>.*)$")
_BASIC = re.compile(
    r"Out of memory: Killed process.*|SQUASHFS error: .*|I/O error, dev loop\d.*|Kernel panic - not syncing.*"
    r"|(?:snap\.subiquity|rehearsal-server)\S*: Main process exited, code=(?:killed|dumped).*"
)
_APT = re.compile(r"^[ \t]*(E: .*)$", re.MULTILINE)
_ROW = re.compile(r"^[ \t]*(?P<key>Command|Exit code|Stderr): (?P<value>.*)$")
# apt says this in every chroot, also where all goes well.
_HARMLESS = re.compile(r"Can not write log")
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
    yield from _commands(curtin)
    yield from _apt(curtin, CURTIN)
    # The programs of the later steps speak to the journal: "... subiquity_log.1234[5678]: E: Unable to ...".
    rows = (each for each in map(_ENTRY.match, journal.splitlines()) if each and each["unit"].startswith("subiquity"))
    yield from _apt("\n".join(each["text"] for each in rows), JOURNAL)
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
    """Yield what kernel and systemd say of the machine itself shortly before the logs were saved, once each kind."""
    entries = [entry for entry in map(_ENTRY.match, text.splitlines()) if entry is not None]
    last = _seconds(entries[-1]["time"]) if entries else 0
    kinds = set()
    for entry in entries:
        match = _BASIC.search(entry["text"]) if entry["unit"] in {"kernel", "systemd"} else None
        near = (last - _seconds(entry["time"])) % 86400 <= NEAR
        if match is not None and near and match[0][:12] not in kinds:
            kinds.add(match[0][:12])
            yield _words(match[0], JOURNAL, basic=True)


def _seconds(clock: str) -> int:
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _apt(text: str, path: str) -> Iterator[Words]:
    lines = [each[1] for each in _APT.finditer(text) if not _HARMLESS.search(each[1])]
    for line in list(dict.fromkeys(reversed(lines)))[:MOST]:
        yield _words(line, path)


def _commands(text: str) -> Iterator[Words]:
    """Yield what the last program said that failed under curtin, the innermost if one ran another."""
    name = code = error = said = ""
    for line in text.splitlines():
        row = _ROW.match(line)
        if row is None:
            if error and line.startswith(" " * DEEP):
                said = f"{said} {line.strip()}"
            else:
                error = ""
        elif row["key"] == "Command":
            argv = arguments(row["value"])
            name, code, error = argv[0] if argv else row["value"][:80], "", ""
        elif row["key"] == "Exit code":
            code = row["value"].strip()
        elif row["key"] == "Stderr" and code and row["value"].strip() not in _EMPTY:
            error = row["value"].strip()
            said = f"{name} failed with exit code {code}: {error}"
    if said:
        yield _words(said, CURTIN)
        return
    full = _FULL.findall(text)
    if full:
        yield _words(full[-1], CURTIN)


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
