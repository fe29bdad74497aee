"""The story on one page: from a live-server ISO to an image that logs in."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from builder import __version__, command
from builder.autoinstall import render as answers_module
from builder.autoinstall.password import hash_password
from builder.errors import AnswersError, InstallError, MachineError, PrebakeError, StalledError, VerificationError
from builder.events import Note, StageFinished, StageStarted
from builder.image import stages
from builder.install import evidence
from builder.install.patience import patience
from builder.install.site import Site
from builder.install.stage import Trace, install
from builder.media.image import inspect
from builder.media.menus import edited_menus
from builder.media.remaster import Patch, plan, write_iso
from builder.publish.manifest import manifest, sha256sums, write_manifest
from builder.spec import GIB, check
from builder.vm import accel, disk, firmware
from builder.vm.qemu import Disk, Flash, MachineSpec, Nic, Port, program
from builder.workspace import check_free, check_place, deliver, existing_parent, put_aside, workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.autoinstall.render import Answers
    from builder.events import Reporter
    from builder.image.facts import Check
    from builder.image.stages import Seen
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
TELLING = (InstallError, StalledError, MachineError, VerificationError)
"""Failures whose evidence is worth keeping."""


@dataclass(frozen=True)
class Job:
    """One image to make: what, from which ISO, where to, and how."""

    spec: Spec
    iso: Path
    output: Path
    accel: str = "auto"
    force: bool = False
    keep: bool = False
    install_seconds: float | None = None
    silent_seconds: float | None = None

    @property
    def target(self) -> Path:
        """The folder of the finished image."""
        return self.output / self.spec.name

    @property
    def image(self) -> Path:
        """The finished image."""
        return self.target / f"{self.spec.name}.qcow2"


@dataclass
class Story:
    """What has happened so far: how long each stage took, and what the evidence will need."""

    report: Reporter
    seconds: dict[str, float] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Report and time one stage."""
        self.report(StageStarted(name, title))
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 2)
        self.report(StageFinished(name, title, self.seconds[name]))


def build_image(job: Job, report: Reporter) -> Path:
    """Make the image ``job`` describes; return its path.

    Everything happens in a folder of its own, which takes its place by rename when it is whole. A failure that
    tells something leaves ``NAME.failed`` beside it, and whatever was there before untouched.

    Raises a PrebakeError, whose class says which part failed.
    """
    story = Story(report)
    check(job.spec)
    check_place(job.target, force=job.force)
    with story.stage("medium", "Reading the medium"):
        medium = inspect(job.iso)
        check_layout(job.spec, medium)
        check_free(existing_parent(job.output), 3 * medium.size + (1 << 30), "The build")
        probe = accel.choose(job.accel, medium.arch or "amd64", report)
    limits = patience(probe.speed, install=job.install_seconds, silence=job.silent_seconds)
    with workspace(job.output, job.spec.name) as work:
        logs = work / "result/logs"
        logs.mkdir(parents=True)
        site = Site(work, logs, limits, report)
        answers = None
        try:
            with story.stage("remaster", "Putting the answers on the medium"):
                answers = answers_for(job.spec, medium)
                overlay = boot_medium(medium, answers, work / "medium.qcow2", report)
                machine = plain_machine(job.spec, medium.arch or "amd64", probe.name, work)
            with story.stage("install", "Installing"):
                target = work / "disk.qcow2"
                disk.create(target, job.spec.disk)
                install(
                    installer(machine, job.spec, overlay, target, work / "guest-logs.tgz"),
                    answers.token,
                    site,
                    trace=story.trace,
                )
            with story.stage("settle", "First boot, and sealing"):
                seen = stages.settle_and_seal(target, machine, job.spec, site)
            with story.stage("compact", "Compacting"):
                image = work / "result" / job.image.name
                info = stages.compact(target, image, report)
            with story.stage("prove", "Proving the image"):
                again, done = stages.prove(image, machine, job.spec, site, machine_id=seen.facts["machine-id"])
                stages.refuse_bad(done)
            with story.stage("publish", "Writing manifest and checksums"):
                details = describe(job, medium, probe.name, info, seen=(seen, again), story=story)
                mask_logs(logs, (answers.password_hash,), job.spec.user.password)
                publish(job, medium, image, details)
                deliver(work / "result", job.target, force=job.force)
        except TELLING as error:
            keep_evidence(job, work, answers, story, error)
            raise
    return job.image


def check_layout(spec: Spec, medium: Medium) -> None:
    """Refuse what this medium's installer would silently do otherwise. Raises AnswersError."""
    if spec.storage == "lvm" and spec.disk > LVM_WHOLE and medium.version in LVM_SCALES:
        raise AnswersError(
            f"The installer of {medium.version} cannot give all of a disk this large to an LVM root: it takes half.",
            hint="Use --storage direct, a disk of at most 12G, or 22.04.3 or newer.",
        )


