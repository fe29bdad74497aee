"""Runs the installer in a machine, and keeps what it says and why it failed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder.errors import InstallError, MachineError, PrebakeError
from builder.events import ConsoleOutput
from builder.install import evidence
from builder.install.guestlogs import GUEST, said
from builder.install.record import Record
from builder.install.rescue import LOOK, look, rescue
from builder.install.watch import Watch, failed
from builder.vm.machine import Machine
from builder.vm.serial import SerialLine

if TYPE_CHECKING:
    from pathlib import Path

    from builder.install.site import Site
    from builder.vm.qemu import MachineSpec


@dataclass
class Trace:
    """What is known of an install that is under way or over, for the evidence; ``host`` is what it runs on."""

    host: dict[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    said: str = ""
    verdict: dict[str, Any] | None = field(default=None)


def install(machine: MachineSpec, token: str, site: Site, *, trace: Trace) -> None:
    """Run the installer to its proven end; everything it says goes to the logs as it comes.

    ``trace`` is filled in also when it fails. Raises what `Watch.run` raises, and MachineError or HostError if
    QEMU does not start. A failure leaves a picture of the screen and the guest's own logs beside the console, and
    the error says what those logs say.
    """
    port = machine.ports[0].path if machine.ports else site.work / "no-port"
    watch = None

    def heard(data: bytes) -> None:
        record.came(len(data))
        site.report(ConsoleOutput(data))

    with Record(site.logs) as record:
        try:
            with Machine(machine) as guest:
                trace.argv = guest.argv
                watch = Watch(guest, SerialLine(guest.serial, record.console, heard), token, site, record)
                try:
                    watch.run()
                except PrebakeError:
                    _question(guest, watch, port, site)
                    raise
                finally:
                    trace.said = guest.stderr_text()
                    for event in guest.events:
                        record.note("qemu", {"qemu": event})
        except InstallError as error:
            if watch is None or watch.state.verdict().verdict != "failure":
                raise
            raise _informed(watch, port, site) from error
        finally:
            if watch is not None:
                trace.verdict = (watch.ended or watch.state.verdict()).to_json()
                record.note("verdict", trace.verdict)


def _question(guest: Machine, watch: Watch, port: Path, site: Site) -> None:
    """Get from a machine that still runs what it alone can tell: its screen, and what its shell knows."""
    with contextlib.suppress(MachineError):
        guest.screendump(site.logs / "screen.png")
    if not guest.poll().running:
        return
    trigger, asked = watch.state.trigger, "".join(watch.state.lines[-1:])
    if trigger in LOOK and not asked.startswith("Give root password"):
        look(watch.line, trigger, site.limits.answer)
    elif trigger == "error-shell" and not (port.exists() and port.stat().st_size):
        for path, text in rescue(watch.line, port, site.limits.answer).items():
            evidence.keep_log(site.logs / GUEST, path, text.encode(), site.secrets)


def _informed(watch: Watch, port: Path, site: Site) -> PrebakeError:
    """Return the error of a failed install, with what the guest's own logs say of it."""
    evidence.unpack_guest_logs(port, site.logs / GUEST, site.secrets)
    watch.state.learn(said(evidence.read_logs(site.logs / GUEST)))
    return failed(watch.state.verdict())
