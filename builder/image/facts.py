"""What a running system says of itself, and whether that is what was asked for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.spec import Spec

OVERHEAD = 4 << 30
"""Bytes of the disk that need not belong to the root file system: boot loader, EFI partition, /boot with LVM."""
FILLED = 0.85
"""The part of its volume that a file system has at least, beside its own tables."""
OWN_NETPLAN = "01-netcfg.yaml"
SWAP_HEADER = 1 << 20
LARGEST_LOGS = 200 << 20
LONGEST_MENU = 20
"""Seconds; Ubuntu's GRUB waits 30 after what it takes for a failed boot."""
MOST_KERNELS = 2
FIRMWARE_REST = 16
"""MiB below /usr/lib/firmware that are of other packages than linux-firmware."""
MIB = 1 << 20
LISTS = "[NoCloud, ConfigDrive]"
RUNNING = frozenset({"running", "degraded"})
NEED_THE_INTERNET = frozenset(
    f"{name}.service"
    for name in (
        *("apt-daily", "apt-daily-upgrade", "apt-news", "esm-cache", "fwupd-refresh", "motd-news", "pollinate"),
        *("man-db", "packagekit", "snapd.snap-repair", "ua-timer", "update-notifier-download"),
    )
)
"""Units that fail where nothing is to be reached, as while an image is proved, and mean nothing by it."""
GONE: Mapping[str, str] = {
    "nothing of the installer's for cloud-init": "cloud-leftovers",
    "no secret of another system": "older-secrets",
    "no backups of the passwords": "backups",
    "no crash reports": "crashes",
    "no logs of another system": "older-logs",
    "no histories": "histories",
    "no leases": "leases",
    "nothing temporary": "temporary",
    "no package lists and archives": "apt-lists",
    "nothing of the installer's for apt": "apt-leftovers",
}
"""What the seal takes away: the check's name, and the fact that lists what of it is there."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is good, and what was found.

    What is not ``required`` of an image is only worth knowing. ``boot`` names the boot it was looked at in; what is
    seen without one has none.
    """

    name: str
    good: bool
    found: str
    required: bool = True
    boot: str = ""

    @property
    def wrong(self) -> bool:
        """Whether the image fails for it."""
        return self.required and not self.good

    def __str__(self) -> str:
        """Return it as a line for a person."""
        word = "ok" if self.good else "WRONG" if self.required else "note"
        return f"{word:5}  {self.name}: {self.found}"


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
    yield _swap(facts, spec)
    if not spec.ssh_server:
        yield Check("no SSH server", get("ssh-server") == "absent", get("ssh-server", ""))
        ssh = [place for place in get("listening", "").split() if place.endswith(":22")]
        yield Check("nothing on port 22", not ssh, " ".join(ssh) or "nothing")
    spoken = re.findall(r"\bconsole=(\S+)", get("cmdline", ""))
    ports = [one for one in spoken if one.startswith(("ttyS", "ttyAMA"))]
    both = bool(ports) and not {"tty0", "tty1"}.isdisjoint(spoken)
    yield Check("the kernel speaks on both consoles", both, " ".join(spoken) or "no console is named")
    consoles = get("consoles", "")
    serial = "serial-getty@" in consoles
    yield Check("login on the serial port", serial, consoles or "no console")
    screen = get("screen", "")
    yield Check("login on the screen", "getty@tty1" in consoles and "login:" in screen, screen or "an empty screen")


def _swap(facts: Mapping[str, str], spec: Spec) -> Check:
    """Look whether the swap is what was asked for; where that is not known, whether what fstab names is in use."""
    used, wanted = int(facts.get("swap") or 0), int(facts.get("swap-wanted") or 0)
    left = facts.get("swap-files", "") if not wanted else ""
    if spec.swap is None:
        good, asked = bool(used) == bool(wanted), f"{wanted} in fstab"
    else:
        good, asked = spec.swap - SWAP_HEADER <= used <= spec.swap, f"asked for {spec.swap}"
    return Check("swap", good and not left, f"{used} bytes, {asked}" + (f", unused: {left}" if left else ""))


