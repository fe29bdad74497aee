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
    from builder.install.site import Site
    from builder.vm.qemu import MachineSpec


@dataclass
class Trace:
    """What is known of an install that is under way or over, for the evidence."""

    argv: tuple[str, ...] = ()
    said: str = ""
    verdict: dict[str, str | list[str] | None] | None = field(default=None)


def install(machine: MachineSpec, token: str, site: Site, *, trace: Trace) -> None:
    """Run the installer to its proven end; its console goes to the log "console" as it comes.

    ``trace`` is filled in also when it fails. Raises what `Watch.run` raises, and MachineError or HostError if
    QEMU does not start. A failure leaves a picture of the screen beside it.
    """

    def heard(data: bytes) -> None:
        site.report(ConsoleOutput(data))

    with (site.logs / "console.log").open("wb") as record, Machine(machine) as guest:
        trace.argv = guest.argv
        line = SerialLine(guest.serial, record, heard)
        watch = Watch(guest, line, token, site.limits, site.report)
        try:
            watch.run()
        except PrebakeError:
            with contextlib.suppress(MachineError):
                guest.screendump(site.logs / "screen.png")
            raise
        finally:
            trace.said = guest.stderr_text()
            trace.verdict = watch.state.verdict().to_json()
