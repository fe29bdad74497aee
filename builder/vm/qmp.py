"""QEMU's monitor protocol for code that is not asynchronous: one thread runs the event loop of qemu.qmp.

The thread also starts the process it talks to, because Linux counts the thread that started a process as its
parent: a process that asked to die with its parent then lives as long as this thread, whoever made it.

Seconds in which prebake did not run are nobody's: after a pause there is time to answer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from typing import TYPE_CHECKING, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError
from qemu.qmp.protocol import Runstate

from builder.errors import MachineError
from builder.vm.clock import patiently

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping

T = TypeVar("T")
Event = dict[str, object]

ANSWER_SECONDS = 60.0
"""How long QEMU may take to answer a command; on a busy host under emulation seconds happen."""

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False  # whatever matters comes as an exception as well


class Monitor:
    """A connection to a QMP socket, and the thread that serves it.

    ``on_event`` is called in that thread with each event QEMU sends, as the protocol has it (keys "event",
    "data", "timestamp"), and with None when the connection ends.
    """

    def __init__(self, name: str, on_event: Callable[[Event | None], None]) -> None:
        self._on_event = on_event
        self._client = QMPClient(name)
        self._watcher: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"qmp-{name}", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the monitor's thread and return what it returns, or raise what it raises."""

        async def call() -> T:
            return function()

        return self._run(call(), ANSWER_SECONDS)

    def connect(self, connection: socket.socket) -> None:
        """Greet the QMP server at the other end of a connected socket. Raises MachineError if that fails."""
        self._guard("the greeting", self._connect(connection), ANSWER_SECONDS)

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = ANSWER_SECONDS
    ) -> object:
        """Run a QMP command and return its answer.

        Raises MachineError, with QEMU's words, if QEMU refuses it, does not answer within ``timeout``
        seconds, or is gone.
        """
        return self._guard(f"`{command}`", self._client.execute(command, arguments), timeout)

    def close(self) -> None:
        """End the connection and the thread. Calling it again does nothing."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._disconnect(), ANSWER_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _connect(self, connection: socket.socket) -> None:
        await self._client.connect(connection)
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        events = asyncio.create_task(self._forward())
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        events.cancel()
        await asyncio.gather(events, return_exceptions=True)
        for message in self._client.events.clear():
            self._on_event(dict(message))
        self._on_event(None)

    async def _forward(self) -> None:
        async for message in self._client.events:
            self._on_event(dict(message))

    async def _disconnect(self) -> None:
        if self._client.runstate is not Runstate.IDLE:
            await asyncio.gather(self._client.disconnect(), return_exceptions=True)
        if self._watcher is not None:
            await self._watcher

    def _guard(self, what: str, work: Coroutine[object, object, T], timeout: float) -> T:
        try:
            return self._run(work, timeout)
        except ExecuteError as error:
            raise MachineError(f"QEMU refused {what}: {error}") from error
        except concurrent.futures.TimeoutError as error:  # an OSError too, so it comes before those
            raise MachineError(f"QEMU did not answer {what} within {timeout:g} s.") from error
        except (QMPError, EOFError, OSError) as error:
            raise MachineError(f"QEMU is gone, so {what} cannot be done: {error}") from error

    def _run(self, work: Coroutine[object, object, T], timeout: float) -> T:
        if self._loop.is_closed():
            work.close()
            raise MachineError("QEMU is gone: its monitor is closed.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            patiently(lambda seconds: bool(concurrent.futures.wait([future], seconds).done), timeout)
            return future.result(0)
        except BaseException:
            future.cancel()
            raise
