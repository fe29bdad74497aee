"""Watches one install until the machine goes down, and says how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import HostError, InstallError, MachineError, StalledError
from builder.events import Phase
from builder.install.state import InstallState
from builder.install.verdict import Verdict
from builder.vm import screen
from builder.vm.activity import work
from builder.vm.serial import LineClosedError

if TYPE_CHECKING:
    from pathlib import Path

    from builder.errors import PrebakeError
    from builder.install.record import Record
    from builder.install.site import Site
    from builder.vm.machine import Machine
    from builder.vm.serial import SerialLine
    from builder.vm.state import State

TICK = 0.5
LOOK = 5.0
"""Seconds between two looks at whether a silent guest works at all."""
SETTLE = 3.0
"""How long a question must stand on the console before it counts as asked and unanswered."""
GRACE = 30.0
"""How long a failed install may take to put itself off; it has saved its logs by then."""
BUSY = 0.2
"""Of one core's time: a guest that takes more works. One that only keeps its clock takes a few hundredths."""
WORKING = 4
"""By how much longer a guest may say nothing that is seen to work."""
MUTE = 60.0
"""Seconds after which a QEMU that answers no question counts as hung."""
ENDING = 10.0
"""How long QEMU may take to say why its serial line was closed."""
ENDED = {"guest-shutdown": "The guest powered itself off", "guest-reset": "The guest rebooted"}
"""How an install may end by QMP's word, and how that is said if it ends too early."""


