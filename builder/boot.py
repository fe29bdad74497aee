"""What is booted, and in what: the answers on the medium, and the machine around it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builder.autoinstall import loaders, render
from builder.autoinstall.own import answers_of, load
from builder.autoinstall.password import hash_password
from builder.autoinstall.problems import Problem, advice, refuse
from builder.autoinstall.sections import installer_of
from builder.errors import AnswersError, HostError
from builder.events import Note
from builder.media.menus import edited_menus
from builder.media.remaster import Patch, plan
from builder.media.rivals import silenced
from builder.spec import GIB
from builder.vm import disk, firmware
from builder.vm.qemu import Disk, Flash, MachineSpec, Nic, Port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.autoinstall.own import OwnAnswers
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
SHORT_PROBE = ("22.04", "22.04.1", "22.04.2")
"""Installers that probe the disks for 15 seconds; since version 23.04.3 it is 90 (subiquity, pull request 1590)."""
NO_SOURCES = ("22.04", "22.04.1")
"""Installers that ignore `source`, known since their version 22.10.1, and always install the normal server."""
ROOM = GIB
"""What a system takes beside its source: kernel, initramfs, boot loader, package lists."""


def check_release(spec: Spec, release: str | None) -> None:
    """Refuse what the installer of a release ("22.04.1") would silently do otherwise. Raises AnswersError."""
    problems = []
    if spec.storage == "lvm" and not spec.both and spec.disk > LVM_WHOLE and release in LVM_SCALES:
        words = (
            f"The installer of {release} ignores `sizing-policy: all` and gives only half of a disk this large to an "
            "LVM root."
        )
        hint = "Use `storage: direct`, a disk of at most 12G, or 22.04.3 or newer."
        problems.append(Problem(("storage",), words, hint))
    if spec.source != "server" and release in NO_SOURCES:
        words = f"The installer of {release} ignores `source` and installs the normal server."
        problems.append(Problem(("source",), words, "Leave `source` out, or use 22.04.2 or newer."))
    refuse(problems, "The machine")


def check_asked(medium: Medium, release: str | None, arch: str | None, report: Reporter) -> None:
    """Compare a medium with the release and the architecture that were asked for, if they were.

    Another release earns a warning: the answers are made for the one on the medium. Raises AnswersError for another
    architecture.
    """
    if arch and medium.arch and arch != medium.arch:
        raise AnswersError(
            f"The class is for {arch}, and `{medium.path.name}` is for {medium.arch}.",
            hint="Give the ISO of the other architecture, or change `arch`.",
        )
    numbers = release if release and release[0].isdigit() else None
    if numbers and medium.version and numbers not in {medium.version, medium.series}:
        words = (
            f"`{medium.path.name}` holds {medium.version}, not {numbers}, which was asked for. {medium.version} it is."
        )
        report(Note(words, "warning"))


def check_patience(medium: Medium, accelerator: str, report: Reporter) -> None:
    """Warn of an installer that gives the disks less time than they take where everything is emulated."""
    if accelerator == "tcg" and medium.version in SHORT_PROBE:
        words = (
            f"The installer of {medium.version} gives up on disks that it has not understood within 15 seconds, which "
            "happens under emulation. If it does: use 22.04.3 or newer, or a host with hardware virtualisation."
        )
        report(Note(words, "warning"))


def check_layout(spec: Spec, medium: Medium, own: OwnAnswers | None = None) -> None:
    """Refuse what this medium's installer would do otherwise, or fail at. Raises AnswersError."""
    check_release(spec, medium.version)
    wanted = render.SOURCES[spec.source]
    if own is not None:
        installer = installer_of(medium.version)
        load(own.path, installer, tuple(medium.sources))
        wanted = (own.answers.get("source") or {}).get("id", wanted)
    elif medium.sources and wanted not in medium.sources:
        raise AnswersError(f"The medium has no source `{wanted}`.", hint=advice(wanted, medium.sources))
    need = medium.sources.get(wanted, 0) + ROOM + (loaders.ESP if spec.both else 0)
    if spec.disk < need:
        raise AnswersError(
            f"A disk of {spec.disk / GIB:.1f} GiB is too small: {wanted} on this medium takes "
            f"{medium.sources[wanted] / GIB:.1f} GiB, and the system needs {ROOM / GIB:.0f} GiB beside it.",
            hint=f"Give a disk of at least {-(-need // GIB)}G.",
        )


def answers_for(
    spec: Spec,
    medium: Medium,
    *,
    watched: bool = True,
    own: OwnAnswers | None = None,
    folders: Sequence[Path] = (),
) -> Answers:
    """Return the answers for the installer on ``medium``: rendered, or an instructor's ``own``.

    ``folders`` may hold templates that go before ours. Raises AnswersError.
    """
    tty = SERIAL.get(medium.arch or "amd64", "ttyS0")
    if own is not None:
        return answers_of(own, tty=tty, watched=watched)
    hashed = spec.user.password_hash or hash_password(spec.user.password)
    installer = installer_of(medium.version)
    return render.render(spec, password_hash=hashed, tty=tty, watched=watched, installer=installer, folders=folders)


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


def suited(spec: Spec, arch: str) -> Spec:
    """Return ``spec`` for a medium of that architecture: only PCs have two firmwares.

    Raises HostError if the image is to start under UEFI and this host has no such firmware to prove it with.
    """
    spec = replace(spec, both=spec.both and arch == "amd64")
    if spec.both:
        try:
            firmware.find(arch)
        except HostError as error:
            error.hint = f"{error.hint} Or, for an image that starts under BIOS alone: --firmware bios.".strip()
            raise
    return spec


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
        nic=Nic(restrict=spec.network == "offline" or spec.updates == "none"),
        ports=(Port(render.EVIDENCE_PORT, logs),),
    )
