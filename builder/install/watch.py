"""Watches one install until the machine goes down, and says how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from builder.errors import HostError, InstallError, MachineError, StalledError
from builder.events import Phase
from builder.install.state import InstallState
from builder.vm.serial import LineClosedError

if TYPE_CHECKING:
    from pathlib import Path

    from builder.errors import PrebakeError
    from builder.events import Reporter
    from builder.install.patience import Patience
    from builder.install.verdict import Verdict
    from builder.vm.machine import Machine
    from builder.vm.serial import SerialLine
    from builder.vm.state import State

TICK = 0.5
SETTLE = 3.0
"""How long a question must stand on the console before it counts as asked and unanswered."""
GRACE = 30.0
"""How long a failed install may take to put itself off; it has saved its logs by then."""
LONG = {"packages": 3, "updates": 3}
"""Phases that fetch from the network and say nothing meanwhile: how many times the usual silence they get."""
ENDING = 10.0
"""How long QEMU may take to say why its serial line was closed."""
ENDED = ("guest-shutdown", "guest-reset")


class Watch:
    """Reads the console of one install and decides when it is over."""

    def __init__(self, machine: Machine, line: SerialLine, token: str, limits: Patience, report: Reporter) -> None:
        self._machine = machine
        self._line = line
        self._limits = limits
        self._report = report
        self.state = InstallState(token)
        self._begun = time.monotonic()
        self._since: float | None = None
        self._shown = ("", "")

    def run(self) -> Verdict:
        """Watch until the install is over; return the verdict of one that succeeded.

        Raises InstallError if the installer failed, StalledError if it asks, hangs or takes too long,
        MachineError if QEMU died, HostError if the host's disk is full.
        """
        while True:
            try:
                data = self._line.read_line(TICK)
            except LineClosedError:
                break
            self.state.feed(data, time.monotonic())
            self._show()
            machine = self._machine.poll()
            if not machine.running and not data:
                break
            if machine.running:
                self._check()
        return self._conclude(self._machine.wait_shutdown(ENDING))

    def _show(self) -> None:
        phase = self.state.phase
        if phase is not None and (phase.name, self.state.step or "") != self._shown:
            self._shown = (phase.name, self.state.step or "")
            self._report(Phase(phase.name, self.state.step or phase.title, self.state.progress))

    def _check(self) -> None:
        """Raise if the install is known to have failed or to hang."""
        now = time.monotonic()
        verdict = self.state.verdict()
        if verdict.verdict in {"failure", "stalled"} and (verdict.final or verdict.verdict == "stalled"):
            self._since = self._since or now
            if now - self._since > (GRACE if self._switching_off() else SETTLE):
                raise failed(verdict)
        else:
            self._since = None
        heard = self.state.last_output
        silent = now - (self._begun if heard is None else heard)
        limit = self._limits.first if heard is None else self._limits.silence * LONG.get(verdict.phase or "", 1)
        if silent > limit:
            what = "Nothing at all came" if heard is None else "Nothing more came"
            raise StalledError(
                f"{what} from the guest's serial console for {silent:.0f} s"
                + (f", in the phase: {self._shown[1] or verdict.phase}." if heard is not None else "."),
                hint="Does the medium's boot menu use this serial port? A longer wait: --stall-timeout.",
                console=verdict.lines,
            )
        if now - self._begun > self._limits.install:
            raise StalledError(
                f"The install was not done within {self._limits.install:.0f} s.",
                hint="A longer wait: --timeout. `prebake doctor` says whether this host can be faster.",
                console=verdict.lines,
            )

    def _switching_off(self) -> bool:
        """Whether the failed installer has said its last word and only the power-off is missing."""
        return any("prebake-sentinel:failed" in line for line in self.state.lines)

    def _conclude(self, machine: State) -> Verdict:
        verdict = self.state.verdict()
        if machine.kind == "io-error":
            raise disk_trouble(machine)
        if machine.kind == "exited":
            words = self._machine.stderr_text().strip().splitlines()[-1:] or ["It said nothing."]
            raise MachineError(
                f"QEMU died during the install (exit code {machine.code}). {words[0]}",
                hint="Was it killed for lack of memory? `dmesg` tells; a smaller machine: --memory.",
                console=verdict.lines,
            )
        if verdict.verdict == "success" and machine.reason in ENDED:
            return verdict
        if verdict.verdict == "incomplete" or machine.reason not in ENDED:
            raise InstallError(
                f"The machine went down ({machine.reason}) before the installer had said that it was done.",
                hint=verdict.hint,
                console=verdict.lines,
            )
        raise failed(verdict)


def failed(verdict: Verdict) -> PrebakeError:
    """Return the error for a verdict that is no success: one paragraph, the likely cause, what to do."""
    kind = StalledError if verdict.verdict == "stalled" else InstallError
    where = f" in the phase {verdict.phase!r}" if verdict.phase else ""
    begin = "The installer waits for a person" if verdict.verdict == "stalled" else "The installer failed"
    parts = [f"{begin}{where}."]
    if verdict.reason:
        parts.append(f"Its own words: {verdict.reason.rstrip('.')}.")
    if verdict.cause:
        parts.append(f"Likely cause: {verdict.cause.rstrip('.')}.")
    return kind(" ".join(parts), hint=verdict.hint, console=verdict.lines)


def disk_trouble(machine: State, where: Path | None = None) -> PrebakeError:
    """Return the error for a machine that QEMU paused because the host could not read or write an image."""
    name = machine.device or (str(where) if where else "an image")
    if machine.nospace:
        return HostError(
            f"This host's disk is full: QEMU could not write to {name}.",
            hint="Make room, or build elsewhere: -o DIR.",
        )
    return HostError(f"QEMU could not read or write {name}: {machine.reason or 'an I/O error'}.")
