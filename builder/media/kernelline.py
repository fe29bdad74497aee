"""What on the kernel lines of a menu leads to other answers than ours, and how it goes.

It may stand on the line itself, or in what gives a variable on the line its value: GRUB makes words of what an
unquoted variable holds (script/execute.c, grub_script_arglist_to_argv), and the installer makes words of the rest.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from builder.media.grubscript import ARGUMENTS, SEPARATOR, Word, commands, edited, loads_casper

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from builder.media.grubscript import Character

RIVAL = re.compile(
    r"""autoinstall
    |subiquity\.autoinstallpath=.*  # a file that the installer would take before any other
    |(ci\.)?ds=.*|ci\.datasource=.*  # another seed, or none, for cloud-init and its ds-identify
    |(cloud-config-|iso-)?url=.*  # settings from the network that cloud-init would add, or another medium
    |cloud-init=.*  # "disabled": the answers would not be read at all
    """,
    re.VERBOSE | re.DOTALL,
)
"""Kernel arguments that lead to answers (cloud-init's documentation on kernel command lines; subiquity's server).

`url=` goes although nothing may be wrong with it. It has two readers: cloud-init takes it for `cloud-config-url=`
where that is not there (main.py, parse_cmdline_url; deprecated only since 22.3), and casper
for an ISO to fetch and to use instead of the medium, on which our answers are (`iso-url=` is its newer name, which
cloud-init does not read). A medium that is complete needs neither.
"""
SETTINGS = "cc:"
SETTINGS_END = "end_cc"
"""What stands between these, over many words perhaps, are settings for cloud-init (util.py, read_cc_from_cmdline)."""
CUT_SEED = re.compile(r"(ci\.)?ds=nocloud(-net)?")
CUT_REST = re.compile(r"(s|seedfrom|h|i|fs)=.*", re.DOTALL)
"""`ds=nocloud;s=/cdrom/x/` without quotes: GRUB ends the command at the `;` and takes the rest for another one."""


def without_rivals(menu: str, ours: Container[str]) -> str:
    """Return a menu whose kernel lines lead to no answers and have none of ``ours`` before their ``---``."""
    edits: list[tuple[int, int, str]] = []
    listed = list(commands(menu))
    done: set[int] = set()
    for index, command in enumerate(listed):
        if not loads_casper(command):
            continue
        words = list(command[2:])
        done |= {word.start for word in command}
        following = listed[index + 1] if index + 1 < len(listed) else []
        if _is_cut(menu, command, following):
            whole = Word(words[-1].text, words[-1].start, following[0].end)
            words = [*words[:-1], whole, *following[1:]]
            done |= {word.start for word in following}
        separator = next((word.start for word in words if word.value == SEPARATOR), len(menu))
        rivals = _rivals([word.value for word in words])
        for place, (before, word) in enumerate(itertools.pairwise([command[1], *words])):
            if place in rivals or (word.value in ours and word.start < separator):
                edits.append((before.end, word.end, ""))
            else:
                edits += _cleaned(word)
    for word, begin in _givers(listed):
        edits += _cleaned(word, begin) if word.start not in done else []
    return edited(menu, edits)


def _rivals(values: Sequence[str]) -> set[int]:
    """Return which of a kernel line's arguments lead to other answers.

    Settings without an end would reach to the end of the line. Only their beginning goes: what follows is no longer
    read as settings then, and may be what the kernel needs.
    """
    found = {place for place, value in enumerate(values) if RIVAL.fullmatch(value)}
    for place, value in enumerate(values):
        if value.startswith(SETTINGS):
            ends = (last for last in range(place, len(values)) if SETTINGS_END in values[last])
            found |= set(range(place, next(ends, place) + 1))
    return {place for place in found if values[place] != SEPARATOR}


def _givers(listed: Sequence[Sequence[Word]]) -> Iterator[tuple[Word, int]]:
    """Yield each word that gives a variable on a kernel line its value, and where the value begins in what it says.

    Variables in such a word are followed too. `${iso_path}` and the like get their values from outside.
    """
    given: dict[str, list[tuple[Word, int]]] = {}
    functions = {command[1].value for command in listed if command[0].value == "function" and len(command) > 1}
    for command in listed:
        for name, word, begin in _given(command, functions):
            given.setdefault(name, []).append((word, begin))
    names = {name for command in listed if loads_casper(command) for word in command[1:] for name in word.variables}
    seen: set[str] = set()
    while names:
        name = names.pop()
        seen.add(name)
        for word, begin in given.get(name, []):
            names |= word.variables - seen
            yield word, begin


def _given(command: Sequence[Word], functions: Container[str]) -> Iterator[tuple[str, Word, int]]:
    """Yield the variables to which a command gives values, each with the word and where the value begins in it."""
    kind = command[0].value
    if kind in functions:
        yield from ((ARGUMENTS, word, 0) for word in command[1:])
    elif kind in {"menuentry", "submenu"}:
        yield from ((ARGUMENTS, word, 0) for word in command[2:])
    elif kind == "for" and len(command) > 1:
        yield from ((command[1].value, word, 0) for word in command[3:])
    else:
        word = command[1] if kind == "set" and len(command) > 1 else command[0]
        name, equals, _ = word.value.partition("=")
        if equals:
            yield name, word, len(name) + 1


def _cleaned(word: Word, begin: int = 0) -> list[tuple[int, int, str]]:
    """Return the edit that takes from a word the arguments in it that lead to other answers, if there are any.

    Only what it says from its character ``begin`` on is looked at. Its quotes stay, so it stays one word.
    """
    parts = _parts(list(word.characters)[begin:])
    rivals = _rivals(["".join(one.text for one in part).strip() for part in parts])
    if not rivals:
        return []
    left = [part for number, part in enumerate(parts) if number not in rivals]
    gone = [one for number in rivals for one in parts[number]]
    if 0 in rivals and left:
        gone += itertools.takewhile(lambda one: one.text.isspace(), left[0])
    places = {place for one in gone for place in range(one.start, one.end)}
    text = "".join(one for place, one in enumerate(word.text) if place not in places)
    return [(word.start, word.end, text if text and not text.startswith("#") else f'""{text}')]


def _parts(characters: Sequence[Character]) -> list[list[Character]]:
    """Return characters as the arguments they make, each with the blanks before it."""
    parts: list[list[Character]] = [[]]
    for place, one in enumerate(characters):
        if place and one.text.isspace() and not characters[place - 1].text.isspace():
            parts.append([])
        parts[-1].append(one)
    return parts


def _is_cut(menu: str, command: Sequence[Word], following: Sequence[Word]) -> bool:
    """Whether a kernel line ends in the midst of a `ds=` because its semicolon has no quotes."""
    if len(command) <= 2 or not following or menu[command[-1].end : following[0].start] != ";":  # noqa: PLR2004
        return False
    return bool(CUT_SEED.fullmatch(command[-1].value) and CUT_REST.fullmatch(following[0].value))
