"""What a running system says of itself, and whether that is what was asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.spec import Spec

OVERHEAD = 4 << 30
"""Bytes of the disk that need not belong to the root file system: boot loader, EFI partition, /boot with LVM."""
OWN_NETPLAN = "01-netcfg.yaml"


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is good, and what was found."""

    name: str
    good: bool
    found: str

    def __str__(self) -> str:
        """Return it as a line for a person."""
        return f"{'ok' if self.good else 'WRONG':5}  {self.name}: {self.found}"


def parse(output: str) -> dict[str, str]:
    """Return the facts of ``facts.sh``'s output, lines of ``key=value``; other lines are passed over.

    Raises InstallError if there are none.
    """
    facts = dict(line.partition("=")[::2] for line in output.splitlines() if "=" in line.partition(" ")[0])
    if "machine-id" not in facts:
        raise InstallError("The system does not tell its facts.", console=output.splitlines()[-20:])
    return facts


def checks(facts: Mapping[str, str], spec: Spec) -> Iterator[Check]:
    """Look at what every image must be: its user, its network, its disk, no SSH, a login on both consoles."""
    get = facts.get
    groups = get("user-groups", "").split()
    yield Check(f"user {spec.user.name}", bool(get("user-id")), get("user-id") or "is not there")
    yield Check("the user may use sudo", "sudo" in groups, " ".join(groups) or "no groups")
    yield Check("root has no password", get("root-password") == "locked", get("root-password", ""))
    yield Check("cloud-init", get("cloud-init") in {"done", "disabled"}, get("cloud-init") or "no status")
    found = get("addresses") or f"no address on {get('nics') or 'any card'}"
    yield Check("network", bool(get("addresses")) or spec.netplan is not None, found)
    disk, root = int(get("disk-bytes") or 0), int(get("root-bytes") or 0)
    yield Check("disk size", disk == spec.disk, f"{disk} bytes, asked for {spec.disk}")
    if spec.whole_disk:
        yield Check("entire disk used", disk - root <= OVERHEAD, f"root file system {root} of {disk} bytes")
    if not spec.ssh_server:
        yield Check("no SSH server", get("ssh-server") == "absent", get("ssh-server", ""))
        ssh = [place for place in get("listening", "").split() if place.endswith(":22")]
        yield Check("nothing on port 22", not ssh, " ".join(ssh) or "nothing")
    consoles = get("consoles", "")
    serial = "serial-getty@" in consoles
    yield Check("login on the serial port", serial, consoles or "no console")
    screen = get("screen", "")
    yield Check("login on the screen", "getty@tty1" in consoles and "login:" in screen, screen or "an empty screen")


def sealed_checks(facts: Mapping[str, str], machine_id: str | None) -> Iterator[Check]:
    """Look at what a sealed image must not be: ``machine_id`` is that of the system it was made from, if known."""
    get = facts.get
    own = get("machine-id", "")
    fresh = len(own) == len("0123456789abcdef" * 2) and own != machine_id
    yield Check("a machine-id of its own", fresh, own or "empty")
    yield Check("no installer logs", get("installer-logs") == "absent", get("installer-logs", ""))
    yield Check("no password hash in logs", not get("hashes-in-logs"), get("hashes-in-logs") or "none")
    yield Check("one network configuration", get("netplan") == OWN_NETPLAN, get("netplan") or "none")
    yield Check("no SSH host keys", not get("host-keys"), get("host-keys") or "none")
    yield Check("cloud-init stays off", get("cloud-init") == "disabled", get("cloud-init", ""))
