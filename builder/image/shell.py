"""A root shell on the guest's serial console: log in, run commands, read what they say. No SSH, no agent."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import InstallError, MachineError, StalledError
from builder.vm.clock import AwakeClock
from builder.vm.serial import LineClosedError, LineSilentError

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from builder.vm.serial import SerialLine

LOGIN = rb"(?<!Last) login: "
"""getty's prompt; a shell greets with "Last login: " and a date."""
PASSWORD = rb"[Pp]assword: ?"
REFUSED = rb"Login incorrect"
PROMPT = rb"[$#] (\x1b\[[0-9;?]*[a-zA-Z])*$"
TROUBLE = (
    (rb"Kernel panic - not syncing[^\r\n]*", "the kernel panicked"),
    (rb"grub rescue> ?$", "GRUB did not find its files on the disk"),
    (rb"\(initramfs\) ?$", "the root file system was not found"),
    (rb"You are in emergency mode[^\r\n]*", "systemd gave up and went into emergency mode"),
    (rb"No bootable device[^\r\n]*", "the firmware found nothing to boot"),
)
STARTING = (
    (
        rb"Please (?:unlock|enter passphrase for) disk[^\r\n]*|Enter passphrase for (?:hd\d|/dev/)[^\r\n]*",
        "its disk is encrypted, and the boot asks for the passphrase",
    ),
    (
        rb'BdsDxe: (?:No bootable option|starting Boot\w+ "EFI Internal Shell")[^\r\n]*',
        "the UEFI firmware found nothing to boot",
    ),
)
"""Trouble that is told from words which later may be anybody's."""
ANYTHING = rb"(?s)(?=.)"
"""The first byte, which is left where it is: it may begin words of trouble."""
LOGIN_TRIES = 5
QUIET = 0.5
"""Seconds between a question for the password and the answer: the echo is switched off after the question."""
NUDGE = 4.0
"""Seconds after which a shell that has not answered is spoken to again."""
TAIL = 20


@dataclass(frozen=True)
class Outcome:
    """What a command said, and its exit code."""

    code: int
    output: str


