"""Edit GRUB menus, text to text.

A menu is read as GRUB's own lexer reads it (GRUB manual, 6.1 "GRUB scripting": words, quotes, separators,
continued lines), so that only what is meant is touched: the kernel lines of /casper/ and the time-out.

A medium may have been changed before, by prebake or by hand. What would take the installer to other answers goes
from the kernel lines, so that one set of answers is left: ours.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import RemasterError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

BEGIN = "# prebake: begin"
END = "# prebake: end"
ADDED = "# prebake: added: "
PROLOGUE = re.compile(r"^# prebake: begin[^\n]*\n.*?^# prebake: end[^\n]*\n", re.MULTILINE | re.DOTALL)
LOADERS = frozenset({"linux", "linux16", "linuxefi"})
KEYWORDS = frozenset({"!", "do", "elif", "else", "if", "then", "until", "while"})
KERNELS = "/casper/"
SEPARATOR = "---"
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
TIMEOUT = re.compile(r"timeout=.*", re.DOTALL)
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
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
class SerialPort:
    """A serial port GRUB itself talks on: its number from 0 and its speed in bits a second."""

    unit: int = 0
    speed: int = 115200


@dataclass(frozen=True)
class _Word:
    text: str
    start: int
    end: int

    @property
    def value(self) -> str:
        """The word without quotes and escapes; variables stay as they are written."""
        return re.sub(r"""\\(.)|["']""", r"\1", self.text, flags=re.DOTALL)


def edit_menu(text: str, *, kernel_arguments: Sequence[str], serial: SerialPort | None, timeout: int) -> str:
    """Return the GRUB menu ``text`` so that every entry for the installer boots it with ``kernel_arguments``.

    The arguments, each one unquoted as the kernel is to see it, go before ``---`` of each command that loads a
    kernel from /casper/, or to its end where there is no ``---``; arguments that lead to other answers (`RIVAL`)
    and those before ``---`` that would be there twice go. Every assignment of ``timeout`` gets ``timeout``
    (seconds; -1 waits for ever), and the menu gets one if it has none. With ``serial``, a GRUB started by a BIOS
    also talks on that port if there is one; under UEFI the firmware does so itself, and twice is garbled. A menu
    that was edited before is edited anew, whatever it was told then.

    Raises RemasterError if an argument is empty, is ``---`` or has a line break, which no menu can hold.
    """
    menu = _without_rivals(_restored(text), frozenset(kernel_arguments))
    added = " ".join(_quoted(argument) for argument in kernel_arguments)
    timeouts = [word for command in _commands(menu) for word in _timeouts(command)]
    edits = [(word.start, word.end, f"timeout={timeout}") for word in timeouts]
    if added:
        edits += [_insertion(command, added) for command in _commands(menu) if _loads_casper(command)]
    menu = _edited(menu, edits)
    return _prologue(added, serial, None if timeouts else timeout) + menu


def _edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _without_rivals(menu: str, ours: Container[str]) -> str:
    """Return a menu whose kernel lines lead to no answers and have none of ``ours`` before their ``---``."""
    edits = []
    commands = list(_commands(menu))
    for index, command in enumerate(commands):
        if not _loads_casper(command):
            continue
        words = list(command[2:])
        following = commands[index + 1] if index + 1 < len(commands) else []
        if _is_cut(menu, command, following):
            whole = _Word(words[-1].text, words[-1].start, following[0].end)
            words = [*words[:-1], whole, *following[1:]]
        separator = next((word.start for word in words if word.value == SEPARATOR), len(menu))
        for before, word in itertools.pairwise([command[1], *words]):
            if RIVAL.fullmatch(word.value) or (word.value in ours and word.start < separator):
                edits.append((before.end, word.end, ""))
    return _edited(menu, edits)


def _is_cut(menu: str, command: Sequence[_Word], following: Sequence[_Word]) -> bool:
    """Whether a kernel line ends in the midst of a `ds=` because its semicolon has no quotes."""
    if len(command) <= 2 or not following or menu[command[-1].end : following[0].start] != ";":  # noqa: PLR2004
        return False
    return bool(CUT_SEED.fullmatch(command[-1].value) and CUT_REST.fullmatch(following[0].value))


def boots_casper(text: str) -> bool:
    """Whether a GRUB menu has an entry that loads a kernel from /casper/."""
    return any(_loads_casper(command) for command in _commands(text))


def _quoted(argument: str) -> str:
    if re.search(r"[\n\r\0]", argument) or argument in {"", SEPARATOR}:
        raise RemasterError(
            f"{argument!r} cannot be a kernel argument.", hint="Use words without line breaks, and no `---`."
        )
    if PLAIN.fullmatch(argument):
        return argument
    return '"' + re.sub(r'(["\\$])', r"\\\1", argument) + '"'


def _commands(text: str) -> Iterator[list[_Word]]:
    """Yield the commands of a script as lists of words with their places in ``text``."""
    words: list[_Word] = []
    for match in TOKEN.finditer(text):
        if match.lastgroup == "word" and (words or match.group() not in KEYWORDS):
            words.append(_Word(match.group(), match.start(), match.end()))
        elif match.lastgroup == "end":
            if words:
                yield words
            words = []
    if words:
        yield words


def _loads_casper(command: Sequence[_Word]) -> bool:
    return len(command) > 1 and command[0].value in LOADERS and KERNELS in command[1].value


def _timeouts(command: Sequence[_Word]) -> Iterator[_Word]:
    words = command[1:2] if command[0].value == "set" else command[:1]
    yield from (word for word in words if TIMEOUT.fullmatch(word.text))


def _insertion(command: Sequence[_Word], added: str) -> tuple[int, int, str]:
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
    for command in _commands(menu):
        if not _loads_casper(command):
            continue
        separator = next((word for word in command[2:] if word.value == SEPARATOR), None)
        if separator is not None and menu[: separator.start].endswith(f"{added} "):
            cuts.append((separator.start - len(added) - 1, separator.start, ""))
        elif separator is None and menu[: command[-1].end].endswith(f" {added}"):
            cuts.append((command[-1].end - len(added) - 1, command[-1].end, ""))
    return _edited(menu, cuts)
