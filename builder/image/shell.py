"""A root shell on the guest's serial console: log in, run commands, read what they say. No SSH, no agent."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from pexpect import EOF, TIMEOUT
from pexpect.socket_pexpect import SocketSpawn

from builder.errors import InstallError, MachineError, StalledError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

LOGIN = rb"[\w.-]+ login: $"
PASSWORD = rb"[Pp]assword: ?$"
REFUSED = rb"Login incorrect"
PROMPT = rb"[$#] (\x1b\[[0-9;?]*[a-zA-Z])*$"
TROUBLE = (
    (rb"Kernel panic - not syncing[^\r\n]*", "the kernel panicked"),
    (rb"grub rescue> ?$", "GRUB did not find its files on the disk"),
    (rb"\(initramfs\) ?$", "the root file system was not found"),
    (rb"You are in emergency mode[^\r\n]*", "systemd gave up and went into emergency mode"),
    (rb"No bootable device[^\r\n]*", "the firmware found nothing to boot"),
)
LOGIN_TRIES = 5
TAIL = 20


@dataclass(frozen=True)
class Outcome:
    """What a command said, and its exit code."""

    code: int
    output: str


class Console:
    """The serial line as pexpect sees it; every byte also goes to ``record`` and, one by one, to ``heard``."""

    def __init__(self, line: socket.socket, record: IO[bytes], heard: Callable[[bytes], None]) -> None:
        self._recent = b""
        self._record = record
        self._heard = heard
        self.spawn: SocketSpawn[bytes] = SocketSpawn(line, timeout=None, maxread=65536)
        self.spawn.logfile_read = self

    def write(self, data: bytes) -> None:
        """Take what pexpect has just read."""
        self._recent = (self._recent + data)[-16384:]
        self._record.write(data)
        self._heard(data)

    def flush(self) -> None:
        """Bring the record to the disk."""
        self._record.flush()

    def tail(self) -> list[str]:
        """Return the last lines of the console, without control characters."""
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[\x00-\x08\x0b-\x1f]", "", self._recent.decode("utf-8", "replace"))
        return [line for line in text.splitlines() if line.strip()][-TAIL:]

    def expect(self, patterns: Sequence[bytes | type[Any]], seconds: float) -> int:
        """Wait for one of the patterns; return which.

        Raises StalledError after ``seconds`` without one, MachineError if the machine has gone, InstallError
        at the words of a system that cannot start.
        """
        known: list[Any] = [*patterns, *(pattern for pattern, _ in TROUBLE), EOF, TIMEOUT]
        found = self.spawn.expect(known, timeout=seconds)
        if found < len(patterns):
            return int(found)
        trouble = found - len(patterns)
        if trouble < len(TROUBLE):
            raise InstallError(f"The system did not start: {TROUBLE[trouble][1]}.", console=self.tail())
        if trouble == len(TROUBLE):
            raise MachineError("The virtual machine ended while its console was being used.", console=self.tail())
        raise StalledError(f"The console did not answer within {seconds:.0f} s.", console=self.tail())

    def send(self, line: str) -> None:
        """Type a line."""
        self.spawn.sendline(line.encode())


class RootShell:
    """A shell of root's, reached as an ordinary user through sudo, that echoes nothing."""

    def __init__(self, console: Console, password: str) -> None:
        self._console = console
        self._password = password
        self._mark = secrets.token_hex(6)
        self._count = 0

    def log_in(self, user: str, *, boot_seconds: float, seconds: float) -> float:
        """Wait up to ``boot_seconds`` for the login prompt, log in, become root.

        Returns how many seconds it took until the prompt. Raises InstallError if the password is refused or
        the user may not become root, StalledError if an answer takes longer than ``seconds``.
        """
        begun = time.monotonic()
        self._console.expect([LOGIN], boot_seconds)
        waited = time.monotonic() - begun
        for _ in range(LOGIN_TRIES):
            self._console.send(user)
            self._console.expect([PASSWORD], seconds)
            self._console.send(self._password)
            if self._console.expect([PROMPT, REFUSED], seconds) == 0:
                break
            self._console.expect([LOGIN], seconds)
        else:
            raise InstallError(
                f"The login as {user} was refused {LOGIN_TRIES} times.",
                hint="Is it the right user and password? On the first boot cloud-init makes the user; its log tells.",
                console=self._console.tail(),
            )
        self._become_root(user, seconds)
        return waited

    def _become_root(self, user: str, seconds: float) -> None:
        asked = f"sudo-{self._mark}:"
        # The quotes keep the terminal's echo of this line from looking like its answer.
        self._console.send(
            f" export HISTFILE=; exec sudo -p 'sudo-''{self._mark}:' env HISTFILE= PS1= PS2= LC_ALL=C.UTF-8 /bin/sh"
        )
        ready = f"ready-{self._mark}".encode()
        if self._console.expect([re.escape(asked.encode()), rb"not in the sudoers", rb"# $"], seconds) == 1:
            raise InstallError(f"The user {user} may not become root.", console=self._console.tail())
        self._console.send(self._password)
        self._console.send(f"stty -echo; cd /; echo 'ready-''{self._mark}'")
        self._console.expect([ready], seconds)

    def run(self, command: str, *, seconds: float) -> Outcome:
        """Run one line of shell as root, at most ``seconds``; return its output and exit code."""
        self._count += 1
        mark = f"{self._mark}-{self._count}"
        self._console.send(f"echo 'begin-''{mark}'; {{ {command}; }} < /dev/null; echo 'end-''{mark}' $?")
        self._console.expect([rb"begin-" + mark.encode() + rb"\r*\n"], seconds)
        self._console.expect([rb"end-" + mark.encode() + rb" (\d+)\r*\n"], seconds)
        match = self._console.spawn.match
        if not isinstance(match, re.Match) or self._console.spawn.before is None:
            raise MachineError("The console lost its place.", console=self._console.tail())
        output = self._console.spawn.before.decode("utf-8", "replace").replace("\r", "")
        return Outcome(int(match[1]), output)

    def must(self, argv: Sequence[str], *, seconds: float) -> str:
        """Run a command as root and return its output.

        Raises InstallError if it fails.
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
        self._console.send("exec systemctl poweroff")
