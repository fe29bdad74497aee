"""Runs the installer in a machine and keeps what it says."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.errors import MachineError, PrebakeError
from builder.events import ConsoleOutput
from builder.install.watch import Watch
from builder.vm.machine import Machine
from builder.vm.serial import SerialLine

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Reporter
    from builder.install.patience import Patience
    from builder.vm.qemu import MachineSpec


@dataclass
class Trace:
    """What is known of an install that is under way or over, for the evidence."""

    argv: tuple[str, ...] = ()
    said: str = ""
    verdict: dict[str, str | list[str] | None] | None = field(default=None)


def install(machine: MachineSpec, token: str, limits: Patience, logs: Path, report: Reporter, *, trace: Trace) -> None:
    """Run the installer to its proven end; its console goes to ``logs``/console.log as it comes.

    ``trace`` is filled in also when it fails. Raises what `Watch.run` raises, and MachineError or HostError if
    QEMU does not start. A failure leaves a picture of the screen in ``logs``.
    """

    def heard(data: bytes) -> None:
        report(ConsoleOutput(data))

    with (logs / "console.log").open("wb") as record, Machine(machine) as guest:
        trace.argv = guest.argv
        line = SerialLine(guest.serial, record, heard)
        watch = Watch(guest, line, token, limits, report)
        try:
            watch.run()
        except PrebakeError:
            with contextlib.suppress(MachineError):
                guest.screendump(logs / "screen.png")
            raise
        finally:
            trace.said = guest.stderr_text()
            trace.verdict = watch.state.verdict().to_json()
