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
    |cloud-config-url=.*  # settings from the network that cloud-init would add
    |cloud-init=.*  # "disabled": the answers would not be read at all
    """,
    re.VERBOSE | re.DOTALL,
)
"""Kernel arguments that lead to answers (cloud-init's documentation on kernel command lines; subiquity's server)."""
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
        for before, word in itertools.pairwise([command[1], *words]):
            if RIVAL.fullmatch(word.value) or (word.value in ours and word.start < separator):
                edits.append((before.end, word.end, ""))
    return edited(menu, edits)


def _is_cut(menu: str, command: Sequence[Word], following: Sequence[Word]) -> bool:
    """Whether a kernel line ends in the midst of a `ds=` because its semicolon has no quotes."""
    if len(command) <= 2 or not following or menu[command[-1].end : following[0].start] != ";":  # noqa: PLR2004
        return False
    return bool(CUT_SEED.fullmatch(command[-1].value) and CUT_REST.fullmatch(following[0].value))
