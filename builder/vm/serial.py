"""The guest's serial line, through pexpect: read what has come, wait for words, type. Every byte is kept."""

from __future__ import annotations

import contextlib
import re
import time
from typing import IO, TYPE_CHECKING, Any

from pexpect import EOF, TIMEOUT
from pexpect.socket_pexpect import SocketSpawn

from builder.vm.clock import patiently

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    _Base = SocketSpawn[bytes]
else:
    _Base = SocketSpawn

READ_AT_ONCE = 65536
WINDOW = 16384
"""How many of the last bytes are searched for words, and remembered for an error's last lines."""
PAUSE = 0.015
"""Seconds for which bytes are let come while they come slowly: 170 at 115200 baud."""
TOGETHER = 0.25
"""Seconds after which what came slowly is returned."""
FULL = 270
"""So many at once mean that more wait outside: the queue of a UNIX socket on Linux holds 277 bytes sent one by one."""
BURST = 0.03
"""Seconds for which nothing is waited for after so many came."""
ANYTHING = re.compile(rb"(?s).+")
WIPED = re.compile(r"\r +(?=\r)")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[^\[\]]|[\x00-\x08\x0b-\x1f\x7f]")


class LineClosedError(Exception):
    """The machine has gone, and its line with it."""


class LineSilentError(Exception):
    """What was waited for did not come in time."""


class _Spawn(_Base):
    """pexpect's socket, with every byte handed on: its own log files hear nothing of what a socket reads."""

    def __init__(self, end: socket.socket, take: Callable[[bytes], None]) -> None:
        super().__init__(end, timeout=None, maxread=READ_AT_ONCE, searchwindowsize=WINDOW, use_poll=True)
        self.delaybeforesend = self.delayafterread = None
        self._take = take

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> bytes:
        """Read as pexpect does, and hand on what came. Raises EOF, TIMEOUT."""
        try:
            data = super().read_nonblocking(size, timeout)
        except BlockingIOError as error:  # a timeout of exactly 0
            raise TIMEOUT("Nothing is there.") from error
        except ConnectionResetError as error:  # the other side went without having read what was typed
            self.flag_eof = True
            raise EOF("The line was reset.") from error
        self._take(data)
        return data


class SerialLine:
    """The serial line of a running machine.

    Every byte that comes is appended to ``record`` as it is, and handed to ``heard``.
    """

    def __init__(self, end: socket.socket, record: IO[bytes], heard: Callable[[bytes], None]) -> None:
        self._record = record
        self._heard = heard
        self._recent = bytearray()
        self._coming = False
        self._burst = 0.0
        self._spawn = _Spawn(end, self._take)

    def _take(self, data: bytes) -> None:
        self._recent += data
        if len(self._recent) > 2 * WINDOW:  # not at every byte that comes
            del self._recent[:-WINDOW]
        with contextlib.suppress(OSError):  # a full disk costs the record, and is told by who needs the disk
            self._record.write(data)
            self._record.flush()
        self._heard(data)

    def tail(self, lines: int = 20) -> list[str]:
        """Return the last lines heard, without control characters."""
        recent = bytes(self._recent[-WINDOW:])
        text = CONTROL.sub("", recent.decode("utf-8", "replace").replace("\r\n", "\n"))
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]

    def read(self, seconds: float) -> bytes:
        """Return all that has come, or what comes first within ``seconds``, which may be nothing.

        Where lines end is no matter: whoever wants lines from a fast console cuts them from larger pieces, for a
        search of pexpect's costs more than a line. While bytes come slowly, one by one as a UART gives them, they are
        let come for TOGETHER seconds, for to be woken for each costs more than the byte; never when many wait, for
        QEMU stops the guest's UART where nobody reads. Raises LineClosedError once the line is closed and all of it
        was returned.
        """
        slowly = self._coming and time.monotonic() >= self._burst
        data = self._gathered(seconds) if slowly else b""
        return data or self._noted(self._come(seconds))

    def _gathered(self, seconds: float) -> bytes:
        """Let bytes come slowly, and return them."""
        data = b""
        until = time.monotonic() + min(TOGETHER, seconds)
        while self._coming and time.monotonic() < until:
            time.sleep(min(PAUSE, seconds))
            try:
                piece = self._come(0)
            except LineClosedError:  # to be told by the next call
                break
            data += self._noted(piece)
            if len(piece) >= FULL:
                break
        return data

    def _noted(self, piece: bytes) -> bytes:
        """Remember how fast bytes come."""
        self._coming = bool(piece)
        if len(piece) >= FULL:
            self._burst = time.monotonic() + BURST
        return piece

    def _come(self, seconds: float) -> bytes:
        if self._spawn.buffer:
            self._spawn.expect(ANYTHING, timeout=0, searchwindowsize=None)
            return _taken(self._spawn.after)
        try:
            return self._spawn.read_nonblocking(READ_AT_ONCE, seconds)
        except TIMEOUT:
            return b""
        except EOF as error:
            raise LineClosedError from error

    def read_line(self, seconds: float) -> bytes:
        """Return the next line with its end, or, if none ends within ``seconds``, whatever has come of it.

        Raises LineClosedError once the line is closed and all of it was returned.
        """
        found = self._spawn.expect([rb"[^\n]*\n", EOF, TIMEOUT], timeout=seconds, searchwindowsize=None)
        if found == 0:
            return _taken(self._spawn.after)
        if found == 1:
            rest = _taken(self._spawn.before)
            self._spawn.before = b""
            if rest:
                return rest
            raise LineClosedError
        if not self._spawn.buffer:
            return b""
        self._spawn.expect(rb"(?s).+")  # matches what is there already, so nothing is waited for
        return _taken(self._spawn.after)

    def expect(self, patterns: Sequence[bytes], seconds: float) -> tuple[int, re.Match[bytes], str]:
        """Wait up to ``seconds``, in which prebake is awake, for one of the regular expressions.

        Returns its place, its match and the text before it. Raises LineSilentError, LineClosedError.
        """
        known: list[Any] = [*patterns, EOF, TIMEOUT]
        found = len(patterns) + 1

        def look(slice_: float) -> bool:
            nonlocal found
            found = self._spawn.expect(known, timeout=slice_)
            return found <= len(patterns)

        patiently(look, seconds)
        match = self._spawn.match
        if found < len(patterns) and isinstance(match, re.Match):
            before = _taken(self._spawn.before)
            return int(found), match, shown(before)
        raise LineClosedError if found == len(patterns) else LineSilentError

    def send(self, line: str) -> None:
        """Type a line. A machine that has gone is told to whoever waits for its answer."""
        with contextlib.suppress(ConnectionError):
            self._spawn.sendline(line.encode())


def _taken(value: object) -> bytes:
    """Return the bytes that pexpect holds; it puts a marker class there when there are none."""
    return value if isinstance(value, bytes) else b""


def shown(data: bytes) -> str:
    """Return what a terminal would be left with, as lines: without carriage returns, and without what they wiped.

    systemd wipes its turning bar ("A start job is running") by as many blanks, wherever other output stands.
    """
    return WIPED.sub("", data.decode("utf-8", "replace")).replace("\r", "")
