"""Edit GRUB menus, text to text.

Only what is meant is touched: the kernel lines of /casper/ and the time-out.

A medium may have been changed before, by prebake or by hand. What would take the installer to other answers goes
from the kernel lines and from the variables on them, so that one set of answers is left: ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.grubscript import SEPARATOR, commands, edited, loads_casper
from builder.media.kernelline import without_rivals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.media.grubscript import Word

BEGIN = "# prebake: begin"
END = "# prebake: end"
ADDED = "# prebake: added: "
PROLOGUE = re.compile(r"^# prebake: begin[^\n]*\n.*?^# prebake: end[^\n]*\n", re.MULTILINE | re.DOTALL)
TIMEOUT = re.compile(r"timeout=.*", re.DOTALL)
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


@dataclass(frozen=True)
class SerialPort:
    """A serial port GRUB itself talks on: its number from 0 and its speed in bits a second."""

    unit: int = 0
    speed: int = 115200


def edit_menu(text: str, *, kernel_arguments: Sequence[str], serial: SerialPort | None, timeout: int) -> str:
    """Return the GRUB menu ``text`` so that every entry for the installer boots it with ``kernel_arguments``.

    The arguments, each one unquoted as the kernel is to see it, go before ``---`` of each command that loads a
    kernel from /casper/, or to its end where there is no ``---``; arguments that lead to other answers (`kernelline`)
    and those before ``---`` that would be there twice go. Every assignment of ``timeout`` gets ``timeout``
    (seconds; -1 waits for ever), and the menu gets one if it has none. With ``serial``, a GRUB started by a BIOS
    also talks on that port if there is one; under UEFI the firmware does so itself, and twice is garbled. A menu
    that was edited before is edited anew, whatever it was told then.

    Raises RemasterError if an argument is empty, is ``---`` or has a line break, which no menu can hold.
    """
    menu = without_rivals(_restored(text), frozenset(kernel_arguments))
    added = " ".join(_quoted(argument) for argument in kernel_arguments)
    timeouts = [word for command in commands(menu) for word in _timeouts(command)]
    edits = [(word.start, word.end, f"timeout={timeout}") for word in timeouts]
    if added:
        edits += [_insertion(command, added) for command in commands(menu) if loads_casper(command)]
    menu = edited(menu, edits)
    return _prologue(added, serial, None if timeouts else timeout) + menu


def boots_casper(text: str) -> bool:
    """Whether a GRUB menu has an entry that loads a kernel from /casper/."""
    return any(loads_casper(command) for command in commands(text))


def _quoted(argument: str) -> str:
    if re.search(r"[\n\r\0]", argument) or argument in {"", SEPARATOR}:
        raise RemasterError(
            f"{argument!r} cannot be a kernel argument.", hint="Use words without line breaks, and no `---`."
        )
    if PLAIN.fullmatch(argument):
        return argument
    return '"' + re.sub(r'(["\\$])', r"\\\1", argument) + '"'


def _timeouts(command: Sequence[Word]) -> Iterator[Word]:
    words = command[1:2] if command[0].value == "set" else command[:1]
    yield from (word for word in words if TIMEOUT.fullmatch(word.text))


def _insertion(command: Sequence[Word], added: str) -> tuple[int, int, str]:
    for word in command[2:]:
        if word.value == SEPARATOR:
            return word.start, word.start, f"{added} "
    return command[-1].end, command[-1].end, f" {added}"


def _prologue(added: str, serial: SerialPort | None, timeout: int | None) -> str:
    lines = [BEGIN]
    if added:
        lines.append(ADDED + added)
    if timeout is not None:
        lines.append(f"set timeout={timeout}")
    if serial is not None:
        lines += [
            'if [ "$grub_platform" = "pc" ]; then',
            f"  if serial --unit={serial.unit} --speed={serial.speed}; then",
            "    terminal_input --append serial",
            "    terminal_output --append serial",
            "  fi",
            "fi",
        ]
    return "\n".join([*lines, END, ""])


def _restored(text: str) -> str:
    """Return a menu without what an earlier edit put in, save the time-outs."""
    prologue = PROLOGUE.match(text)
    if not prologue:
        return text
    menu = text[prologue.end() :]
    added = next((line[len(ADDED) :] for line in prologue.group().split("\n") if line.startswith(ADDED)), "")
    if not added:
        return menu
    cuts: list[tuple[int, int, str]] = []
    for command in commands(menu):
        if not loads_casper(command):
            continue
        separator = next((word for word in command[2:] if word.value == SEPARATOR), None)
        if separator is not None and menu[: separator.start].endswith(f"{added} "):
            cuts.append((separator.start - len(added) - 1, separator.start, ""))
        elif separator is None and menu[: command[-1].end].endswith(f" {added}"):
            cuts.append((command[-1].end - len(added) - 1, command[-1].end, ""))
    return edited(menu, cuts)
