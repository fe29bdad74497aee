"""The proof of a finished image: booted on strangers' machines, always on overlays that are thrown away."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from builder.errors import InstallError, StalledError, VerificationError
from builder.events import Phase
from builder.image import expect, sizes, strangers
from builder.image.facts import Check
from builder.image.provision import lists, proof
from builder.image.seal import freed
from builder.image.session import payload_disk, session
from builder.vm import disk, firmware
from builder.vm.qemu import Disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from builder.events import Event, Reporter
    from builder.image.session import Session
    from builder.image.strangers import Stranger
    from builder.install.site import Site
    from builder.spec import Spec
    from builder.vm.qemu import MachineSpec


@dataclass(frozen=True)
class Seen:
    """What a system said of itself, and how many seconds it took to its login prompt; ``sizes`` as `sizes.parse`'s."""

    facts: dict[str, str]
    seconds: float
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How much is proved: ``level`` "quick" or "full", under ``firmwares``, at least one.

    ``machine_id`` is that of the system the image was made from, if known; without ``strict`` an image need not be as
    prebake makes them; ``sizes`` has the first boot count what takes the room.
    """

    level: str = "quick"
    firmwares: Sequence[str] = ("bios",)
    machine_id: str | None = None
    strict: bool = True
    sizes: bool = False


@dataclass(frozen=True)
class Boot:
    """One boot: on which machine, what was seen (None: it did not come up, and ``error`` says why), what holds."""

    stranger: Stranger
    seen: Seen | None
    checks: tuple[Check, ...]
    error: VerificationError | None = None


@dataclass
class Proof:
    """All boots of an image, and ``between`` them what only two of them together tell."""

    level: str
    boots: list[Boot] = field(default_factory=list)
    between: list[Check] = field(default_factory=list)

    @property
    def checks(self) -> list[Check]:
        """Every check, boot by boot."""
        return [*(check for boot in self.boots for check in boot.checks), *self.between]

    @property
    def first(self) -> Seen:
        """What was seen in the first boot. Raises VerificationError if it did not come up."""
        if not self.boots or self.boots[0].seen is None:
            raise self._error() or VerificationError("The image was not booted.")
        return self.boots[0].seen

    def refuse_bad(self) -> None:
        """Raise VerificationError if a boot failed, or one that names every check that is wrong."""
        error = self._error()
        if error is not None:
            raise error
        refuse_bad(self.checks)

    def _error(self) -> VerificationError | None:
        return next((boot.error for boot in self.boots if boot.error is not None), None)

    def to_json(self) -> dict[str, Any]:
        """Return what was proved, for the manifest."""
        return {
            "level": self.level,
            "boots": [
                {
                    "boot": boot.stranger.name,
                    "machine": boot.stranger.title,
                    "login_seconds": round(boot.seen.seconds, 1) if boot.seen else None,
                    "checks": [check.name for check in boot.checks],
                }
                for boot in self.boots
            ],
            "between": [check.name for check in self.between],
        }


def refuse_bad(done: Sequence[Check]) -> None:
    """Raise VerificationError that names every check that is wrong, if there is one."""
    wrong = [check for check in done if check.wrong]
    if wrong:
        raise VerificationError("The image is not what it should be:\n" + listed(wrong))


def listed(wrong: Sequence[Check]) -> str:
    """Return checks as lines for a message."""
    return "\n".join(f"    {f'{one.boot}: ' if one.boot else ''}{one.name}: {one.found}" for one in wrong)


def prove(image: Path, machine: MachineSpec, spec: Spec, site: Site, plan: Plan) -> Proof:
    """Boot overlays of the image on the machines of the plan; ``machine`` says what else they have.

    The image itself is only read. A first boot that fails ends the proof, a later one only makes it a bad one; the
    errors are in the result. Raises MachineError if QEMU does not run, HostError if this host lacks what is needed.
    """
    prover = _Prover(image, machine, spec, site, plan)
    for group in strangers.chosen(plan.level, plan.firmwares):
        prover.side_by_side(group)
        if prover.done.boots[0].error is not None:
            break
    return prover.done


class _Prover:
    """Boots the machines of one plan, and remembers."""

    def __init__(self, image: Path, machine: MachineSpec, spec: Spec, site: Site, plan: Plan) -> None:
        self._image = image
        self._info = disk.info(image)
        self._machine = machine
        self._spec = spec
        self._site = site
        self._plan = plan
        groups = strangers.chosen(plan.level, plan.firmwares)
        self._total = sum(map(len, groups))
        self._shared = any(len(group) > 1 for group in groups)
        self._payload = payload_disk(site.work / "payload.tar", lists(spec.content))
        self.done = Proof(plan.level)

    def side_by_side(self, group: Sequence[Stranger]) -> None:
        """Boot a machine and, while it runs, those after it; then compare them."""
        stranger, *others = group
        overlay = self._overlay(stranger)
        place = len(self.done.boots)
        try:
            with self._session(stranger, overlay) as system:
                seen = self._look(stranger, system)
                for index in range(len(others)):
                    self.side_by_side(others[index : index + 1])
                if others:
                    system.shell.must(["true"], seconds=system.limits.answer)  # it has not stopped for the others
                    self._compare(seen, self.done.boots[place + 1 :])
        except (InstallError, StalledError) as error:
            self._failed(stranger, error, place)
        finally:
            overlay.unlink(missing_ok=True)

    def _overlay(self, stranger: Stranger) -> Path:
        overlay = self._site.work / f"{_log(stranger)}.qcow2"
        size = self._info.size + stranger.grown if stranger.grown else None
        disk.create(overlay, size, backing=self._image.absolute(), backing_format=self._info.format)
        return overlay

    def _session(self, stranger: Stranger, overlay: Path) -> AbstractContextManager[Session]:
        flash = None
        if stranger.firmware == "uefi":
            # Variables that have never seen the installer: the image must be found by its own means.
            flash = firmware.find(self._machine.arch).fresh(self._site.work / f"{_log(stranger)}.fd")
        memory = self._machine.memory_mib
        machine = replace(
            self._machine,
            disks=(Disk(overlay, cache="unsafe", boot=1, bus=stranger.bus), self._payload),
            nic=stranger.card,
            firmware=flash,
            memory_mib=min(memory, strangers.MEMORY) if self._shared else memory,
        )
        site = replace(self._site, report=self._share(stranger))
        return session(machine, _log(stranger), self._spec.user, site)

    def _share(self, stranger: Stranger) -> Reporter:
        """Return a reporter whose phases are a part of all boots'."""
        if self._total == 1:
            return self._site.report
        number, total, report = len(self.done.boots), self._total, self._site.report

        def tell(event: Event) -> None:
            if isinstance(event, Phase):
                title = f"{event.title} ({number + 1}/{total}: {stranger.title})"
                event = Phase(f"{stranger.name}-{event.name}", title, (number + event.done) / total)
            report(event)

        return tell

    def _look(self, stranger: Stranger, system: Session) -> Seen:
        facts = system.facts()
        plan = self._plan
        found = [
            Check(expect.LOGIN, good=True, found=f"after {system.seconds:.0f} s"),
            *expect.seen(stranger, facts, self._spec, plan.machine_id, strict=plan.strict),
            *proof(system, self._spec.content),
            replace(freed(facts, self._info), required=plan.strict),
        ]
        counted = sizes.measured(system) if plan.sizes and not self.done.boots else {}
        seen = Seen(facts, system.seconds, counted)
        self.done.boots.append(Boot(stranger, seen, tuple(expect.named(stranger.name, found))))
        return seen

    def _compare(self, seen: Seen, beside: Sequence[Boot]) -> None:
        for boot in beside:
            if boot.seen is None:
                continue
            found = list(expect.twins(seen.facts, boot.seen.facts))
            if boot.stranger.grown:
                found.append(expect.grows(seen.facts, boot.seen.facts, boot.stranger.grown))
            self.done.between += expect.named("side by side", found)

    def _failed(self, stranger: Stranger, error: InstallError | StalledError, place: int) -> None:
        message = f"On a machine with {stranger.title}: {error.message}"
        told = VerificationError(message, hint=error.hint, console=error.console, evidence=error.evidence)
        told.__cause__ = error
        check = Check(expect.LOGIN, good=False, found=error.message, boot=stranger.name)
        before = self.done.boots[place].checks if place < len(self.done.boots) else ()
        self.done.boots[place : place + 1] = [Boot(stranger, None, (*before, check), told)]


def _log(stranger: Stranger) -> str:
    return "proof" if stranger.name == strangers.FIRST.name else f"proof-{stranger.name}"
