"""Programs that live on by themselves, but never longer than prebake, however that ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from builder import command
from builder.errors import HostError
from builder.vm import guard

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 5.0
"""Seconds that a watchdog has to leave; it takes a few milliseconds."""


class Bound:
    """A program started by ``argv`` that is killed if prebake is: by the kernel, or else by a watchdog.

    On Linux it ends with the thread that makes this, so that thread must live as long as it is wanted. Whoever makes
    it calls `release` once it has ended. ``pass_fds`` are open files that the program gets. Making it raises
    HostError if the program is not installed.
    """

    def __init__(
        self, argv: Sequence[str], *, stdout: IO[bytes] | int, stderr: IO[bytes] | int, pass_fds: Sequence[int] = ()
    ) -> None:
        self.watchdog = None if command.dies_with_parent() else _watchdog()
        try:
            self.process = command.spawn(argv, stdout=stdout, stderr=stderr, pass_fds=pass_fds)
            self._say(b"%d" % self.process.pid)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Send the watchdog home; calling it again does nothing."""
        watchdog, self.watchdog = self.watchdog, None
        if watchdog is None or watchdog.stdin is None:
            return
        with contextlib.suppress(OSError):
            watchdog.stdin.write(guard.BYE + b"\n")
            watchdog.stdin.close()
        try:
            watchdog.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            watchdog.kill()
            watchdog.wait(PATIENCE)

    def _say(self, word: bytes) -> None:
        if self.watchdog is not None and self.watchdog.stdin is not None:
            with contextlib.suppress(OSError):  # the watchdog itself was killed; the program is not to blame
                self.watchdog.stdin.write(word + b"\n")
                self.watchdog.stdin.flush()


def _watchdog() -> subprocess.Popen[bytes] | None:
    """Start the watchdog, its input a pipe that no other program gets; None where there is no Python to run it."""
    if not sys.executable:
        return None
    try:
        return command.spawn((sys.executable, "-I", "-S", str(Path(guard.__file__))), stdin=subprocess.PIPE)
    except (HostError, OSError):
        return None
