"""A virtual machine while it runs: QEMU, its monitor and its serial line, and their certain end."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder import command
from builder.errors import HostError, MachineError
from builder.interrupts import held
from builder.leftovers import scratch
from builder.vm import qemu
from builder.vm.bound import Bound
from builder.vm.clock import AwakeClock, patiently
from builder.vm.qmp import ANSWER_SECONDS, Event, Monitor
from builder.vm.state import RUNNING, State, after

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from builder.vm.qemu import MachineSpec

START_SECONDS = 60.0
"""How long QEMU may take to open its sockets; it takes a tenth of a second on a quiet host."""

QUIT_SECONDS = 120.0
"""How long QEMU may take to end when asked: it writes what it still holds of the disks first."""

HASTY_SECONDS = 5.0
"""The same when something has failed and nobody wants the disks."""

DUMP_SECONDS = 15.0
"""How long QEMU may take to write down the screen."""

SOCKET_PATH = 100
"""Bytes that the path of a UNIX socket may have: the systems' limits are 104 (macOS) and 108 (Linux)."""

EVENTS_KEPT = 1000

HINTS: Mapping[str, str] = {
    r"Cannot allocate memory|cannot set up guest memory": "Give the machine less memory, or close other programs.",
    r'Failed to get (?:shared )?"\w+" lock': "Another program uses this image: end it first.",
    r"No space left on device": "Make room on this disk.",
    r"failed to initialize|Could not access KVM": "`prebake doctor` says which accelerators work here.",
    r"invalid accelerator|-action": "QEMU 6.0 or newer is needed, built with this accelerator.",
}
"""What helps, by what QEMU says."""


