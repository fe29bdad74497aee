"""The story of `prebake verify`: any image, also one not made here, looked at, booted, judged."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import leftovers
from builder.boot import plain_machine
from builder.errors import VerificationError
from builder.events import Note
from builder.image import intake, prove
from builder.image.facts import Check
from builder.install import evidence
from builder.install.patience import patience
from builder.install.site import Site
from builder.leftovers import scratch
from builder.outcome import TEXTS
from builder.publish.manifest import sha256
from builder.spec import Spec, User
from builder.story import Story
from builder.vm import accel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.events import Reporter
    from builder.image.intake import Found
    from builder.install.patience import Patience

FIRMWARES = {"bios": "BIOS", "uefi": "UEFI"}


@dataclass(frozen=True)
class Asked:
    """What is to be verified, and how.

    An empty ``user`` is the manifest's, or the lesson's; ``firmware`` "auto" is what the image claims to start under;
    ``strict`` holds it to prebake's own rules wherever it was made; ``seconds`` is the longest wait for a login prompt,
    None what this host needs; ``evidence`` is the folder for the consoles of a proof that went wrong.
    """

    image: Path
    evidence: Path
    user: str = ""
    password: str = User.password
    arch: str = "amd64"
    firmware: str = "auto"
    accel: str = "auto"
    memory: int = Spec.memory
    cpus: int = Spec.cpus
    level: str = "quick"
    strict: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class Verdict:
    """All checks, what went wrong with boots, the machines by their name, and where the evidence is, if any is."""

    checks: tuple[Check, ...]
    errors: tuple[VerificationError, ...] = ()
    machines: Mapping[str, str] | None = None
    evidence: Path | None = None

    @property
    def good(self) -> bool:
        """Whether all that is required holds."""
        return not any(check.wrong for check in self.checks)


def verify(asked: Asked, report: Reporter) -> Verdict:
    """Look at an image, then boot throw-away overlays of it; the image is only read.

    An image that cannot be booted is told in the verdict. Raises MachineError and HostError for troubles of this host.
    """
    leftovers.tell(report)
    story = Story(report)
    with story.stage("verify", f"Verifying {asked.image.name}"):
        try:
            found = intake.look(asked.image)
        except VerificationError as error:
            return Verdict((Check("a whole image", good=False, found=error.message),), (error,))
        return _booted(asked, found, report)


def _booted(asked: Asked, found: Found, report: Reporter) -> Verdict:
    ours = intake.manifest_beside(asked.image)
    spec = _spec(asked, found, ours)
    strict = asked.strict or ours is not None
    if ours is None and not asked.strict:
        words = "No manifest of prebake's names this image: what is only prebake's way is told as a note."
        report(Note(words))
    before = [Check("a whole image", good=True, found=f"{found.info.format}, {found.info.size} bytes"), _claims(found)]
    if found.leaks:
        before.append(Check("no lost clusters", good=False, found=f"{found.leaks} take room", required=strict))
    if ours is not None:
        same = sha256(asked.image) == ours.get("sha256")
        before.append(Check("as its manifest says", same, "the checksum is its own" if same else "another checksum"))
    probe = accel.choose(asked.accel, asked.arch, report)
    with scratch(Path(tempfile.gettempdir()), "prebake-verify-", f"the proof of {asked.image.name}") as work:
        site = Site(work, work / "logs", _patience(asked, patience(probe.speed)), report)
        site.logs.mkdir()
        machine = plain_machine(spec, asked.arch, probe.name, work)
        plan = prove.Plan(asked.level, _firmwares(asked, found), strict=strict)
        proof = prove.prove(asked.image, machine, spec, site, plan)
        errors = tuple(boot.error for boot in proof.boots if boot.error is not None)
        verdict = Verdict(
            (*before, *proof.checks), errors, {boot.stranger.name: boot.stranger.title for boot in proof.boots}
        )
        return verdict if verdict.good else _kept(verdict, asked, site.logs, report)


def _claims(found: Found) -> Check:
    names = [FIRMWARES[one] for one in found.table.firmwares]
    return Check("claims to start under", good=True, found=" and ".join(names))


def _firmwares(asked: Asked, found: Found) -> tuple[str, ...]:
    if asked.arch != "amd64":
        return ("uefi",)
    return found.table.firmwares if asked.firmware == "auto" else (asked.firmware,)


def _patience(asked: Asked, usual: Patience) -> Patience:
    if asked.seconds is None:
        return usual
    return replace(usual, first=min(usual.first, asked.seconds), boot=asked.seconds)


def _spec(asked: Asked, found: Found, ours: Mapping[str, Any] | None) -> Spec:
    """Return what the image has to be: what its manifest says of it, where prebake made it."""
    told = _part(_part(ours, "prebake"), "spec")
    name = asked.user or str(_part(told, "user").get("name") or User.name)
    return Spec(
        name="verify",
        disk=found.info.size,
        memory=asked.memory,
        cpus=asked.cpus,
        user=User(name, password=asked.password),
        netplan={} if told.get("netplan") else None,
        ssh_server=bool(told.get("ssh_server", False)),
        whole_disk=bool(told.get("whole_disk", True)),
        swap=told.get("swap") if isinstance(told.get("swap"), int) else None,
        cloud_init=str(told.get("cloud_init") or ""),
        firmware_budget=told.get("firmware_budget") if isinstance(told.get("firmware_budget"), int) else None,
    )


def _part(told: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    """Return a part of a manifest; what is there may be anything."""
    part = (told or {}).get(key)
    return part if isinstance(part, dict) else {}


def _kept(verdict: Verdict, asked: Asked, logs: Path, report: Reporter) -> Verdict:
    """Keep the consoles and pictures of a proof that went wrong, without the password."""
    for path in (path for path in logs.iterdir() if path.suffix in TEXTS):
        path.write_bytes(evidence.masked_typed(path.read_bytes(), asked.password))
    told = "\n".join([*(str(one) for one in verdict.checks if one.wrong), *(one.message for one in verdict.errors)])
    (logs / "error.txt").write_text(told + "\n")
    try:
        if (asked.evidence / "error.txt").is_file():
            shutil.rmtree(asked.evidence)
        shutil.copytree(logs, asked.evidence)
    except OSError as trouble:
        report(Note(f"The evidence could not be kept in {asked.evidence}: {trouble}", "warning"))
        return verdict
    for error in verdict.errors:
        error.evidence = asked.evidence / error.evidence.name if error.evidence else asked.evidence
    return replace(verdict, evidence=asked.evidence)
