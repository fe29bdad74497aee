"""Gets the logs of a failed installer through the shell it opens, where no error-command could save them.

Answers that cannot be read leave no error-commands, and nothing on the console but ``Press enter to start a shell``.
Behind it is root's own shell, on every release since 22.04.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from typing import TYPE_CHECKING

from builder.autoinstall.render import EVIDENCE
from builder.install.guestlogs import JOURNAL, READ
from builder.install.terminal import clean
from builder.vm.serial import LineClosedError, LineSilentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.vm.serial import SerialLine

NUDGE = 4.0
"""Seconds after which a shell that has not answered is spoken to again: what is typed too early is lost."""
LINES = 120
"""How much of each log is read aloud where the port for them is missing."""
LOOK: Mapping[str, str] = {
    "initramfs": "cat /proc/cmdline /proc/partitions; blkid; cat /casper.log; dmesg | tail -n 30",
    "emergency-shell": "systemctl --failed --no-pager; journalctl -b -p err --no-pager | tail -n 40",
}
"""What to look at in a shell that opened before the installer did."""


def rescue(line: SerialLine, port: Path, seconds: float) -> dict[str, str]:
    """Have the shell behind the error prompt save its logs through the virtio port that ends in the file ``port``.

    Without such a port they are read aloud, cut to their last lines. Returns those (texts by their path in the
    guest), or nothing if the file has them all, or nobody answers within ``seconds``. Never raises.
    """
    mark = secrets.token_hex(6)
    with contextlib.suppress(LineClosedError, LineSilentError):
        line.send("")
        _awaken(line, mark, seconds)
        line.send(f"{EVIDENCE}; echo 'saved-''{mark}'")
        line.expect([f"saved-{mark}".encode()], seconds)
        if not port.exists() or not port.stat().st_size:
            return _read_aloud(line, mark, seconds)
    return {}


def look(line: SerialLine, trigger: str, seconds: float) -> None:
    """Have an early shell say on the console what may have brought it up. Never raises."""
    mark = secrets.token_hex(6)
    with contextlib.suppress(LineClosedError, LineSilentError):
        line.send("")
        line.send(f"{LOOK[trigger]}; echo 'saved-''{mark}'")
        line.expect([f"saved-{mark}".encode()], seconds)


def _awaken(line: SerialLine, mark: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        line.send(f"stty -echo; echo 'ready-''{mark}'")
        try:
            line.expect([f"ready-{mark}".encode()], min(NUDGE, seconds))
        except LineSilentError:
            if time.monotonic() > end:
                raise
        else:
            return


def _read_aloud(line: SerialLine, mark: str, seconds: float) -> dict[str, str]:
    found = {}
    for number, path in enumerate(each for each in READ if each != JOURNAL):
        line.send(f"echo 'log-''{mark}-{number}'; tail -n {LINES} /{path} 2>/dev/null; echo 'end-''{mark}-{number}'")
        line.expect([f"log-{mark}-{number}\r*\n".encode()], seconds)
        _, _, text = line.expect([f"end-{mark}-{number}".encode()], seconds)
        if text.strip():
            found[path] = "\n".join(clean(each.encode()) for each in re.split(r"\r?\n", text))
    return found
