"""What other programs write before each line of a console they record: known forms, and how to take them off.

Forms: Packer's log (PACKER_LOG) and its screen; the stamps of GitHub Actions, GitLab (``FF_TIMESTAMPS`` of its runner:
``TIME STREAM+text``, the plus for a line that goes on), Jenkins, Kubernetes (CRI) and libvirt; journalctl's short
forms; ``ts`` of moreutils; ``docker compose logs``; the stamps in brackets of minicom, tio, conserver and many scripts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WINDOW = 1 << 18
"""How many bytes are looked at, at most, before it is decided whether lines bear a prefix."""
LINES = 200
"""How many lines with something on them are looked at, at most."""
SHARE = 0.6
"""Which part of them must bear the same kind of prefix."""
_LAYERS = 4
_LONGEST = 1 << 20

_COLOUR = rb"(?:\x1b\[[0-9;]*m)*"
_END = rb"(?: |(?=\r*(?:\n|$)))"
_CLOCK = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_ISO = rb"\d{4}-\d\d-\d\d[T ]" + _CLOCK + rb"(?: ?(?:Z|[+-]\d\d:?\d\d))?:?"
_SYSLOG = rb"[A-Z][a-z]{2} [ \d]\d " + _CLOCK
_WEEKDAY = rb"[A-Z][a-z]{2} " + _SYSLOG + rb"(?: \d{4})?"
_GO = rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "
_EPOCH = rb"\d{10}\.\d{1,9}"


@dataclass(frozen=True)
class Kind:
    """A form of prefix.

    Groups of ``words``: ``who`` must be the same on most lines; ``console`` marks the lines that are the console's,
    once one of them came; ``append`` says that the line goes on from the one before, ``partial`` that it goes on.
    """

    name: str
    words: re.Pattern[bytes]


KINDS = tuple(
    Kind(name, re.compile(words))
    for name, words in (
        (
            "packer-log",
            _GO
            + rb"(?:\S+ plugin: )?(?:"
            + _GO
            + rb")?(?:\[[A-Z]+\] )?(?:ui: )?(?P<console>Qemu stdout:"
            + _END
            + rb")?",
        ),
        ("packer", _COLOUR + rb"(?:==> |    )(?P<who>[\w.-]+):" + _END),
        ("gitlab", rb"\d{4}-\d\d-\d\dT" + _CLOCK + rb"Z [0-9a-f]{2}[OE](?:(?P<append>\+)|" + _END + rb")"),
        ("kubernetes", _ISO + rb" std(?:out|err) (?:F|(?P<partial>P))" + _END),
        ("journal", rb"(?:" + _SYSLOG + rb"|" + _ISO + rb") \S+ [\w@.:/\\-]+\[\d+\]:" + _END),
        ("compose", _COLOUR + rb"(?P<who>[\w.-]+) +\|" + _COLOUR + _END + _COLOUR),
        ("stamp", rb"(?:" + rb"|".join((_ISO, _SYSLOG, _WEEKDAY, _EPOCH)) + rb")" + _END),
        (
            "brackets",
            rb"\[(?:" + rb"|".join((_ISO, _SYSLOG, _WEEKDAY, _EPOCH, _CLOCK)) + rb")\]" + _END,
        ),
        ("clock, two blanks", _CLOCK + rb"(?:  |(?= ?\r*(?:\n|$)))"),
        ("clock", _CLOCK + _END),
    )
)
"""The first that most lines bear is taken: those that say more stand before those that fit more."""


def peek(chunks: Iterable[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first ``size`` bytes of ``chunks`` or some more, or all there are; and the whole again."""
    rest = iter(chunks)
    head: list[bytes] = []
    had = 0
    for chunk in rest:
        head.append(chunk)
        had += len(chunk)
        if had >= size:
            break
    start = b"".join(head)
    return start, chain((start,), rest)


def without_prefixes(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the stream ``chunks`` without what stands before each line, however many programs put something there.

    A stream whose lines bear nothing is returned byte for byte. Memory is bounded.
    """
    stream = iter(chunks)
    for _ in range(_LAYERS):
        head, stream = peek(stream, WINDOW)
        kind = kind_of(head)
        if kind is None:
            break
        stream = _stripped(stream, kind)
    return stream


def kind_of(head: bytes) -> Kind | None:
    """Return the kind of prefix that most lines of ``head``, the begin of a stream, bear, or None."""
    lines = [line for line in head.split(b"\n")[: 20 * LINES] if line.strip()][:LINES]
    for kind in KINDS:
        found = Counter(match.groupdict().get("who") for match in map(kind.words.match, lines) if match is not None)
        if found and max(found.values()) >= SHARE * len(lines):
            return kind
    return None


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the stream by lines, each with its end; an endless one comes in pieces."""
    tail = b""
    for chunk in chunks:
        *whole, tail = (tail + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
        while len(tail) >= _LONGEST:
            yield tail[:_LONGEST]
            tail = tail[_LONGEST:]
    if tail:
        yield tail


def _stripped(chunks: Iterable[bytes], kind: Kind) -> Iterator[bytes]:
    ended, end, marked, drop = True, b"", False, False
    for line in _lines(chunks):
        match = kind.words.match(line) if ended else None
        groups = match.groupdict() if match is not None else {}
        if ended:
            marked = marked or groups.get("console") is not None
            drop = marked and groups.get("console") is None
        ended = line.endswith(b"\n")
        if drop:
            continue
        body = line[match.end() :] if match is not None else line
        if groups.get("append") is None:
            yield end
        end = b""
        if ended:
            body = body[:-1]
            end = b"" if groups.get("partial") is not None else b"\n"
        yield body
    yield end
