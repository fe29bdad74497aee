"""The phases of an unattended install: their order, how far along each is, which line belongs to which.

Paths of steps are those of subiquity 22.04 to 26.10. The stages of curtin stand below
``Install/install/curtin_install``, since 22.12 with a level ``run`` and since 24.04 ``run_curtin_step``
between. The parts of the whole are those of runs watched on a serial console.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from builder.install.signals import (
    ConsoleEvent,
    EarlyCommands,
    KernelMessage,
    KernelPanic,
    OutOfMemory,
    Output,
    PowerState,
    Step,
)


@dataclass(frozen=True)
class Phase:
    """A phase: ``order`` counts from 0, ``progress`` is the part of the install behind it, 0 to 1."""

    name: str
    title: str
    order: int
    progress: float


PHASES: tuple[Phase, ...] = tuple(
    Phase(name, title, order, progress)
    for order, (name, title, progress) in enumerate(
        (
            ("boot-loader", "Firmware and boot loader", 0.0),
            ("kernel", "Starting the kernel", 0.01),
            ("live-system", "Starting the live system", 0.04),
            ("cloud-init", "Waiting for cloud-init and the installer", 0.12),
            ("early-commands", "Running the early-commands", 0.2),
            ("answers", "Reading the answers", 0.22),
            ("mirror", "Choosing the package sources", 0.26),
            ("partitioning", "Partitioning the disk", 0.3),
            ("extract", "Copying the system to the disk", 0.35),
            ("curthooks", "Configuring the system", 0.45),
            ("packages", "Installing packages", 0.8),
            ("updates", "Installing security updates", 0.86),
            ("late-commands", "Running the late-commands", 0.94),
            ("shutdown", "Shutting down", 0.98),
        )
    )
)
"""All phases in order. Which of them show on the console differs with the release and the answers."""

BY_NAME = {phase.name: phase for phase in PHASES}


@dataclass(frozen=True)
class Milestone:
    """A part of a phase worth telling of: what is done there, and how far along the install is."""

    title: str
    progress: float


_MILESTONES: tuple[tuple[re.Pattern[str], Milestone], ...] = tuple(
    (re.compile(path), Milestone(title, progress))
    for path, title, progress in (
        (r"/installing-missing-packages$", "Installing packages the boot needs", 0.47),
        (r"/installing-kernel$", "Installing the kernel", 0.52),
        (r"/setting-up-swap$", "Setting up swap", 0.62),
        (r"/system-upgrade$", "Updating packages", 0.64),
        (r"/(?:updating-initramfs-configuration|final-kernel-configuration)$", "Building the initramfs", 0.66),
        (r"/(?:configuring-bootloader|install-grub)$", "Installing the boot loader", 0.74),
    )
)

# The first that fits decides. Steps of the answers are all others of the installer.
_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(path), phase)
    for path, phase in (
        (r"/stage-partitioning\b|/cmd-block-meta\b", "partitioning"),
        (r"/stage-extract\b|/cmd-extract\b|/curtin_install/setup_target\b", "extract"),
        (r"/stage-curthooks\b|/cmd-curthooks\b|/stage-hook\b|/stage-late\b", "curthooks"),
        (r"^subiquity/(?:Install/install/configure_apt|Mirror/(?!load_))", "mirror"),
        (r"^subiquity/Install/install/postinstall/(?:\S*/)?run_unattended_upgrades\b", "updates"),
        (r"^subiquity/Install/install/postinstall\b", "packages"),
        (r"^subiquity/Late/run", "late-commands"),
        (r"^subiquity/Shutdown/(?!load_|apply_)", "shutdown"),
        (r"^subiquity/Early/run", "early-commands"),
    )
)
_SILENT = re.compile(
    r"^subiquity/(?:Meta/|Network/_send_update|ErrorReporter/|Error/run|Install/|(?:Filesystem|Storage)/_probe)"
)
_FIRST_LOADS = re.compile(r"^subiquity/(?:core_validation\b|(?:Integrity|Reporting|Error|Early)/load_)")
"""What is checked and loaded before the early-commands run; all other answers are loaded after them."""
_STORAGE = re.compile(r"^subiquity/(?:Filesystem|Storage)/(?!load_)")
_CURTIN_STEP = re.compile(r"^executing curtin install (\w+) step$")

_BOOT: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(words), phase)
    for words, phase in (
        (
            r"cloud-(?:init|config)(?:-\w+)?\.(?:service|target)|^\s*waiting for cloud-init|^connecting\.\.\.",
            "cloud-init",
        ),
        (r"^Begin: |^Loading, please wait|systemd-udevd|^Welcome to (?!GRUB)|^\[ {0,2}OK {0,2}\]", "live-system"),
        (r"^EFI stub:|^Loading (?:Linux|initial ramdisk)|^Linux version ", "kernel"),
    )
)
_SYSTEMD = re.compile(r"^systemd\[1\]: |^cloud-init\[")


@lru_cache(maxsize=1024)
def phase_of_path(path: str) -> str | None:
    """Return the name of the phase a step belongs to by its ``path`` alone, or None if that does not tell."""
    for pattern, phase in _STEPS:
        if pattern.search(path):
            return phase
    return None if _SILENT.search(path) else "answers"


def phase_of_failure(path: str, doing: str) -> str | None:
    """Return the name of the phase in which a step failed that said it was ``doing`` something."""
    curtin = _CURTIN_STEP.match(doing)
    if curtin is not None and curtin[1] in BY_NAME:
        return curtin[1]
    return "partitioning" if _STORAGE.search(path) else phase_of_path(path)


def phase_of(event: ConsoleEvent) -> str:
    """Return the name of the first phase ``event`` can belong to; the install may be further."""
    if isinstance(event, Step):
        curtin = _CURTIN_STEP.match(event.text)
        if curtin is not None and curtin[1] in BY_NAME:
            return curtin[1]
        return "cloud-init" if _FIRST_LOADS.search(event.path) else phase_of_path(event.path) or "cloud-init"
    if isinstance(event, EarlyCommands):
        return "early-commands"
    if isinstance(event, KernelMessage | KernelPanic | OutOfMemory | PowerState):
        return "live-system" if isinstance(event, KernelMessage) and _SYSTEMD.match(event.text) else "kernel"
    if isinstance(event, Output):
        for pattern, phase in _BOOT:
            if pattern.search(event.line):
                return phase
    return "boot-loader"


def milestone_of(event: ConsoleEvent) -> Milestone | None:
    """Return the milestone that ``event`` reaches, or None."""
    if isinstance(event, Step) and event.kind == "start" and "/cmd-curthooks/" in event.path:
        for pattern, milestone in _MILESTONES:
            if pattern.search(event.path):
                return milestone
    return None
