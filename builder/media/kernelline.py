"""What on the kernel lines of a menu leads to other answers than ours, and how it goes."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from builder.media.grubscript import SEPARATOR, Word, commands, edited, loads_casper

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

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
where that is not there (main.py, parse_cmdline_url; deprecated since 22.3, and 22.04's media are older), and casper
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
    edits = []
    listed = list(commands(menu))
    for index, command in enumerate(listed):
        if not loads_casper(command):
            continue
        words = list(command[2:])
        following = listed[index + 1] if index + 1 < len(listed) else []
        if _is_cut(menu, command, following):
            whole = Word(words[-1].text, words[-1].start, following[0].end)
            words = [*words[:-1], whole, *following[1:]]
        separator = next((word.start for word in words if word.value == SEPARATOR), len(menu))
        rivals = _rivals([word.value for word in words])
        for place, (before, word) in enumerate(itertools.pairwise([command[1], *words])):
            if place in rivals or (word.value in ours and word.start < separator):
                edits.append((before.end, word.end, ""))
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


def _is_cut(menu: str, command: Sequence[Word], following: Sequence[Word]) -> bool:
    """Whether a kernel line ends in the midst of a `ds=` because its semicolon has no quotes."""
    if len(command) <= 2 or not following or menu[command[-1].end : following[0].start] != ";":  # noqa: PLR2004
        return False
    return bool(CUT_SEED.fullmatch(command[-1].value) and CUT_REST.fullmatch(following[0].value))
