"""From an installed disk to an image: the first boot, the class and the seal on an overlay, the compaction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from builder.errors import InstallError, VerificationError
from builder.events import Phase
from builder.image.facts import checks
from builder.image.prove import Seen, listed
from builder.image.provision import members, provision
from builder.image.seal import beside, seal, tidy, trouble
from builder.image.session import DEVICE, payload_disk, session
from builder.vm import disk
from builder.vm.qemu import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.events import Reporter
    from builder.install.site import Site
    from builder.spec import Spec
    from builder.vm.qemu import MachineSpec


SEEDED = "! command -v snap > /dev/null || timeout {seconds} snap wait system seed.loaded < /dev/null"
"""snapd sets itself up in the background of the first boot; tidy.sh says if it did not come to an end."""


def settle(image: Path, machine: MachineSpec, spec: Spec, site: Site) -> Seen:
    """Boot the installed disk once (cloud-init makes the user and the network), look at it, tidy it up, power off.

    ``machine`` says how to run it; its disks are set here. Raises InstallError if the system is not what was
    asked for, and what `session` raises.
    """
    disks = (Disk(image, cache="unsafe", boot=1), payload_disk(site.work / "payload.tar"))
    closed = spec.network == "offline" or not spec.boots_online
    nic = replace(machine.nic, restrict=closed) if machine.nic else None
    with session(replace(machine, disks=disks, nic=nic), "first-boot", spec.user, site) as system:
        system.shell.run(SEEDED.format(seconds=int(site.limits.boot)), seconds=site.limits.boot + site.limits.answer)
        site.report(Phase("look", "Looking at the system", 0.65))
        facts = system.facts()
        wrong = [check for check in checks(facts, spec) if not check.good]
        if wrong:
            raise InstallError(
                "The installed system is not what was asked for:\n" + listed(wrong), console=system.line.tail()
            )
        trouble(facts, site.report)
        tidy(system, site.report)  # here, so that no class has to wait for it again
        site.report(Phase("off", "Powering off", 0.9))
        system.power_off()
        return Seen(facts, system.seconds)


def provision_and_seal(image: Path, machine: MachineSpec, spec: Spec, site: Site) -> None:
    """Boot an overlay of a settled system, put the class on it, seal it, power off.

    ``machine`` says how to run it; its disks are set here. Raises InstallError that names a step that failed, and what
    `session` raises.
    """
    content = spec.content
    disks = (Disk(image, cache="unsafe", boot=1), payload_disk(site.work / "payload.tar", carried(spec)))
    nic = replace(machine.nic, restrict=spec.network == "offline" or not content) if machine.nic else None
    with session(replace(machine, disks=disks, nic=nic), "class", spec.user, site) as system:
        if content:
            provision(system, content, DEVICE, site.report)
        seal(system, spec, site.report)
        site.report(Phase("off", "Powering off", 0.9))
        system.power_off()


def compact(source: Path, image: Path, report: Reporter, *, compression: disk.Compression = "zstd") -> disk.Info:
    """Write ``source`` as a small qcow2 with compressed clusters and no backing file; return what it is.

    Raises VerificationError if the result has errors, CommandError if qemu-img fails.
    """
    disk.convert(source, image, compression=compression, report=report)
    found = disk.check(image)
    info = disk.info(image)
    if not found.clean or info.backing is not None:
        raise VerificationError(f"The image {image.name} has errors: {found}, backing file {info.backing}.")
    return info


def carried(spec: Spec) -> Iterator[tuple[str, Path | bytes]]:
    """Yield what travels to the guest beside our scripts: a network of the class's own, and its files."""
    if spec.netplan is not None:
        yield "netplan.yaml", yaml.safe_dump({"network": dict(spec.netplan)}).encode()
    yield from beside(spec)
    yield from members(spec.content)
