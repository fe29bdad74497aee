"""A system under test: its machine, its console, a root shell on it, and our scripts beside it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import InstallError, MachineError, PrebakeError, StalledError
from builder.events import ConsoleOutput, Phase
from builder.image.facts import parse
from builder.image.mute import unanswered
from builder.image.shell import RootShell
from builder.install.watch import ENDING, disk_trouble
from builder.resources import templates
from builder.vm import screen
from builder.vm.machine import Machine
from builder.vm.qemu import Disk, MachineSpec
from builder.vm.serial import LineClosedError, SerialLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from builder.install.patience import Patience
    from builder.install.site import Site
    from builder.spec import User

PAYLOAD = "prebake-payload"
DEVICE = f"/dev/disk/by-id/virtio-{PAYLOAD}"
SCRIPTS = "/run/prebake"


def payload(path: Path, more: Iterable[tuple[str, Path | bytes]] = ()) -> None:
    """Write our scripts, and ``more`` by name, to ``path`` as a tar archive: a disk that needs no file system."""
    scripts = ((one.name, one) for one in sorted((templates() / "guest").iterdir()))
    with tarfile.open(path, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, source in (*scripts, *more):
            member = tarfile.TarInfo(name)
            member.mode = 0o700
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
                member.size = stream.seek(0, io.SEEK_END)
                stream.seek(0)
                archive.addfile(member, stream)


def payload_disk(path: Path, more: Iterable[tuple[str, Path | bytes]] = ()) -> Disk:
    """Write the payload to ``path`` and return the read-only disk it is on."""
    payload(path, more)
    return Disk(path, format="raw", serial=PAYLOAD, read_only=True, boot=9)


@dataclass(frozen=True)
class Session:
    """A booted system with a root shell; ``seconds`` is how long it took to the login prompt."""

    machine: Machine
    line: SerialLine
    shell: RootShell
    limits: Patience
    user: str
    seconds: float
    scripts: str = SCRIPTS

    def facts(self) -> dict[str, str]:
        """Return what the system says of itself."""
        argv = ["sh", f"{SCRIPTS}/facts.sh", self.user, str(int(self.limits.answer))]
        return parse(self.shell.must(argv, seconds=self.limits.boot + 2 * self.limits.answer))

    def power_off(self) -> None:
        """Shut the system down and wait until the machine says so.

        Raises InstallError if it ends in another way, StalledError if it does not end.
        """
        self.shell.power_off()
        waited = 0.0
        while self.machine.poll().running:
            if waited > self.limits.answer:
                raise StalledError("The system did not power off.", console=self.line.tail())
            try:
                waited += 0.5 if not self.line.read_line(0.5) else 0.0
            except LineClosedError:
                break
        state = self.machine.wait_shutdown(ENDING)
        if state.kind == "io-error":
            raise disk_trouble(state)
        if state.reason != "guest-shutdown":
            raise InstallError(f"The system did not power off but ended: {state}.", console=self.line.tail())


@contextmanager
def session(spec: MachineSpec, name: str, user: User, site: Site) -> Iterator[Session]:
    """Boot ``spec``, log in as ``user``, become root, unpack the scripts; the console goes to the log ``name``.

    ``spec`` must have the disk of `payload_disk`. Raises InstallError, StalledError, MachineError or, if the
    host's disk is full, HostError.
    """

    def heard(data: bytes) -> None:
        site.report(ConsoleOutput(data))

    record, limits, report = site.logs / f"{name}.log", site.limits, site.report
    with record.open("wb") as out, Machine(spec) as machine:
        line = SerialLine(machine.serial, out, heard)
        shell = RootShell(line, user=user.name, password=user.password)
        asked = False
        try:
            report(Phase("boot", "Booting the installed system", 0.0))
            seconds = shell.log_in(first_seconds=limits.first, boot_seconds=limits.boot, seconds=limits.answer)
            asked = True
            report(Phase("login", f"Logged in as {user.name}", 0.6))
            shell.must(["mkdir", "-m", "0700", "-p", SCRIPTS], seconds=limits.answer)
            shell.must(["tar", "-xf", DEVICE, "-C", SCRIPTS, "--exclude=*/*"], seconds=limits.answer)
            yield Session(machine, line, shell, limits, user.name, seconds)
        except PrebakeError as error:
            # A line that is closed is told a moment before QEMU's end is known.
            state = machine.wait_shutdown(ENDING) if isinstance(error, MachineError) else machine.poll()
            if state.kind == "io-error":
                raise disk_trouble(state) from error
            if state.kind == "exited":
                words = machine.stderr_text().strip().splitlines()[-1:] or ["It said nothing."]
                raise MachineError(
                    f"QEMU died while the installed system ran (exit code {state.code}). {words[0]}",
                    hint="Was it killed for lack of memory? `dmesg` tells; a smaller machine: --memory.",
                    console=line.tail(),
                ) from error
            shown, picture = screen.text(machine), None
            with contextlib.suppress(MachineError):
                picture = machine.screendump(record.with_suffix(".png"))
            if isinstance(error, StalledError) and not asked:
                raise unanswered(error, line.tail(), shown, picture) from error
            raise
