"""What a line on the installer's console can mean, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StepKind = Literal["start", "finish", "info", "warning", "error"]
PromptKind = Literal[
    "error-shell",
    "confirm",
    "interactive",
    "login",
    "uefi-shell",
    "grub-rescue",
    "initramfs",
    "emergency-shell",
    "press-enter-remove-medium",
]


@dataclass(frozen=True)
class ConsoleEvent:
    """Something on the console: the clean ``line`` it stands on and ``at``, when its end arrived (s)."""

    line: str
    at: float


@dataclass(frozen=True)
class Output(ConsoleEvent):
    """A line with no meaning of its own here."""


@dataclass(frozen=True)
class KernelMessage(ConsoleEvent):
    """A line of the kernel's log; ``stamp`` is in seconds since the kernel started."""

    stamp: float
    text: str


@dataclass(frozen=True)
class Step(ConsoleEvent):
    """A line of the installer's event history.

    ``path`` begins with ``subiquity/``. ``text`` is a description, or in a ``finish`` the words of the
    exception that ended the step, which may be none. ``depth`` counts the levels below ``subiquity/NAME/x``.
    """

    kind: StepKind
    path: str
    text: str
    depth: int


@dataclass(frozen=True)
class EarlyCommands(ConsoleEvent):
    """The early-commands begin."""


@dataclass(frozen=True)
class CommandRunning(ConsoleEvent):
    """An early-command or an error-command begins; late-commands are not announced this way."""

    command: str


@dataclass(frozen=True)
class Prompt(ConsoleEvent):
    """Something waits for a person."""

    kind: PromptKind


@dataclass(frozen=True)
class CrashReport(ConsoleEvent):
    """The installer writes (``path`` is None) or wrote a crash report of this ``kind``: a hint, not proof."""

    kind: str
    path: str | None


@dataclass(frozen=True)
class KernelPanic(ConsoleEvent):
    """The kernel gave up."""

    reason: str


@dataclass(frozen=True)
class OutOfMemory(ConsoleEvent):
    """The kernel killed a process, or could not unpack its initramfs, for want of memory."""

    text: str


@dataclass(frozen=True)
class GuestDiskFull(ConsoleEvent):
    """Something could not be written within the guest: ``No space left on device``."""


@dataclass(frozen=True)
class MediumMissing(ConsoleEvent):
    """The initramfs (casper) does not find the medium it was started from."""


@dataclass(frozen=True)
class MediumDamaged(ConsoleEvent):
    """The medium is there, but cannot be read or does not match its checksums."""


@dataclass(frozen=True)
class ErrorLine(ConsoleEvent):
    """A line that begins with ``error:`` or apt's ``E:``."""

    text: str


@dataclass(frozen=True)
class BootFailed(ConsoleEvent):
    """Firmware or boot loader gave up: it found nothing to start (``device``), may not (``secure``) or cannot."""

    kind: Literal["device", "secure", "loader"]


@dataclass(frozen=True)
class BootTrouble(ConsoleEvent):
    """Something went wrong before the system was up, which may or may not matter; ``stage`` is a phase's name."""

    stage: Literal["boot-loader", "live-system"]


@dataclass(frozen=True)
class PowerState(ConsoleEvent):
    """The kernel's last words."""

    kind: Literal["reboot", "power-down", "halt"]


@dataclass(frozen=True)
class Sentinel(ConsoleEvent):
    """The line this project's own late- and error-commands write; ``whole`` is False without a line end."""

    kind: Literal["installed", "failed"]
    token: str
    whole: bool


@dataclass(frozen=True)
class PhaseStarted(ConsoleEvent):
    """The install reached a further phase; ``progress`` is the part of the install behind it, 0 to 1."""

    name: str
    title: str
    progress: float


@dataclass(frozen=True)
class PhaseFinished(ConsoleEvent):
    """The install left a phase behind, which took ``seconds``; a phase that failed is not finished."""

    name: str
    title: str
    seconds: float


@dataclass(frozen=True)
class StepFailed(ConsoleEvent):
    """A step finished with other words than it started with, or with those of a known exception.

    ``text`` is the exception's, maybe none; ``doing`` is what the step said it would do; ``phase`` is the
    phase the step belongs to, or None if its path does not tell.
    """

    path: str
    text: str
    doing: str
    phase: str | None
