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


VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+|[@*])\}|(?P<bare>\d+|\w+|[@*]))")
ARGUMENTS = "*"
"""The name under which all of `$1`, `$2`, …, `$@` and `$*` go here."""


@dataclass(frozen=True)
class Character:
    """A character of a word: its place in the word's text, and whether GRUB may see a variable's `$` in it."""

    text: str
    start: int
    end: int
    live: bool


@dataclass(frozen=True)
class Word:
    """A word as it is written in a script, and its place there."""

    text: str
    start: int
    end: int

    @property
    def value(self) -> str:
        """The word without quotes and escapes; variables stay as they are written."""
        return "".join(character.text for character in self.characters)

    @property
    def characters(self) -> Iterator[Character]:
        """What the word says, without quotes and escapes."""
        quote, place = "", 0
        while place < len(self.text):
            first, place = place, place + 1
            text = self.text[first]
            escaped = text == "\\" and quote != "'" and place < len(self.text)
            if escaped:
                text, place = self.text[place], place + 1
            elif text in ("'", '"') and quote in ("", text):
                quote = "" if quote else text
                continue
            yield Character(text, first, place, live=not escaped and quote != "'")

    @property
    def variables(self) -> set[str]:
        """The names of the variables GRUB puts values in for."""
        text = "".join(character.text if character.live else "\0" for character in self.characters)
        names = {match["braced"] or match["bare"] for match in VARIABLE.finditer(text)}
        return {ARGUMENTS if name.isdigit() or name == "@" else name for name in names}


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