def failed(facts: Mapping[str, str], spec: Spec) -> list[str]:
    """Return the units that failed and should not have."""
    return [one for one in facts.get("failed-units", "").split() if one not in NEED_THE_INTERNET | set(spec.may_fail)]


def sealed_checks(facts: Mapping[str, str], machine_id: str | None, spec: Spec) -> Iterator[Check]:
    """Look at what a sealed image must be, and must not hold.

    ``machine_id`` is that of the system it was made from, if known. What ``spec`` does not know (an empty
    ``cloud_init`` says that it knows nothing) is judged by whether it fits together.
    """
    get = facts.get
    own = get("machine-id", "")
    fresh = len(own) == len("0123456789abcdef" * 2) and own != machine_id
    yield Check("a machine-id of its own", fresh, own or "empty")
    yield Check("no installer logs", get("installer-logs") == "absent", get("installer-logs", ""))
    yield Check("no password hash in logs", not get("hashes-in-logs"), get("hashes-in-logs") or "none")
    yield Check("one network configuration", get("netplan") == OWN_NETPLAN, get("netplan") or "none")
    if get("ssh-server") == "present":
        yield Check(
            "SSH host keys are made at boot", bool(get("ssh-keys-made")), get("ssh-keys-made") or "they are not"
        )
    else:
        yield Check("no SSH host keys", not get("host-keys"), get("host-keys") or "none")
    placed = {file.path for file in spec.content.files}
    for name, key in GONE.items():
        left = [one for one in get(key, "unknown").split() if one not in placed]
        yield Check(name, not left, " ".join(left) or "none")
    logs = int(get("log-bytes") or 0)
    yield Check("small logs", 0 < logs <= LARGEST_LOGS, f"{logs / MIB:.1f} MiB")
    proxy = get("apt-proxy", "")
    yield Check("no proxy that nobody asked for", not proxy or spec.proxied or not spec.cloud_init, proxy or "none")
    yield from _policy(facts, spec)
    yield from _boot(facts, spec)


def _policy(facts: Mapping[str, str], spec: Spec) -> Iterator[Check]:
    """Look at cloud-init's policy. No proof has a seed, so it has to be off under either."""
    policy = facts.get("cloud-policy", "")
    good = policy in {"off", "nocloud"} and policy == (spec.cloud_init or policy)
    if policy == "nocloud":
        good &= facts.get("cloud-lists") == LISTS
    yield Check("cloud-init's policy", good, f"{policy or 'none'} {facts.get('cloud-lists', '')}".strip())
    status = facts.get("cloud-init", "")
    yield Check("cloud-init stays off", status == "disabled", status or "no status")


def _boot(facts: Mapping[str, str], spec: Spec) -> Iterator[Check]:
    """Look at how it starts: all units, the boot menu, the kernels, a root that grows, snaps."""
    get = facts.get
    state, units = get("state", ""), failed(facts, spec)
    found = " ".join([state or "not started", *units] + ([f"waits for {get('jobs')}"] if get("jobs") else []))
    yield Check("the system runs and no unit has failed", state in RUNNING and not units, found)
    yield Check("the root grows with its disk", get("grow-root") == "enabled there", get("grow-root") or "it does not")
    size, root = int(get("root-size") or 0), int(get("root-bytes") or 0)
    yield Check("the root file system fills its volume", size >= root * FILLED, f"{size} of {root} bytes")
    waits = get("grub-timeouts", "").split()
    short = bool(waits) and all(one.isdigit() and int(one) <= LONGEST_MENU for one in waits)
    yield Check("GRUB does not wait", short, f"{' '.join(waits) or 'unknown'} s")
    kernels = get("kernels", "").split()
    yield Check("no old kernels", 0 < len(kernels) <= MOST_KERNELS, " ".join(kernels) or "none")
    if spec.firmware_budget is not None:
        mib = int(get("firmware-mib") or 0)
        yield Check("little firmware", mib <= max(spec.firmware_budget // MIB, FIRMWARE_REST), f"{mib} MiB")
    if "snaps" in facts:
        left = get("snap-leftovers", "")
        good = get("snaps") == "seeded" and not left
        yield Check("snapd has set itself up", good, f"{get('snaps')} {left}".strip())
