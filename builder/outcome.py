"""What a build leaves: beside the image what it is, after a failure what tells why."""

from __future__ import annotations

import os
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from builder import __version__, command
from builder.autoinstall.network import without_credentials
from builder.errors import PrebakeError
from builder.events import Note
from builder.install import evidence
from builder.install.guestlogs import GUEST
from builder.install.record import CAST, write_cast
from builder.publish.manifest import manifest, sha256, sha256sums, write_manifest
from builder.vm import disk
from builder.vm.qemu import program
from builder.workspace import put_aside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.autoinstall.render import Answers
    from builder.bases import Base
    from builder.image.prove import Proof, Seen
    from builder.media.image import Medium
    from builder.spec import Spec
    from builder.story import Job, Story


GUEST_LOGS = "guest-logs.tgz"
"""The file at the other end of the guest's evidence port, in the folder of the build."""
TEXTS = frozenset({".log", ".jsonl", ".json", ".txt"})


def describe(
    job: Job, medium: Medium, accelerator: str, info: disk.Info, *, base: Base, proof: Proof, story: Story
) -> dict[str, Any]:
    """Return what the manifest says beyond Packer's: inputs, tools, times, sizes, what was proved. Nothing secret.

    A medium whose SHA-256 nobody had to know before is counted now, when it has been read anyway.
    """
    again = proof.first
    return {
        "version": __version__,
        "spec": public(job.spec),
        "medium": {
            "file": medium.path.name,
            "volume_id": medium.volume_id,
            "info": medium.disk_info,
            "size": medium.size,
            "origin": {**job.origin.to_json(), "sha256": job.origin.sha256 or sha256(medium.path)},
        },
        "accelerator": accelerator,
        "qemu": qemu_version(medium.arch or "amd64"),
        "base": {"made": int(base.told.made), "reused": "install" not in story.seconds},
        "seconds": story.seconds,
        "login_seconds": {"first": round(base.told.seconds, 1), "again": round(again.seconds, 1)},
        "image": {"virtual_size": info.size, **used(again), "size": info.allocated, "compression": info.compression},
        **({"sizes": again.sizes} if again.sizes else {}),
        "system": {key: again.facts.get(key) for key in ("system", "kernel", "firmware", "cmdline")},
        "proved": proof.to_json(),
    }


def used(seen: Seen) -> dict[str, int]:
    """Return how many bytes of the disk the root file system has in use, or nothing where the system does not tell."""
    told = seen.facts.get("root-used", "")
    return {"used": int(told)} if told.isdecimal() else {}


def public(spec: Spec) -> dict[str, Any]:
    """Return a machine for everybody to read: no password, no hash, no command, no file's content, no credentials."""
    content = spec.content
    found = {one.name: getattr(spec, one.name) for one in fields(spec)}
    return {
        **found,
        "user": {"name": spec.user.name, "full_name": spec.user.full_name},
        "content": {
            "packages": content.packages,
            "snaps": [one.name for one in content.snaps],
            "files": [one.path for one in content.files],
            "commands": len(content.commands),
        },
        "proxy": without_credentials(spec.proxy),
        "mirror": without_credentials(spec.mirror),
        "netplan": spec.netplan is not None,
        "autoinstall": sorted(spec.autoinstall),
    }


def qemu_version(arch: str) -> str:
    """Return the first line of what QEMU says of its version."""
    return command.run([program(arch), "--version"]).stdout.decode().splitlines()[0]


def publish(job: Job, medium: Medium, image: Path, details: dict[str, Any]) -> None:
    """Put the recording, manifest.json and SHA256SUMS beside the image.

    SOURCE_DATE_EPOCH is its time of making, if set.
    """
    place = image.parent
    (place / "logs" / CAST).rename(place / CAST)
    built = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    value = manifest(job.spec.name, [image], built=built, arch=medium.arch or "amd64", details=details)
    write_manifest(place / "manifest.json", value)
    (place / "SHA256SUMS").write_text(sha256sums([image, place / "manifest.json"]))


def keep_evidence(job: Job, work: Path, answers: Answers | None, story: Story, error: PrebakeError) -> None:
    """Put what tells why the build failed into ``NAME.failed``, and say so in the error. Never raises.

    What cannot be written is left out with a warning, so that the error stays what it is.
    """
    logs = work / "result/logs"
    secrets = answers.secrets if answers else ()
    error.message = evidence.masked(error.message.encode(), secrets).decode()
    shown = (evidence.masked(line.encode("utf-8", "replace"), secrets) for line in error.console)
    error.console = tuple(evidence.masked_typed(line, job.spec.user.password).decode() for line in shown)
    trace = story.trace
    if not job.keep:
        for path in (work / "disk.qcow2", work / "medium.qcow2", work / "settled.qcow2"):
            path.unlink(missing_ok=True)  # what follows needs room
    evidence.unpack_guest_logs(work / GUEST_LOGS, logs / GUEST, secrets)
    steps: list[Callable[[], object]] = [
        lambda: evidence.write_report(logs, error.message, trace.verdict, trace.argv, trace.said, more=trace.host),
        lambda: finish_logs(job, logs, secrets),
    ]
    if answers is not None:
        steps.insert(0, lambda: (logs / "user-data").write_text(answers.masked(), encoding="utf-8"))
    failed = job.output / f"{job.spec.name}.failed"
    for step in steps:
        _done(step, failed, story)
    if _done(lambda: put_aside(logs, failed), failed, story):
        error.evidence = failed
        if job.keep and (work / "disk.qcow2").exists():
            _done(lambda: kept_disk(work / "disk.qcow2", failed / "disk.qcow2"), failed, story)


def kept_disk(source: Path, target: Path) -> None:
    """Put a disk among the evidence, on its own: of an overlay with all that is behind it."""
    if disk.info(source).backing is None:
        source.rename(target)
    else:
        disk.convert(source, target)


def _done(step: Callable[[], object], failed: Path, story: Story) -> bool:
    """Do one step of keeping evidence, and say whether that went well."""
    try:
        step()
    except (OSError, ValueError, PrebakeError) as trouble:
        story.report(Note(f"The evidence could not be kept as a whole in {failed}: {trouble}", "warning"))
        return False
    return True


def finish_logs(job: Job, logs: Path, secrets: tuple[str, ...]) -> None:
    """Make the recording of the console, and mask secrets in all that was recorded.

    A terminal can echo what was typed while it changed its mode.
    """
    password = job.spec.user.password
    write_cast(logs, lambda raw: evidence.blotted(raw, secrets, password), job.spec.name)
    for path in [path for path in logs.iterdir() if path.suffix in TEXTS]:
        data = path.read_bytes()
        clean = evidence.masked_typed(evidence.masked(data, secrets), password)
        if clean != data:
            path.write_bytes(clean)