def write_remastered_iso(spec: Spec, iso: Path, target: Path, report: Reporter, *, force: bool) -> Path:
    """Write the ISO with the answers inside, for a stick, a disc or another hypervisor; return its path."""
    story = Story(report)
    check(spec)
    check_place(target, force=force)
    with story.stage("medium", "Reading the medium"):
        medium = inspect(iso)
    with story.stage("remaster", "Writing the ISO"):
        check_layout(spec, medium)
        answers = answers_for(spec, medium, watched=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_iso(medium.path, _patch(medium, answers, report, timeout=1), target, report)
    return target


def remaster_patch(spec: Spec, iso: Path, report: Reporter) -> Patch:
    """Return what `write_remastered_iso` would change."""
    check(spec)
    medium = inspect(iso)
    return _patch(medium, answers_for(spec, medium, watched=False), report, timeout=1)


def copy_whole(source: Path, target: Path, report: Reporter) -> None:
    """Copy a medium as it is; it appears at ``target`` when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_iso(source, Patch(source.stat().st_size, ()), target, report)


def image_size(image: Path) -> int:
    """Return the size of the disk in an image of any format, in bytes.

    Raises VerificationError if it is none; any file can be read as a raw disk, but not any has a boot sector.
    """
    try:
        info = disk.info(image)
    except command.CommandError as error:
        raise VerificationError(f"{image} is no disk image. {error.message}") from error
    with image.open("rb") as stream:
        if info.format == "raw" and stream.read(512)[510:] != b"\x55\xaa":
            raise VerificationError(f"{image} is no disk image: it has neither a known format nor a boot sector.")
    return info.size


def verify_image(image: Path, spec: Spec, arch: str, accelerator: str, *, work: Path, report: Reporter) -> list[Check]:
    """Boot a throw-away overlay of any image and look at it; ``work`` takes what is thrown away.

    Raises VerificationError if it does not come up.
    """
    probe = accel.choose(accelerator, arch, report)
    machine = plain_machine(spec, arch, probe.name, work)
    site = Site(work, work / "logs", patience(probe.speed), report)
    site.logs.mkdir()
    _, done = stages.prove(image, machine, spec, site)
    return done


def answers_for(spec: Spec, medium: Medium, *, watched: bool = True) -> Answers:
    """Render the answers for the installer on ``medium``."""
    tty = SERIAL.get(medium.arch or "amd64", "ttyS0")
    return answers_module.render(spec, password_hash=hash_password(spec.user.password), tty=tty, watched=watched)


def boot_medium(medium: Medium, answers: Answers, overlay: Path, report: Reporter) -> Path:
    """Make the medium to boot from: a thin overlay of the ISO that holds only the sectors that change."""
    patch = _patch(medium, answers, report, timeout=0, more=UNCHECKED)
    disk.write_overlay(medium.path, patch.size, patch.extents, overlay)
    return overlay


def _patch(medium: Medium, answers: Answers, report: Reporter, *, timeout: int, more: tuple[str, ...] = ()) -> Patch:
    arguments = [*answers_module.KERNEL_ARGUMENTS, *more, *CONSOLES.get(medium.arch or "amd64", CONSOLES["amd64"])]
    menus = edited_menus(medium, kernel_arguments=arguments, timeout=timeout)
    return plan(medium.path, {**menus, **answers.files()}, report=report)


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
        ports=(Port(answers_module.EVIDENCE_PORT, logs),),
    )


def describe(
    job: Job, medium: Medium, accelerator: str, info: disk.Info, *, seen: tuple[Seen, Seen], story: Story
) -> dict[str, Any]:
    """Return what the manifest says beyond Packer's: inputs, tools, times, sizes. Nothing secret."""
    first, again = seen
    spec = asdict(job.spec)
    spec["user"] = {"name": job.spec.user.name, "full_name": job.spec.user.full_name}
    return {
        "version": __version__,
        "spec": spec,
        "medium": {
            "file": medium.path.name,
            "volume_id": medium.volume_id,
            "info": medium.disk_info,
            "size": medium.size,
        },
        "accelerator": accelerator,
        "qemu": qemu_version(medium.arch or "amd64"),
        "seconds": story.seconds,
        "login_seconds": {"first": round(first.seconds, 1), "again": round(again.seconds, 1)},
        "image": {"virtual_size": info.size, "size": info.allocated, "compression": info.compression},
        "system": {key: again.facts.get(key) for key in ("system", "kernel", "firmware", "cmdline")},
    }


def qemu_version(arch: str) -> str:
    """Return the first line of what QEMU says of its version."""
    return command.run([program(arch), "--version"]).stdout.decode().splitlines()[0]


def publish(job: Job, medium: Medium, image: Path, details: dict[str, Any]) -> None:
    """Write manifest.json and SHA256SUMS beside the image; SOURCE_DATE_EPOCH is its time of making, if set."""
    place = image.parent
    built = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    value = manifest(job.spec.name, [image], built=built, arch=medium.arch or "amd64", details=details)
    write_manifest(place / "manifest.json", value)
    (place / "SHA256SUMS").write_text(sha256sums([image, place / "manifest.json"]))


def keep_evidence(job: Job, work: Path, answers: Answers | None, story: Story, error: PrebakeError) -> None:
    """Put what tells why the build failed into ``NAME.failed``, and say so in the error."""
    logs = work / "result/logs"
    secrets = (answers.password_hash,) if answers else ()
    evidence.unpack_guest_logs(work / "guest-logs.tgz", logs / "guest", secrets)
    if answers is not None:
        (logs / "user-data").write_text(answers.masked())
    evidence.write_report(logs, error.message, story.trace.verdict, story.trace.argv, story.trace.said)
    if job.keep and (work / "disk.qcow2").exists():
        (work / "disk.qcow2").rename(logs / "disk.qcow2")
    mask_logs(logs, secrets, job.spec.user.password)
    typed = (evidence.masked_typed(line.encode(), job.spec.user.password) for line in error.console)
    error.console = tuple(line.decode() for line in typed)
    failed = job.output / f"{job.spec.name}.failed"
    try:
        put_aside(logs, failed)
    except OSError as trouble:
        story.report(Note(f"The evidence could not be kept in {failed}: {trouble}", "warning"))
        return
    error.evidence = failed


def mask_logs(logs: Path, secrets: tuple[str, ...], password: str) -> None:
    """Mask secrets in the recorded consoles: a terminal can echo what was typed while it changed its mode."""
    for path in logs.glob("*.log"):
        data = path.read_bytes()
        clean = evidence.masked_typed(evidence.masked(data, secrets), password)
        if clean != data:
            path.write_bytes(clean)
