"""Signals that ask prebake to stop, as KeyboardInterrupt: once, and never in the middle of what must be done."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a request to end, the terminal's end; Windows has no SIGHUP."""
CODE = 130
"""The exit code of whoever was interrupted, as in a shell."""
BOUNCE = 1.0
"""Seconds after a signal in which another says nothing new: a finger that shook, a session that sends two kinds."""


class _Interrupt:
    """A handler that raises KeyboardInterrupt, at most once in `BOUNCE` seconds."""

    def __init__(self) -> None:
        self._last = -BOUNCE

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= BOUNCE:
            self._last = now
            raise KeyboardInterrupt


def leave() -> None:
    """Let each of the signals end the process at once and without a word: nothing has been begun."""
    _handle(lambda _number, _frame: os._exit(CODE))


def listen() -> None:
    """Let each of the signals raise KeyboardInterrupt from now on, but for those that whoever started us ignores."""
    _handle(_Interrupt())


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asked for that
            signal.signal(number, handler)


def ignore() -> None:
    """Hear none of the signals any more: prebake has been asked to end and does."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held(hurry: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the signals back while something is done that must not be left half-way.

    Each calls ``hurry`` at once, in the main thread; raises KeyboardInterrupt at the end if any came. In other
    threads, where no signal is heard, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {}

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        hurry()

    try:
        for number in NUMBERS:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
