"""Which accelerators work, found by running a guest under each.

That a device opens or a library answers proves nothing: nested hypervisors exist under which /dev/kvm opens,
virtual machines can be made, and guests then hang. So a small firmware image (``builder.vm.probe``) is run
under each candidate. It says how far the guest came, and the duration of its timed loop says how fast.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder import command
from builder.errors import HostError, UsageError
from builder.events import Fallback, Note, silent
from builder.vm import kvm, qemu
from builder.vm.trial import explain, passed, run_trial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.events import Reporter

REFERENCE_SECONDS = 0.15
"""The timed loop under tcg on a quiet two-core cloud machine (x86-64, QEMU 7.2), measured: speed 1.0."""

EMULATED_MINUTES = (30, 50)
"""Minutes an image of Ubuntu Server takes at speed 1.0, from least to most.

The installs alone were seen to take 871 and 1429 seconds (real server ISOs, emulation on two cores); first boot,
sealing and proof take about as long again.
"""

HARDWARE_MINUTES = (5, 10)
"""The same where hardware runs the guests."""

SLOWEST = 0.5
"""The speed below which an estimate grows no longer: a lower one, measured for a moment, is mostly other load."""

SYSTEMS: Mapping[str, str] = {"kvm": "Linux", "hvf": "macOS", "whpx": "Windows"}
"""The operating system of each hardware accelerator."""


@dataclass(frozen=True)
class Host:
    """The computer prebake runs on: "Linux", "macOS" or "Windows", and "amd64", "arm64" or another name."""

    system: str
    arch: str

    @classmethod
    def here(cls) -> Host:
        """Return this computer."""
        system, machine = platform.system(), platform.machine().lower()
        return cls(
            {"Darwin": "macOS"}.get(system, system), {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
        )


@dataclass(frozen=True)
class Probe:
    """Whether an accelerator is usable; if not, why, what would help, and the cause in a word (``kvm.Trouble``).

    ``letters`` tells how far the test guest came (``probe.STEPS``). ``seconds`` is the time its loop took,
    ``speed`` that of the reference divided by it: 1.0 is emulation on a plain cloud machine, hardware gives
    about 10.
    """

    name: str
    usable: bool
    reason: str | None = None
    fix: str | None = None
    letters: str = ""
    seconds: float | None = None
    cause: str = ""

    @property
    def minutes(self) -> tuple[int, int]:
        """Return about how many minutes an image of Ubuntu Server takes with it, at least and at most."""
        if self.name != "tcg":
            return HARDWARE_MINUTES
        speed = max(self.speed or 1.0, SLOWEST)
        least, most = (
            5 * round(max(minutes / speed, floor) / 5)
            for minutes, floor in zip(EMULATED_MINUTES, HARDWARE_MINUTES, strict=True)
        )
        return least, most

    @property
    def speed(self) -> float | None:
        """Return the speed relative to the reference, or None if nothing was measured."""
        return None if self.seconds is None else REFERENCE_SECONDS / max(self.seconds, 1e-4)

    def as_json(self) -> dict[str, object]:
        """Return what a program wants to know, as values that JSON has."""
        speed = None if self.speed is None else round(self.speed, 2)
        cause = self.cause or None
        return {"usable": self.usable, "reason": self.reason, "fix": self.fix, "cause": cause, "speed": speed}


def candidates(host: Host, guest_arch: str) -> tuple[str, ...]:
    """Return the accelerators to try for such a guest on such a host, the best first, "tcg" always last."""
    return (*(name for name in SYSTEMS if absent(name, host, guest_arch) is None), "tcg")


def absent(name: str, host: Host, guest_arch: str) -> str | None:
    """Return why the accelerator cannot exist for such a guest on such a host, or None if it can."""
    if name == "tcg":
        return None
    if host.system != SYSTEMS[name]:
        return f"{name} belongs to {SYSTEMS[name]}, and this is {host.system}"
    if host.arch != guest_arch:
        return f"{name} runs {host.arch} guests on this computer, and this is an {guest_arch} guest"
    if name == "whpx" and guest_arch != "amd64":
        return "whpx runs amd64 guests only"
    return None


def probe_one(name: str, guest_arch: str, host: Host | None = None) -> Probe:
    """Find out whether accelerator ``name`` runs ``guest_arch`` guests, by running one.

    Raises HostError if the emulator is not installed and UsageError if the architecture is unknown.
    """
    host = host or Host.here()
    command.find(qemu.program(guest_arch))
    missing = absent(name, host, guest_arch)
    if missing is not None:
        return Probe(name, usable=False, reason=missing)
    if name == "kvm":
        trouble = kvm.open_trouble(host.arch)
        if trouble is not None:
            return Probe(name, usable=False, reason=trouble.reason, fix=trouble.fix, cause=trouble.cause)
    trial = run_trial(name, guest_arch)
    if passed(guest_arch, trial):
        return Probe(name, usable=True, letters=trial.letters, seconds=trial.seconds)
    trouble = explain(name, guest_arch, trial)
    return Probe(name, usable=False, reason=trouble.reason, fix=trouble.fix, letters=trial.letters, cause=trouble.cause)


def probe_all(guest_arch: str, host: Host | None = None) -> dict[str, Probe]:
    """Probe the accelerators this operating system has, and "tcg"; return them by name, the best first.

    Raises HostError if the emulator is not installed and UsageError if the architecture is unknown.
    """
    host = host or Host.here()
    names = (*(name for name, system in SYSTEMS.items() if system == host.system), "tcg")
    return {name: probe_one(name, guest_arch, host) for name in names}


def choose(wanted: str, guest_arch: str, report: Reporter = silent, host: Host | None = None) -> Probe:
    """Return the accelerator to use: ``wanted``, or for "auto" the first usable one.

    "auto" reports what its choice means for time. Falling back from hardware to emulation is reported as a warning
    (``events.Fallback``) that says why and what it costs.

    Raises HostError, with the reason and the fix, if ``wanted`` is not usable, nothing is, or the emulator
    is not installed; UsageError if ``wanted`` or the architecture is unknown.
    """
    host = host or Host.here()
    if wanted != "auto":
        if wanted not in qemu.ACCELERATORS:
            raise UsageError(f"No accelerator is called `{wanted}`.", hint=f"Use auto, {', '.join(qemu.ACCELERATORS)}.")
        found = probe_one(wanted, guest_arch, host)
        if not found.usable:
            raise _unusable(found)
        return found
    refused: list[Probe] = []
    for name in candidates(host, guest_arch):
        found = probe_one(name, guest_arch, host)
        if found.usable:
            if name == "tcg":
                report(_fallback(found, refused, host, guest_arch))
            else:
                report(Note(f"Guests run on {name}. {takes(found)}"))
            return found
        refused.append(found)
    raise _unusable(refused[-1])


def takes(found: Probe) -> str:
    """Return a sentence that says about how long an image takes with a usable accelerator, and on what ground."""
    least, most = found.minutes
    told = f"An image of Ubuntu Server takes about {least} to {most} minutes"
    if found.name != "tcg":
        return f"{told} (an estimate)."
    ground = (
        "" if found.speed is None else f" from the speed measured here, {found.speed:.2f} of a plain cloud machine's"
    )
    low, high = HARDWARE_MINUTES
    return f"{told} (an estimate{ground}; with hardware {low} to {high})."


def _fallback(found: Probe, refused: list[Probe], host: Host, guest_arch: str) -> Fallback:
    why = " ".join(f"{each.name} is not usable: {each.reason}." for each in refused)
    why = why or f"No hardware accelerator runs {guest_arch} guests on {host.system} on {host.arch}."
    cost = f"The guest is emulated (tcg), about ten times slower than on hardware. {takes(found)}"
    fix = "; ".join(each.fix for each in refused if each.fix)
    text = " ".join(filter(None, (why, cost, f"To mend it: {fix}." if fix else "")))
    return Fallback(text, accelerator=found.name, why=why, cost=cost, fix=fix or None)


def _unusable(found: Probe) -> HostError:
    ways = [found.fix] if found.fix else []
    if found.name != "tcg":
        ways.append("use `--accel tcg` (emulation, about ten times slower)")
    hint = "; or ".join(ways)
    return HostError(
        f"The accelerator {found.name} is not usable: {found.reason}.",
        hint=f"{hint[0].upper()}{hint[1:]}." if hint else None,
    )
