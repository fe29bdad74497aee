"""The story on one page: from a live-server ISO to an image that logs in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builder import leftovers, runs
from builder.autoinstall.check import check
from builder.boot import (
    answers_for,
    boot_medium,
    check_asked,
    check_layout,
    check_patience,
    installer,
    plain_machine,
    remastered,
)
from builder.errors import HostError, InstallError, MachineError, StalledError, VerificationError
from builder.events import Note
from builder.image import intake, prove, stages
from builder.install.patience import patience
from builder.install.record import CONSOLE
from builder.install.site import Site
from builder.install.stage import install
from builder.media.changes import stated, totals
from builder.media.image import inspect
from builder.media.remaster import Patch, write_iso
from builder.outcome import GUEST_LOGS, describe, finish_logs, keep_evidence, publish, qemu_version
from builder.pace import Pace
from builder.store import cache_folder
from builder.story import Story
from builder.vm import accel, disk
from builder.workspace import check_free, check_place, deliver, existing_parent, workspace

if TYPE_CHECKING:
    from pathlib import Path

    from builder.autoinstall.own import OwnAnswers
    from builder.autoinstall.render import Answers
    from builder.events import Event, Reporter
    from builder.media.changes import Change
    from builder.story import IsoJob, Job
    from builder.vm.qemu import MachineSpec

TELLING = (InstallError, StalledError, MachineError, VerificationError)
"""Failures whose evidence is worth keeping."""


def build_image(job: Job, report: Reporter) -> Path:
    """Make the image ``job`` describes; return its path.

    Everything happens in a folder of its own, which takes its place by rename when it is whole. A failure that
    tells something leaves ``NAME.failed`` beside it, and whatever was there before untouched. ``report`` is called
    from another thread too, but never twice at once; none is left when this returns.

    Raises a PrebakeError, whose class says which part failed.
    """
    with Pace(report, cache_folder() / runs.NAME) as pace:
        return _build(job, pace)


def _build(job: Job, report: Pace) -> Path:
    story = Story(report)
    leftovers.tell(report)
    check(job.spec, own=job.own is not None)
    check_place(job.target, force=job.force)
    with story.stage("medium", "Reading the medium"):
        medium = inspect(job.iso)
        check_asked(medium, job.release, job.arch, report)
        check_layout(job.spec, medium, job.own)
        check_free(existing_parent(job.output), 3 * medium.size + (1 << 30), "The build")
        probe = accel.choose(job.accel, medium.arch or "amd64", report)
        report.begin(runs.kind_of(job, medium, probe.name))
        check_patience(medium, probe.name, report)
    story.trace.host = {"accelerator": probe.name, "speed": probe.speed, "qemu": qemu_version(medium.arch or "amd64")}
    limits = patience(probe.speed, install=job.install_seconds, silence=job.silent_seconds)
    with workspace(job.output, job.spec.name) as work:
        logs = work / "result/logs"
        logs.mkdir(parents=True)
        site = Site(work, logs, limits, report)
        answers = None
        try:
            with story.stage("remaster", "Putting the answers on the medium"):
                answers = answers_for(job.spec, medium, own=job.own, folders=job.folders)
                tell_added(job.own, answers, report)
                overlay = boot_medium(medium, answers, work / "medium.qcow2", report)
                machine = plain_machine(job.spec, medium.arch or "amd64", probe.name, work)
            with story.stage("install", "Installing"):
                target = work / "disk.qcow2"
                disk.create(target, job.spec.disk)
                install(
                    installer(machine, job.spec, overlay, target, work / GUEST_LOGS),
                    answers.token,
                    replace(site, secrets=answers.secrets),
                    trace=story.trace,
                )
            with story.stage("settle", "First boot, and sealing"):
                seen = stages.settle_and_seal(target, machine, job.spec, site)
            with story.stage("compact", "Compacting"):
                image = work / "result" / job.image.name
                info = stages.compact(target, image, report)
            with story.stage("prove", "Proving the image"):
                plan = prove.Plan(job.prove, firmwares_of(image, machine, job.prove), seen.facts["machine-id"])
                proof = prove.prove(image, machine, job.spec, site, plan)
                proof.refuse_bad()
            with story.stage("publish", "Writing manifest and checksums"):
                details = describe(job, medium, probe.name, info, first=seen, proof=proof, story=story)
                finish_logs(job, logs, answers.secrets)
                publish(job, medium, image, details)
                deliver(work / "result", job.target, force=job.force)
        except (*TELLING, HostError) as error:
            if isinstance(error, TELLING) or (logs / CONSOLE).exists():  # before a machine ran a host has told all
                keep_evidence(job, work, answers, story, error)
            raise
    return job.image


def firmwares_of(image: Path, machine: MachineSpec, level: str) -> tuple[str, ...]:
    """Return what an image is proved under: what it was installed under and, on the level "full", all it claims."""
    installed = "bios" if machine.firmware is None else "uefi"
    claimed = intake.look(image).table.firmwares if level == "full" else ()
    return tuple(dict.fromkeys((installed, *(one for one in claimed if machine.arch == "amd64"))))


def write_remastered_iso(job: IsoJob, target: Path, report: Reporter, *, force: bool) -> Path:
    """Write the ISO with the answers inside, for a stick, a disc or another hypervisor; return its path."""
    story = Story(report)
    check(job.spec, login=False, own=job.own is not None)
    check_place(target, force=force)
    with story.stage("medium", "Reading the medium"):
        medium = inspect(job.iso)
    with story.stage("remaster", "Writing the ISO"):
        check_layout(job.spec, medium, job.own)
        answers = answers_for(job.spec, medium, watched=False, own=job.own, folders=job.folders)
        target.parent.mkdir(parents=True, exist_ok=True)
        notes: list[Event] = []  # from another thread, so they are told afterwards
        write_iso(medium.path, lambda: remastered(medium, answers, notes.append, timeout=1), target, report)
        for note in notes:
            report(note)
    return target


def remaster_changes(job: IsoJob, report: Reporter) -> tuple[Change, ...]:
    """Return every run of sectors that `write_remastered_iso` would change, and what lies there."""
    check(job.spec, login=False, own=job.own is not None)
    medium = inspect(job.iso)
    check_layout(job.spec, medium, job.own)
    answers = answers_for(job.spec, medium, watched=False, own=job.own, folders=job.folders)
    patch = remastered(medium, answers, report, timeout=1)
    changes = stated(medium.path, patch)
    report(Note(totals(medium.size, patch, changes)))
    return changes


def tell_added(own: OwnAnswers | None, answers: Answers, report: Reporter) -> None:
    """Say what was added to an instructor's own answers."""
    for line in answers.added if own else ():
        report(Note(f"Added to {own.path.name if own else ''}: {line}"))


def copy_whole(source: Path, target: Path, report: Reporter) -> None:
    """Copy a medium as it is; it appears at ``target`` when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_iso(source, Patch(source.stat().st_size, ()), target, report)
