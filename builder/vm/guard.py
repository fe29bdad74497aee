"""A watchdog: ends a process if prebake is killed, where the kernel cannot be asked to.

It is a program of its own, run by path and without anything but the standard library. Its standard input is a pipe
whose other end only prebake holds. A number in it is the process to end; "bye" says that all is well. The pipe's
end without that word means that prebake is no more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

BYE = b"bye"
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def main() -> None:
    """Read the pipe to its end, or to the word; then end the process if it is to be ended."""
    target = handle = None
    while line := sys.stdin.buffer.readline().strip():
        if line == BYE:
            return
        target = int(line)
        with contextlib.suppress(AttributeError, OSError):  # only Linux has it
            handle = os.pidfd_open(target)
    if target is not None:
        with contextlib.suppress(OSError):
            end(target, handle)


def end(target: int, handle: int | None) -> None:
    """Kill ``target``, by the ``handle`` that was taken when it was alive if there is one.

    Without one a process that has got its number meanwhile is told from it by leading no session. Raises OSError if
    it is gone.
    """
    if handle is not None:
        signal.pidfd_send_signal(handle, KILL)
    elif not hasattr(os, "getsid") or os.getsid(target) == target:
        os.kill(target, KILL)


if __name__ == "__main__":
    main()
