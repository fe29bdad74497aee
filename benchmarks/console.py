"""What the serial console costs: `python -m benchmarks.console [--megabytes 100] [--seconds 20]`.

Throughput: a console like an installer's, made on the spot, through the grammar alone, through the whole state of an
install, and through a socket, pexpect and the state, as prebake reads it; with it, by how much memory grows. Share of a
processor: a Watch over a stand-in machine whose console comes byte by byte at the speed of a serial line (115200
baud, 11520 bytes a second); what sends it is another process. Figures of processor time; compare them within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.figures import say
from builder.errors import InstallError
from builder.events import silent
from builder.install.console import ConsoleParser
from builder.install.patience import patience
from builder.install.record import Record
from builder.install.site import Site
from builder.install.state import InstallState
from builder.install.watch import Watch
from builder.vm.serial import LineClosedError, SerialLine
from builder.vm.state import RUNNING, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.vm.machine import Machine

PIECE = 1 << 16
BAUD = 11_520
"""Bytes a second at 115200 baud: a start bit, eight of data, a stop bit."""
TICKS = 500
TOKEN = "0123456789abcdef"  # noqa: S105 - of no install
STEP = "subiquity/Install/install/curtin_install/run_curtin_step/cmd-install/stage-curthooks/builtin/cmd-curthooks"


def console(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of console in pieces."""
    lines = []
    for at in range(400):
        name = f"part-{at}"
        lines += [
            f"[{at:5}.{at * 7919 % 1_000_000:06}] usb 1-{at}: New USB device found, idVendor=0627, idProduct={at:04}",
            f"[{at:5}.{at * 104729 % 1_000_000:06}] systemd[1]: Mounted {name}.mount - A file system of the {name}.",
            f"         Starting \x1b[0;1;39m{name}.service\x1b[0m - A service called {name}...",
            f"[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39m{name}.service\x1b[0m - A service called {name}.",
            f"start:        {STEP}/{name}: doing what {name} wants",
            f"finish:        {STEP}/{name}: doing what {name} wants",
            f"start: subiquity/Network/_send_update: CHANGE ens{at}",
            f"connecting...  {chr(8)}-{chr(8)}\\{chr(8)}|{chr(8)}/ {name}",
        ]
    block = "".join(line + "\r\n" for line in lines).encode()
    sent = 0
    while sent < size:
        for start in range(0, len(block), PIECE):
            piece = block[start : min(start + PIECE, start + size - sent)]
            yield piece
            sent += len(piece)


def speed(size: int, take: Callable[[bytes], object]) -> float:
    """Return how many MB of a second of processor time ``take`` takes."""
    pieces = list(itertools.islice(itertools.cycle(console(1 << 22)), size // PIECE))
    begun = time.process_time()
    for piece in pieces:
        take(piece)
    return sum(map(len, pieces)) / 1e6 / (time.process_time() - begun)


def flood(end: socket.socket, size: int) -> None:
    """Send a console as fast as it is taken."""
    for piece in console(size):
        end.sendall(piece)
    end.close()


def pace(end: socket.socket, size: int) -> None:
    """Send a console byte by byte, as a UART does, at the speed of a serial line."""
    data = b"".join(console(size))
    begun = time.monotonic()
    sent = 0
    while sent < size:
        due = min(size, int((time.monotonic() - begun) * BAUD))
        for at in range(sent, due):
            end.send(data[at : at + 1])
        sent = max(sent, due)
        time.sleep(1 / TICKS)
    end.close()


def received(send: Callable[[socket.socket, int], None], size: int, take: Callable[[socket.socket], None]) -> float:
    """Let another process ``send`` so many bytes and ``take`` them; return the seconds of processor time it took."""
    ours, theirs = socket.socketpair()
    process = multiprocessing.get_context("fork").Process(target=send, args=(theirs, size))
    process.start()
    theirs.close()
    begun = time.process_time()
    take(ours)
    used = time.process_time() - begun
    process.join()
    ours.close()
    return used


def through(read: Callable[[SerialLine], bytes]) -> Callable[[socket.socket], None]:
    """Return a function that reads a socket's console to its end, through pexpect and the state of an install."""

    def take(ours: socket.socket) -> None:
        line, state = SerialLine(ours, _Nowhere(), lambda _data: None), InstallState(TOKEN)
        try:
            while True:
                state.feed(read(line), 1.0)
        except LineClosedError:
            return

    return take


class _Nowhere(io.BytesIO):
    """A record that keeps nothing."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever has bytes
        return len(data)


class _Running:
    """Stands for a machine that runs until its line is closed."""

    def poll(self) -> State:
        return RUNNING

    def wait_shutdown(self, _seconds: float) -> State:
        return State("shutdown", reason="guest-shutdown")

    def stderr_text(self) -> str:
        return ""


def watched(ours: socket.socket) -> None:
    """Watch a console to its end, as an install is watched."""
    line = SerialLine(ours, _Nowhere(), lambda _data: None)
    with contextlib.suppress(InstallError), tempfile.TemporaryDirectory() as name, Record(Path(name)) as record:
        site = Site(Path(name), Path(name), patience(12.0), silent)
        Watch(cast("Machine", cast("Any", _Running())), line, TOKEN, site, record).run()


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="through pexpect; a fifth through the others")
    parser.add_argument("--seconds", type=float, default=20, help="how long to watch at serial speed")
    given = parser.parse_args()
    size = given.megabytes * 1_000_000
    received(flood, 2_000_000, through(lambda line: line.read(5)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = received(flood, size, through(lambda line: line.read(5)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    say(f"{'socket, pexpect, state':40}{size / 1e6 / used:8.1f} MB/s")
    say(f"{f'memory grew over {given.megabytes} MB by':40}{grown:8.1f} MB")
    used = received(flood, size // 5, through(lambda line: line.read_line(5)))
    say(f"{'the same, line by line':40}{size / 5e6 / used:8.1f} MB/s")
    say(f"{'grammar alone':40}{speed(size // 5, ConsoleParser().feed):8.1f} MB/s")
    say(f"{'state of an install':40}{speed(size // 5, InstallState(TOKEN).feed):8.1f} MB/s")
    used = received(pace, int(given.seconds * BAUD), watched)
    say(f"{'Watch at serial speed, of a processor':40}{100 * used / given.seconds:8.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
