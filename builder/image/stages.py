"""From an installed disk to an image: the first boot, the seal, the compaction, the proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import yaml

from builder.errors import InstallError, StalledError, VerificationError
from builder.events import Phase
from builder.image.facts import checks, sealed_checks
from builder.image.provision import lists, members, proof, provision
from builder.image.seal import beside, freed, seal, trouble
from builder.image.session import DEVICE, payload_disk, session
from builder.vm import disk, firmware
from builder.vm.qemu import Disk, Nic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.events import Reporter
    from builder.image.facts import Check
    from builder.install.site import Site
    from builder.spec import Spec
    from builder.vm.qemu import MachineSpec

STRANGER = "52:54:00:c0:ff:ee"
"""A network card's address that the installer has never seen."""


@dataclass(frozen=True)
class Seen:
    """What a system said of itself, and how many seconds it took to its login prompt."""

    facts: dict[str, str]
    seconds: float


def settle_and_seal(image: Path, machine: MachineSpec, spec: Spec, site: Site) -> Seen:
    """Boot the installed disk once (cloud-init makes the user and the network), look at it, seal it, power off.

    ``machine`` says how to run it; its disks are set here. Raises InstallError if the system is not what was
    asked for, and what `session` raises.
    """
    content = spec.content
    disks = (Disk(image, cache="unsafe", boot=1), payload_disk(site.work / "payload.tar", carried(spec)))
    nic = replace(machine.nic, restrict=spec.network == "offline" or not content) if machine.nic else None
    with session(replace(machine, disks=disks, nic=nic), "first-boot", spec.user, site) as system:
        site.report(Phase("look", "Looking at the system", 0.65))
        facts = system.facts()
        wrong = [check for check in checks(facts, spec) if not check.good]
        if wrong:
            raise InstallError(
                "The installed system is not what was asked for:\n" + _listed(wrong), console=system.line.tail()
            )
        trouble(facts, site.report)
        if content:
            provision(system, content, DEVICE, site.report)
        seal(system, spec, site.report)
        site.report(Phase("off", "Powering off", 0.9))
        system.power_off()
        return Seen(facts, system.seconds)


def compact(source: Path, image: Path, report: Reporter) -> disk.Info:
    """Write ``source`` as a small qcow2 with zstd clusters and no backing file; return what it is.

    Raises VerificationError if the result has errors, CommandError if qemu-img fails.
    """
    disk.convert(source, image, compression="zstd", report=report)
    found = disk.check(image)
    info = disk.info(image)
    if not found.clean or info.backing is not None:
        raise VerificationError(f"The image {image.name} has errors: {found}, backing file {info.backing}.")
    return info


def prove(
    image: Path, machine: MachineSpec, spec: Spec, site: Site, *, machine_id: str | None = None
) -> tuple[Seen, list[Check]]:
    """Boot a throw-away overlay of the final image as a stranger would, on a card it does not know; look at it.

    The image itself is only read. Returns all checks, good ones too. Raises VerificationError if the image does
    not come up.
    """
    overlay = site.work / "proof.qcow2"
    disk.create(overlay, None, backing=image.absolute(), backing_format=disk.info(image).format)
    disks = (Disk(overlay, cache="unsafe", boot=1), payload_disk(site.work / "payload.tar", lists(spec.content)))
    stranger = replace(machine, disks=disks, nic=Nic(mac=STRANGER))
    if machine.firmware is not None:
        # Variables that have never seen the installer: the image must be found by its own means.
        stranger = replace(stranger, firmware=firmware.find(machine.arch).fresh(site.work / "proof.fd"))
    try:
        with session(stranger, "proof", spec.user, site) as system:
            facts = system.facts()
            there = [*proof(system, spec.content), freed(facts, disk.info(image))]
    except (InstallError, StalledError) as error:
        raise VerificationError(error.message, hint=error.hint, console=error.console) from error
    finally:
        overlay.unlink(missing_ok=True)
    return Seen(facts, system.seconds), [*checks(facts, spec), *sealed_checks(facts, machine_id, spec), *there]


def refuse_bad(done: Sequence[Check]) -> None:
    """Raise VerificationError that names every check that is not good, if there is one."""
    wrong = [check for check in done if not check.good]
    if wrong:
        raise VerificationError("The image is not what it should be:\n" + _listed(wrong))


def carried(spec: Spec) -> Iterator[tuple[str, Path | bytes]]:
    """Yield what travels to the guest beside our scripts: a network of the class's own, and its files."""
    if spec.netplan is not None:
        yield "netplan.yaml", yaml.safe_dump({"network": dict(spec.netplan)}).encode()
    yield from beside(spec)
    yield from members(spec.content)


def _listed(wrong: Sequence[Check]) -> str:
    return "\n".join(f"    {check.name}: {check.found}" for check in wrong)