class Machine:
    """A context manager that runs the machine ``spec`` describes; leaving it ends QEMU and leaves no trace.

    QEMU's sockets are in a private folder of the machine's own, so ``spec.serial`` and ``spec.qmp`` are set
    here. On entry the guest starts. Entering raises MachineError, with QEMU's words, if QEMU does not start,
    and HostError if it is not installed.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.argv: tuple[str, ...] = ()
        self._lent = contextlib.ExitStack()
        self._folder: Path | None = None
        self._bound: Bound | None = None
        self._monitor: Monitor | None = None
        self._serial: socket.socket | None = None
        self._stderr = ""
        self._state = RUNNING
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end(HASTY_SECONDS)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(QUIT_SECONDS if kind is None else HASTY_SECONDS)

    @property
    def serial(self) -> socket.socket:
        """The connected socket of the guest's first serial line, from the first byte on.

        Read it steadily: a guest whose line nobody reads waits, and then loses text. QEMU's end is its end.
        """
        if self._serial is None:
            raise MachineError("The machine is not running, so it has no serial line.")
        return self._serial

    @property
    def _process(self) -> subprocess.Popen[bytes] | None:
        return None if self._bound is None else self._bound.process

    @property
    def pid(self) -> int | None:
        """QEMU's process id, or None if it was not started."""
        return None if self._process is None else self._process.pid

    @property
    def events(self) -> tuple[Event, ...]:
        """The last events QEMU sent, oldest first, as the protocol has them."""
        with self._changed:
            return tuple(self._events)

    def stderr_text(self) -> str:
        """Return what QEMU has written to its standard error so far, also after its end."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._stderr = Path(self._folder, "stderr").read_text("utf-8", "replace")
        return self._stderr

    def poll(self) -> State:
        """Return what the machine is doing now."""
        code = None if self._process is None else self._process.poll()
        with self._changed:
            state = self._state
        return state if code is None else State("exited", reason=state.reason, code=code)

    def wait_shutdown(self, timeout: float | None = None) -> State:
        """Wait until the machine no longer runs, or for ``timeout`` seconds; return what it is doing then."""
        clock = AwakeClock()
        while (state := self.poll()).running:
            left = 0.2 if timeout is None else min(0.2, timeout - clock.seconds())
            if left <= 0:
                break
            with self._changed:
                if self._state.running:
                    self._changed.wait(left)
        return state

    def execute(
        self, name: str, arguments: Mapping[str, object] | None = None, *, timeout: float = ANSWER_SECONDS
    ) -> object:
        """Run a QMP command and return its answer, which may take ``timeout`` seconds.

        Raises MachineError if QEMU refuses it, does not answer or is gone.
        """
        if self._monitor is None:
            raise MachineError("The machine is not running, so it takes no commands.")
        return self._monitor.execute(name, arguments, timeout=timeout)

    def resume(self) -> None:
        """Let a guest go on that was paused by a disk error, once its cause is gone."""
        self.execute("cont")

    def screendump(self, path: Path) -> Path:
        """Write the guest's screen to ``path`` as PNG and return it.

        A QEMU older than 7.1, or built without PNG, writes a PPM image beside it and that path is returned.
        Raises MachineError if there is no screen or the file cannot be written.
        """
        path = path.absolute()
        try:
            self.execute("screendump", {"filename": str(path), "format": "png"}, timeout=DUMP_SECONDS)
        except MachineError:
            path = path.with_suffix(".ppm")
            self.execute("screendump", {"filename": str(path)}, timeout=DUMP_SECONDS)
        return path

    def send_keys(self, *chords: str) -> None:
        """Press keys one chord after another, each QEMU key names joined by hyphens: "ctrl-alt-f2", "ret"."""
        for chord in chords:
            keys = [{"type": "qcode", "data": key} for key in chord.split("-")]
            self.execute("send-key", {"keys": keys})

    def quit(self) -> State:
        """End QEMU, which first writes what it holds of the disks; return the state with its exit code.

        Calling it again, or leaving the context afterwards, does nothing more.
        """
        self._end(QUIT_SECONDS)
        return self.poll()

    def _start(self) -> None:
        self._folder = self._lent.enter_context(scratch(_base(), "prebake-", f"the sockets of {self.spec.name}"))
        spec = replace(self.spec, serial=self._folder / "serial", qmp=self._folder / "qmp")
        self.argv = qemu.argv(spec)
        program = command.find(self.argv[0])
        self._monitor = Monitor(spec.name, self._note)
        self._monitor.call(lambda: self._launch((program, *self.argv[1:])))
        clock = AwakeClock()
        monitor_end = self._connect(self._folder / "qmp", clock)
        try:
            self._monitor.connect(monitor_end)
            self._serial = self._connect(self._folder / "serial", clock)
            self._monitor.execute("cont")
        except MachineError as error:
            raise self._failure(error.message) from error

    def _launch(self, argv: tuple[str, ...]) -> None:
        if self._folder is not None:
            with Path(self._folder, "stderr").open("wb") as errors:
                self._bound = Bound(argv, stdout=errors, stderr=errors)

    def _connect(self, path: Path, clock: AwakeClock) -> socket.socket:
        while True:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                end.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                end.close()
            except BaseException:
                end.close()
                raise
            else:
                return end
            if self._process is None or self._process.poll() is not None:
                raise self._failure("It is not there.")
            if clock.seconds() > START_SECONDS:
                raise self._failure(f"It did not open {path.name} within {START_SECONDS:g} s.")
            time.sleep(0.01)

    def _failure(self, what: str) -> MachineError:
        """Return the error to raise: what happened, QEMU's exit code and words, and its command line."""
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1)
        if code is not None:
            what = "It ended before the machine ran."
        words = self.stderr_text().strip()
        lines = [f"QEMU could not run the machine `{self.spec.name}`. {what}"]
        if code is not None:
            lines[0] += f" Its exit code is {code}." if code >= 0 else f" {signal.Signals(-code).name} killed it."
        if words:
            lines += ["It says:", *(f"    {line}" for line in words.splitlines()[-command.TAIL_LINES :])]
        lines += ["The command was:", f"    {shlex.join(self.argv)}"]
        hint = next((hint for pattern, hint in HINTS.items() if re.search(pattern, words)), None)
        return MachineError("\n".join(lines), hint=hint)

    def _note(self, event: Event | None) -> None:
        """Take an event from the monitor's thread; None is the end of the connection."""
        with self._changed:
            if event is not None:
                self._events.append(event)
                self._state = self._with_path(after(self._state, event))
            self._changed.notify_all()

    def _with_path(self, state: State) -> State:
        for number, disk in enumerate(self.spec.disks):
            if state.device == qemu.node_name(number):
                return replace(state, device=str(disk.path))
        return state

    def _end(self, patience: float) -> None:
        """End QEMU within ``patience`` seconds or kill it, reap it, and remove what it leaves.

        A signal meanwhile has it killed at once, and is raised when all is done.
        """
        try:
            with held(self._kill):
                self._stop(patience)
                self._clear()
        except BaseException:
            with held():
                self._stop(0)
                self._clear()
            raise

    def _clear(self) -> None:
        self.stderr_text()
        if self._serial is not None:
            self._serial.close()
        if self._monitor is not None:
            self._monitor.close()
        if self._bound is not None:
            self._bound.release()
        self._lent.close()
        self._folder = None

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _stop(self, patience: float) -> None:
        if self._monitor is not None and self._process is None:
            with contextlib.suppress(MachineError):
                self._monitor.call(lambda: None)  # a start that was interrupted may still be under way
        process = self._process
        if process is None or process.poll() is not None:
            return
        if patience and self._monitor is not None:
            with contextlib.suppress(MachineError):
                self._monitor.execute("quit", timeout=patience)
            patiently(self._ended, patience)
        for stop in (process.terminate, process.kill) if patience else (process.kill,):
            if process.poll() is None:
                stop()
                patiently(self._ended, HASTY_SECONDS)

    def _ended(self, seconds: float) -> bool:
        """Wait for QEMU's end for so many seconds; say whether it has ended."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        return self._process is None or self._process.returncode is not None


def _base() -> Path:
    """Return the folder for private folders whose path is short enough for UNIX sockets in them."""
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - the name of what is made there is unguessable
        if len(os.fsencode(base)) + len("/prebake-12345678/serial") <= SOCKET_PATH and os.access(base, os.W_OK):
            return Path(base)
    raise HostError(
        f"The folder for temporary files, {tempfile.gettempdir()}, has too long a path for UNIX sockets.",
        hint="Set TMPDIR to a folder with a shorter path.",
    )
