"""What is booted, and in what: the answers on the medium, and the machine around it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builder.autoinstall import render
from builder.autoinstall.password import hash_password
from builder.errors import AnswersError
from builder.media.menus import edited_menus
from builder.media.remaster import Patch, plan
from builder.media.rivals import silenced
from builder.spec import GIB
from builder.vm import disk, firmware
from builder.vm.qemu import Disk, Flash, MachineSpec, Nic, Port

if TYPE_CHECKING:
    from pathlib import Path

    from builder.autoinstall.render import Answers
    from builder.events import Reporter
    from builder.media.image import Medium
    from builder.spec import Spec

SERIAL = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
CONSOLES = {arch: ("console=tty0", f"console={tty},115200n8") for arch, tty in SERIAL.items()}
UNCHECKED = ("fsck.mode=skip",)
"""A medium that was read a moment ago is not read again as a whole; a stick or a disc that is written may be."""
LVM_SCALES = ("22.04", "22.04.1", "22.04.2")
"""Installers that ignore `sizing-policy: all`, known since their version 23.04."""
LVM_WHOLE = 12 * GIB
"""The largest disk of which they give the whole group to the root all the same."""


def check_layout(spec: Spec, medium: Medium) -> None:
    """Refuse what this medium's installer would silently do otherwise. Raises AnswersError."""
    if spec.storage == "lvm" and spec.disk > LVM_WHOLE and medium.version in LVM_SCALES:
        raise AnswersError(
            f"The installer of {medium.version} cannot give all of a disk this large to an LVM root: it takes half.",
            hint="Use --storage direct, a disk of at most 12G, or 22.04.3 or newer.",
        )


def answers_for(spec: Spec, medium: Medium, *, watched: bool = True) -> Answers:
    """Render the answers for the installer on ``medium``."""
    tty = SERIAL.get(medium.arch or "amd64", "ttyS0")
    return render.render(spec, password_hash=hash_password(spec.user.password), tty=tty, watched=watched)


def boot_medium(medium: Medium, answers: Answers, overlay: Path, report: Reporter) -> Path:
    """Make the medium to boot from: a thin overlay of the ISO that holds only the sectors that change."""
    patch = remastered(medium, answers, report, timeout=0, more=UNCHECKED)
    disk.write_overlay(medium.path, patch.size, patch.extents, overlay)
    return overlay


def remastered(
    medium: Medium, answers: Answers, report: Reporter, *, timeout: int, more: tuple[str, ...] = ()
) -> Patch:
    """Return the change that puts the answers, the kernel arguments ``more`` and a console on ``medium``.

    ``timeout`` is the boot menu's, in seconds.
    """
    arguments = [*render.KERNEL_ARGUMENTS, *more, *CONSOLES.get(medium.arch or "amd64", CONSOLES["amd64"])]
    menus = edited_menus(medium, kernel_arguments=arguments, timeout=timeout)
    files = {**silenced(medium, render.SEED), **menus, **answers.files()}
    return plan(medium.path, files, report=report, seen=medium.survey)


def plain_machine(spec: Spec, arch: str, accelerator: str, work: Path) -> MachineSpec:
    """Describe the machine that the system is installed and booted in, without its disks.

    Raises HostError if its firmware is not installed.
    """
    flash: Flash | None = None
    if spec.firmware == "uefi" or arch == "arm64":
        flash = firmware.find(arch).fresh(work / "variables.fd")
    return MachineSpec(
        name=spec.name,
        arch=arch,
        accel=accelerator,
        cpus=spec.cpus,
        memory_mib=spec.memory,
        firmware=flash,
        nic=Nic(restrict=True),
    )


def installer(machine: MachineSpec, spec: Spec, medium: Path, target: Path, logs: Path) -> MachineSpec:
    """Return ``machine`` with the medium in its drive, the empty disk, and the port for the guest's logs."""
    return replace(
        machine,
        disks=(
            Disk(medium, bus="sata", role="cdrom", read_only=True, boot=0),
            Disk(target, cache="unsafe", boot=1),
        ),
        nic=Nic(restrict=spec.network == "offline"),
        ports=(Port(render.EVIDENCE_PORT, logs),),
    )
