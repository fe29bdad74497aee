"""GRUB's script language, as far as a menu needs it: commands, their words, and edits of them.

A menu is read as GRUB's own lexer reads it (GRUB manual, 6.1 "GRUB scripting": words, quotes, separators,
continued lines).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LOADERS = frozenset({"linux", "linux16", "linuxefi"})
KEYWORDS = frozenset({"!", "do", "elif", "else", "if", "then", "until", "while"})
KERNELS = "/casper/"
SEPARATOR = "---"
TOKEN = re.compile(
    r"""
    (?P<blank>(?:[ \t\r]|\\\r?\n)+)
    |(?P<comment>\#[^\n]*)
    |(?P<end>[\n;{}&|<>]+)
    |(?P<word>(?:\$\{[^}\n]*\}|'[^']*'?|"(?:[^"\\]|\\.)*"?|\\.|\\$|[^ \t\r\n;{}&|<>'"\\])+)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Word:
    """A word as it is written in a script, and its place there."""

    text: str
    start: int
    end: int

    @property
    def value(self) -> str:
        """The word without quotes and escapes; variables stay as they are written."""
        return re.sub(r"""\\(.)|["']""", r"\1", self.text, flags=re.DOTALL)


def commands(text: str) -> Iterator[list[Word]]:
    """Yield the commands of a script as lists of words with their places in ``text``."""
    words: list[Word] = []
    for match in TOKEN.finditer(text):
        if match.lastgroup == "word" and (words or match.group() not in KEYWORDS):
            words.append(Word(match.group(), match.start(), match.end()))
        elif match.lastgroup == "end":
            if words:
                yield words
            words = []
    if words:
        yield words


def edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Return ``text`` with each edit's piece, from its start to its end, replaced."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def loads_casper(command: Sequence[Word]) -> bool:
    """Whether a command loads a kernel from /casper/."""
    return len(command) > 1 and command[0].value in LOADERS and KERNELS in command[1].value
