"""The story on one page: from a live-server ISO to an image that logs in."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder import bases, leftovers, runs
from builder.autoinstall.check import check
from builder.autoinstall.loaders import OTHER
from builder.bases import Base
from builder.boot import (
    answers_for,
    boot_medium,
    check_asked,
    check_layout,
    check_patience,
    installer,
    plain_machine,
    remastered,
    suited,
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
from builder.vm import accel, disk, features
from builder.workspace import check_free, check_place, deliver, existing_parent, workspace

if TYPE_CHECKING:
    from pathlib import Path

    from builder.autoinstall.own import OwnAnswers
    from builder.autoinstall.render import Answers
    from builder.events import Event, Reporter
    from builder.install.patience import Patience
    from builder.media.changes import Change
    from builder.media.image import Medium
    from builder.spec import Spec
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


@dataclass(frozen=True)
class Ground:
    """What a build stands on: the job, the medium, the answers, how the guest runs, how long to wait.

    A system from the cache is not removed from it as long as ``holding`` lasts.
    """

    job: Job
    medium: Medium
    answers: Answers
    accelerator: str
    limits: Patience
    story: Story
    pace: Pace
    holding: ExitStack


def _build(job: Job, report: Pace) -> Path:
    story = Story(report)
    leftovers.tell(report)
    check(job.spec, own=job.own is not None)
    check_place(job.target, force=job.force)
    with ExitStack() as holding:
        with story.stage("medium", "Reading the medium"):
            medium = inspect(job.iso)
            arch = medium.arch or "amd64"
            job = replace(job, spec=suited(job.spec, arch))
            check_asked(medium, job.release, job.arch, report)
            check_layout(job.spec, medium, job.own)
            check_free(existing_parent(job.output), 3 * medium.size + (1 << 30), "The build")
            probe = accel.choose(job.accel, arch, report)
            features.check_compression(job.compression)
            check_patience(medium, probe.name, report)
            told = {"install": job.install_seconds, "silence": job.silent_seconds, "step": job.step_seconds}
            limits = patience(probe.speed, **told)
            answers = answers_for(job.spec, medium, own=job.own, folders=job.folders)
            ground = Ground(job, medium, answers, probe.name, limits, story, report, holding)
            base = reused(ground)
            begin(ground, reused=base is not None)
        story.trace.host = {"accelerator": probe.name, "speed": probe.speed, "qemu": qemu_version(arch)}
        return _made(ground, base)


def _made(ground: Ground, base: Base | None) -> Path:
    """Make the image of a settled system, which is installed first if it is not in the cache."""
    job, story, report = ground.job, ground.story, ground.story.report
    with workspace(job.output, job.spec.name) as work:
        logs = work / "result/logs"
        logs.mkdir(parents=True)
        site = Site(work, logs, ground.limits, report)
        try:
            machine = plain_machine(job.spec, ground.medium.arch or "amd64", ground.accelerator, work)
            if base is None:
                base = settled(ground, machine, site)
            else:
                base.restore(logs, job.spec.name)
            with story.stage("class", "Putting the class on, and sealing"):
                target = work / "disk.qcow2"
                disk.create(target, None, base.disk, "qcow2")
                stages.provision_and_seal(target, machine, job.spec, site)
            with story.stage("compact", "Compacting"):
                image = work / "result" / job.image.name
                info = stages.compact(target, image, report, compression=job.compression)
            with story.stage("prove", "Proving the image"):
                firmwares = firmwares_of(image, job.spec, machine.arch, job.prove)
                plan = prove.Plan(job.prove, firmwares, base.told.facts["machine-id"], sizes=True)
                proof = prove.prove(image, machine, job.spec, site, plan)
                proof.refuse_bad()
            with story.stage("publish", "Writing manifest and checksums"):
                details = describe(job, ground.medium, machine.accel, info, base=base, proof=proof, story=story)
                finish_logs(job, logs, ground.answers.secrets)
                publish(job, ground.medium, image, details)
                deliver(work / "result", job.target, force=job.force)
        except (*TELLING, HostError) as error:
            if isinstance(error, TELLING) or (logs / CONSOLE).exists():  # before a machine ran a host has told all
                keep_evidence(job, work, ground.answers, story, error)
            raise
    return job.image


def begin(ground: Ground, *, reused: bool) -> None:
    """Say what kind of build this is, so that the rest of its time is told from builds like it."""
    ground.pace.begin(runs.kind_of(ground.job, ground.medium, ground.accelerator, reused=reused))


def reused(ground: Ground) -> Base | None:
    """Return the settled system in the cache that this build would make, if there is one, and say so."""
    job = ground.job
    if job.fresh:
        return None
    ages = job.spec.network != "offline" and job.spec.updates != "none"
    name = bases.ident(job, ground.medium, ground.answers)
    base = bases.reuse(cache_folder(), name, ages=ages, holding=ground.holding)
    if base is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(base.told.made))
        words = f"Nothing is installed: the same system was, on {when}, and is in the cache (--fresh installs anew)."
        ground.story.report(Note(words))
    return base


def settled(ground: Ground, machine: MachineSpec, site: Site) -> Base:
    """Install the system, boot it once and put it in the cache; or take it from another build that just did."""
    job, answers, story = ground.job, ground.answers, ground.story
    name = bases.ident(job, ground.medium, answers)
    with ExitStack() if job.fresh else bases.making(cache_folder(), name, site.report):
        base = reused(ground)
        if base is not None:
            base.restore(site.logs, job.spec.name)
            begin(ground, reused=True)
            return base
        with story.stage("remaster", "Putting the answers on the medium"):
            tell_added(job.own, answers, site.report)
            overlay = boot_medium(ground.medium, answers, site.work / "medium.qcow2", site.report)
        with story.stage("install", "Installing"):
            target = site.work / "disk.qcow2"
            disk.create(target, job.spec.disk)
            whole = installer(machine, job.spec, overlay, target, site.work / GUEST_LOGS)
            install(whole, answers.token, replace(site, secrets=answers.secrets), trace=story.trace)
        with story.stage("settle", "First boot"):
            seen = stages.settle(target, machine, job.spec, site)
            finish_logs(job, site.logs, answers.secrets)
            made = target.rename(site.work / "settled.qcow2")
            told = bases.Told(1, time.time(), seen.facts, seen.seconds)
            return bases.keep(cache_folder(), name, Base(made, told, site.logs), site.report, ground.holding)


def firmwares_of(image: Path, spec: Spec, arch: str, level: str) -> tuple[str, ...]:
    """Return what an image is proved under: what it is meant to start under and, on "full", all it claims."""
    if arch != "amd64":
        return ("uefi",)
    meant = (spec.firmware, OTHER[spec.firmware]) if spec.both else (spec.firmware,)
    claimed = intake.look(image).table.firmwares if level == "full" else ()
    return tuple(dict.fromkeys((*meant, *claimed)))


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
