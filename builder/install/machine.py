"""What firmware, boot loaders, the kernel and the initramfs say of the machine and its medium, line by line.

The words are those of SeaBIOS, iPXE, OVMF and shim; of GRUB 2.06 and 2.12, which since then writes its source's place
between ``error:`` and the words; of kernels 5.15 to 7.0; of casper, initramfs-tools and dracut.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from builder.install.signals import (
    BootFailed,
    BootTrouble,
    KernelPanic,
    MediumDamaged,
    MediumMissing,
    OutOfMemory,
    PowerState,
)

if TYPE_CHECKING:
    from builder.install.signals import ConsoleEvent

WORDS = (
    r"reboot: |Kernel panic|[Oo]ut of memory|oom-kill|unpacking failed|live file system|netboot from a URL"
    r"|Check finished: errors|SQUASHFS error|I/O error|medium error|^BdsDxe: |No boot|Boot failed|Unable to boot"
    r"|proper Boot|Could not boot|load the \w+ first|Security |gone seriously wrong|^EFI stub: ERROR|ALERT!|Gave up"
    r"|Can not mount|mount: |No init|run-init: |requested /sbin/init|open root device|(?:Warning|FATAL): |Refusing"
)
"""A regular expression that fits every line this module has a word on, and some more."""

_SIFT = re.compile(WORDS)
_MEDIUM = re.compile(
    r"Unable to find a (?:medium containing a )?live file system|Attempt interactive netboot from a URL"
)
_DAMAGED = re.compile(
    r"SQUASHFS error|I/O error,? (?:on )?dev (?:sr|loop)\d|critical medium error, dev sr\d"
    r"|Check finished: errors found in \d+ files",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    r"Out of memory: |Out of memory and no killable|oom-kill:|invoked oom-killer"
    r"|Initramfs unpacking failed: write error",
    re.IGNORECASE,
)
_PANIC = re.compile(r"^Kernel panic - not syncing: ?(.*)")
_POWER: tuple[tuple[Literal["reboot", "power-down", "halt"], str], ...] = (
    ("reboot", "reboot: Restarting system"),
    ("power-down", "reboot: Power down"),
    ("halt", "reboot: System halted"),
)
_FAILED: tuple[tuple[Literal["device", "secure", "loader"], re.Pattern[str]], ...] = (
    (
        "device",
        re.compile(
            r"^No bootable device|^BdsDxe: No bootable option or device was found|^\[Bds\] ?Unable to boot!"
            r"|^(?:FATAL: )?No bootable medium found|^Reboot and Select proper Boot device|^No boot device available"
        ),
    ),
    (
        "secure",
        re.compile(
            r"^(?:ERROR:? +)?Verification failed: .*Security (?:Policy )?Violation"
            r"|^Something has gone seriously wrong: "
        ),
    ),
    ("loader", re.compile(r"^error: (?:\S+:\d+:)?you need to load the \w+ first")),
)
_TROUBLE: tuple[tuple[Literal["boot-loader", "live-system"], re.Pattern[str]], ...] = (
    (
        "boot-loader",
        re.compile(
            r"^BdsDxe: failed to |^Boot failed: |^Could not boot(?: image)?: |^EFI stub: ERROR: "
            r"|Security Policy Violation"
        ),
    ),
    (
        "live-system",
        re.compile(
            # The initramfs says what it begins without a line's end.
            r"(?:^|\.\.\. )(?:ALERT! |Gave up waiting for |Can not mount |No init found\. |run-init: "
            r"|mount: .*(?:failed|wrong fs type|bad superblock)|Warning: (?:/dev/|dracut))"
            r"|doesn't have requested /sbin/init|Cannot open root device"
            r"|^Initramfs unpacking failed: (?!Decoding failed|write error)|^dracut\S*:? (?:Warning|FATAL|Refusing)"
        ),
    ),
)


def machine(line: str, text: str, at: float) -> ConsoleEvent | None:
    """Type ``text``, what a ``line`` says without the kernel's stamp, or return None if it is about something else."""
    if _SIFT.search(text) is None:
        return None
    for kind, words in _POWER:
        if text.startswith(words):
            return PowerState(line=line, at=at, kind=kind)
    panic = _PANIC.match(text)
    if panic is not None:
        return KernelPanic(line=line, at=at, reason=panic[1])
    if _MEMORY.search(text):
        return OutOfMemory(line=line, at=at, text=text)
    return _medium(line, text, at) or _boot(line, text, at)


def _medium(line: str, text: str, at: float) -> ConsoleEvent | None:
    if _MEDIUM.search(text):
        return MediumMissing(line=line, at=at)
    return MediumDamaged(line=line, at=at) if _DAMAGED.search(text) else None


def _boot(line: str, text: str, at: float) -> ConsoleEvent | None:
    for kind, pattern in _FAILED:
        if pattern.search(text):
            return BootFailed(line=line, at=at, kind=kind)
    for stage, pattern in _TROUBLE:
        if pattern.search(text):
            return BootTrouble(line=line, at=at, stage=stage)
    return None