class RootShell:
    """A shell of root's on the serial line, reached as an ordinary user through sudo, that echoes nothing."""

    def __init__(self, line: SerialLine, *, user: str, password: str) -> None:
        self._line = line
        self._user = user
        self._password = password
        self._mark = secrets.token_hex(6)
        self._count = 0

    def log_in(self, *, first_seconds: float, boot_seconds: float, seconds: float) -> float:
        """Wait for the login prompt, log in, become root.

        The first byte may take ``first_seconds``: a disk that does not boot says nothing here. The prompt may
        take ``boot_seconds`` more.

        Returns how many seconds it took until the prompt. Raises InstallError if the system does not start,
        the password is refused or the user may not become root, StalledError if an answer takes longer than
        ``seconds``, MachineError if the machine ends.
        """
        begun = time.monotonic()
        self._wait([ANYTHING], first_seconds, "A single word from the disk's boot loader, kernel or system")
        self._wait([LOGIN], boot_seconds, "The login prompt", (*STARTING, *TROUBLE))
        waited = time.monotonic() - begun
        for _ in range(LOGIN_TRIES):
            self._line.send(self._user)
            self._wait([PASSWORD], seconds, "The question for the password")
            time.sleep(QUIET)
            self._line.send(self._password)
            answers = [PROMPT, REFUSED, LOGIN]
            found = self._nudged("", answers, seconds, "The shell after the login")
            if found == 0:
                break
            if found == 1:
                self._wait([LOGIN], seconds, "The next login prompt")
        else:
            raise InstallError(
                f"The login as {self._user} was refused {LOGIN_TRIES} times.",
                hint="Are the user and the password right? On a first boot cloud-init makes the user.",
                console=self._line.tail(TAIL),
            )
        self._become_root(seconds)
        return waited

    def _become_root(self, seconds: float) -> None:
        # The quotes within keep the terminal's echo of these lines from looking like their answers.
        asked, mark = f"ask-{self._mark}".encode(), self._mark
        self._line.send(
            f" export HISTFILE=; stty -echo; echo 'ask-''{mark}'; IFS= read -r secret; "
            '[ "$(id -u)" = 0 ] && exec env HISTFILE= PS1= PS2= LC_ALL=C.UTF-8 /bin/sh; '
            f"printf '%s\\n' \"$secret\" | sudo -S -p '' -v 2>&1 || echo 'no-''{mark}'; unset secret; "
            "exec sudo -n env HISTFILE= PS1= PS2= LC_ALL=C.UTF-8 /bin/sh"
        )
        self._wait([asked], seconds, "The shell")
        self._line.send(self._password)
        ready = [f"ready-{mark}".encode(), f"no-{mark}".encode()]
        if self._nudged(f"stty -echo; cd /; echo 'ready-''{mark}'", ready, seconds, "The root shell"):
            raise InstallError(
                f"The user {self._user} may not become root with sudo and this password; what the system is can only "
                "be seen by root.",
                hint="Use a user who may, or root itself.",
                console=self._line.tail(TAIL),
            )

    def _nudged(self, line: str, patterns: Sequence[bytes], seconds: float, what: str) -> int:
        """Wait for a pattern; type ``line`` again and again until one comes.

        Programs that change the terminal's mode throw away what was typed before, and a kernel message can
        stand behind a prompt.
        """
        clock = AwakeClock()
        while True:
            with contextlib.suppress(LineSilentError):
                return self._line.expect(patterns, min(NUDGE, seconds))[0]
            if clock.seconds() > seconds:
                raise StalledError(f"{what} did not come within {seconds:.0f} s.", console=self._line.tail(TAIL))
            self._line.send(line)

    def run(self, command: str, *, seconds: float) -> Outcome:
        """Run one line of shell as root, at most ``seconds``, with nothing to read; return its output and exit code.

        Raises StalledError with the last lines of its output if it does not end, MachineError if the machine does,
        InstallError if the kernel panics.
        """
        self._count += 1
        mark = f"{self._mark}-{self._count}"
        self._line.send(f"echo 'begin-''{mark}'; {{ {command}; }} < /dev/null 2>&1; echo 'end-''{mark}' $?")
        self._wait([rb"begin-" + mark.encode() + rb"\r*\n"], seconds, "The root shell")
        try:
            _, match, output = self._wait([rb"end-" + mark.encode() + rb" (\d+)\r*\n"], seconds, f"`{command}`")
        except StalledError as error:
            begun = [place for place, line in enumerate(error.console, 1) if line.endswith(f"begin-{mark}")]
            error.console = error.console[max(begun, default=0) :]
            raise
        return Outcome(int(match[1]), output)

    def must(self, argv: Sequence[str], *, seconds: float) -> str:
        """Run a command as root and return its output.

        Raises InstallError with its last words if it fails.
        """
        outcome = self.run(shlex.join(argv), seconds=seconds)
        if outcome.code:
            raise InstallError(
                f"In the guest, `{shlex.join(argv)}` failed with exit code {outcome.code}.",
                console=outcome.output.splitlines()[-TAIL:],
            )
        return outcome.output

    def power_off(self) -> None:
        """Ask the system to shut down; the machine's own word tells when it has."""
        self._line.send("exec systemctl poweroff")

    def _wait(
        self, patterns: Sequence[bytes], seconds: float, what: str, trouble: Sequence[tuple[bytes, str]] = TROUBLE
    ) -> tuple[int, re.Match[bytes], str]:
        try:
            found, match, before = self._line.expect([*patterns, *(words for words, _ in trouble)], seconds)
        except LineSilentError:
            message = f"{what} did not come within {seconds:.0f} s."
            raise StalledError(message, console=self._line.tail(TAIL)) from None
        except LineClosedError:
            message = f"The machine ended before this came: {what}."
            raise MachineError(message, console=self._line.tail(TAIL)) from None
        if found >= len(patterns):
            said = trouble[found - len(patterns)][1]
            raise InstallError(f"The system does not start: {said}.", console=self._line.tail(TAIL))
        return found, match, before