class Watch:
    """Reads the console of one install and decides when it is over."""

    def __init__(self, machine: Machine, line: SerialLine, token: str, site: Site, record: Record) -> None:
        self._machine = machine
        self.line = line
        self._limits = site.limits
        self._report = site.report
        self._record = record
        self.state = InstallState(token)
        self.ended: Verdict | None = None
        self._clock = record.clock
        self._since: float | None = None
        self._shown = ("", "")
        self._work: tuple[float, int] | None = None
        self._looked = 0.0
        self._read = 0.0
        self._mute_since: float | None = None
        self._screen: list[str] = []
        self._idle_since: float | None = None

    def run(self) -> Verdict:
        """Watch until the install is over; return the verdict of one that succeeded.

        Raises InstallError if the installer failed, StalledError if it asks, hangs or takes too long,
        MachineError if QEMU died, HostError if the host's disk is full.
        """
        while True:
            try:
                data = self.line.read(TICK)
            except LineClosedError:
                break
            self._record.tell(self.state.feed(data, self._clock.seconds()))
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
        now = self._clock.seconds()
        verdict = self.state.verdict()
        if verdict.verdict in {"failure", "stalled"} and (verdict.final or verdict.verdict == "stalled"):
            self._since = now if self._since is None else self._since
            if now - self._since > (GRACE if self._switching_off() else SETTLE):
                raise failed(verdict)
            return
        self._since = None
        self._check_silence(now, verdict)
        if now > self._limits.install:
            raise self._stalled(
                "too-long",
                f"The install was not done within {self._limits.install:.0f} s{self._where()}.",
                "A longer wait: --timeout. `prebake doctor` says whether this host can be faster.",
            )

    def _check_silence(self, now: float, verdict: Verdict) -> None:
        phase = verdict.phase if self.state.last_output is not None else None
        silent = now - (self.state.last_event or 0.0)
        idle = self._idle(now, silent)
        if phase in {None, "boot-loader"} and silent > LOOK:
            self._read_screen(now)
        if self.state.last_output is None and now > self._limits.first:
            raise self._stalled(
                "no-output",
                f"Nothing at all came from the guest's serial console for {now:.0f} s.",
                "Does the medium boot with this firmware, and does its boot menu use this serial port?",
            )
        done = verdict.verdict == "success" and verdict.final
        if idle > self._limits.idle(phase) and self._limits.silent is None and not done:
            raise self._stalled(
                "hung",
                f"The guest has said nothing and done nothing for {idle:.0f} s{self._where()}: its processors rest, "
                "and no byte went to or from a disk. It hangs.",
                "Look at screen.png and the last lines. A longer wait: --stall-timeout.",
            )
        limit = self._limits.silence(phase)
        works = self._work is not None and not idle
        if silent > (limit * WORKING if works and self._limits.silent is None else limit):
            doing = "; it rests" if idle > LOOK * 2 else "; it still works" if works else ""
            raise self._stalled(
                "silent",
                f"Nothing more came from the guest's serial console for {silent:.0f} s{self._where()}{doing}.",
                "Look at screen.png and the last lines. A longer wait: --stall-timeout.",
            )

    def _stalled(self, slug: str, message: str, hint: str) -> StalledError:
        """Return the error for an install that is given up, and keep the verdict that it is."""
        verdict = self.state.verdict()
        lines = verdict.lines or tuple(line for line in self._screen if line)
        self.ended = Verdict("stalled", verdict.phase, f"{slug}: {message}", verdict.reason, hint, lines, final=True)
        return StalledError(message, hint=hint, console=lines)

    def _read_screen(self, now: float) -> None:
        """Take from a PC's screen what firmware and boot loader say there alone, if it says that they gave up."""
        if now - self._read < LOOK:
            return
        self._read = now
        shown = screen.text(self._machine)
        text = "\r\n".join(["", *shown, ""]).encode()
        alone = InstallState()
        alone.feed(text, now)
        if shown != self._screen and alone.verdict().verdict == "failure":
            self._record.tell(self.state.feed(text, now))
        self._screen = shown

    def _where(self) -> str:
        phase = self.state.phase
        return f", in the phase: {self.state.step or phase.title}" if phase is not None else ""

    def _idle(self, now: float, silent: float) -> float:
        """Return for how long (s) the guest has neither spoken nor worked, as far as this host can tell.

        Raises MachineError if QEMU does not answer for long.
        """
        if silent < LOOK:
            self._idle_since = self._work = self._mute_since = None
            return 0.0
        if now - self._looked >= LOOK:
            before, self._work = self._work, self._ask(now)
            span, self._looked = now - self._looked, now
            rests = (
                before is not None
                and self._work is not None
                and self._work[0] - before[0] <= BUSY * span
                and self._work[1] == before[1]
            )
            begun = now - span if self._idle_since is None else self._idle_since
            self._idle_since = begun if rests else None
        return 0.0 if self._idle_since is None else now - self._idle_since

    def _ask(self, now: float) -> tuple[float, int] | None:
        try:
            found = work(self._machine)
        except MachineError as error:
            self._mute_since = now if self._mute_since is None else self._mute_since
            if now - self._mute_since > MUTE and self._machine.poll().running:
                raise self._dead(
                    "qemu-mute", f"QEMU answers no question any more{self._where()}. {error.message}"
                ) from error
            return None
        self._mute_since = None
        return found

    def _dead(self, slug: str, message: str) -> MachineError:
        """Return the error for a QEMU that is of no use any more, and keep the verdict."""
        verdict = self.state.verdict()
        hint = "Was it killed for lack of memory, or does its disk hang? `dmesg` tells; a smaller machine: --memory."
        self.ended = Verdict("failure", verdict.phase, f"{slug}: {message}", None, hint, verdict.lines, final=True)
        return MachineError(message, hint=hint, console=verdict.lines)

    def _switching_off(self) -> bool:
        """Whether the failed installer has said its last word and only the power-off is missing."""
        return any("prebake-sentinel:failed" in line for line in self.state.lines)

    def _conclude(self, machine: State) -> Verdict:
        verdict = self.state.verdict()
        if machine.kind == "io-error":
            raise disk_trouble(machine)
        if machine.kind == "exited":
            raise self._dead("qemu-died", died(machine, self._machine.stderr_text()))
        if machine.running:
            raise self._dead("qemu-deaf", f"QEMU has closed the guest's serial line, though it runs{self._where()}.")
        if verdict.verdict == "success" and machine.reason in ENDED:
            return verdict
        if verdict.verdict == "failure" or (verdict.verdict == "stalled" and machine.reason in ENDED):
            raise failed(verdict)
        how = ENDED.get(machine.reason or "", f"The machine went down ({machine.reason})")
        again = " Left alone it would start anew, again and again." if machine.reason == "guest-reset" else ""
        message = f"{how} before the installer had said that it was done{self._where()}.{again}"
        hint = "Look at the last lines: something other than the installer stopped the machine."
        self.ended = Verdict(
            "failure", verdict.phase, f"ended-early: {message}", verdict.reason, hint, verdict.lines, final=True
        )
        raise InstallError(message, hint=hint, console=verdict.lines)


def died(machine: State, said: str) -> str:
    """Return what to say of a QEMU that ended by itself: how, and its own last words."""
    words = said.strip().splitlines()[-3:] or ["It said nothing."]
    how = f"exit code {machine.code}"
    if machine.code is not None and machine.code < 0:
        how = f"killed by signal {-machine.code}"
    return f"QEMU died during the install ({how}). {' '.join(words)}"


def failed(verdict: Verdict) -> PrebakeError:
    """Return the error for a verdict that is no success: one paragraph, the likely cause, what to do."""
    kind = StalledError if verdict.verdict == "stalled" else InstallError
    where = f" in the phase {verdict.phase!r}" if verdict.phase else ""
    begin = "The installer waits for a person" if verdict.verdict == "stalled" else "The install failed"
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
    return HostError(
        f"QEMU could not read or write {name}: {machine.reason or 'an I/O error'}.",
        hint="Look at the disk it is on (`dmesg`), or build elsewhere: -o DIR.",
    )
