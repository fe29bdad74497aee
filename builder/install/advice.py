"""What to say of an ending that the installer's own words do not explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VALIDATE = "Check the file with `prebake validate --user-data FILE`."
LOGS = "/var/log/installer (subiquity-server-debug.log, curtin-install.log) and /var/crash of the live session"


@dataclass(frozen=True)
class Advice:
    """A cause in one word and one sentence, and what to do; ``{names}`` are filled from the words found."""

    slug: str
    explanation: str
    hint: str


TRIGGERS: Mapping[str, Advice] = {
    "panic": Advice(
        "kernel-panic",
        "The kernel gave up during: {phase}",
        "Look at the lines before it. Too little memory, a damaged initramfs and a changed kernel command line "
        "are the usual reasons.",
    ),
    "out-of-memory": Advice(
        "out-of-memory",
        "The machine ran out of memory.",
        "Give the machine more memory; an installer wants 2 GiB, better 3.",
    ),
    "grub-rescue": Advice(
        "boot-loader",
        "The boot loader found no configuration to go on with.",
        "The medium lost its boot files, or the firmware started an empty disk: check the ISO and the boot order.",
    ),
    "uefi-shell": Advice(
        "boot-loader",
        "The firmware found nothing to start and opened its shell.",
        "Check that the ISO is attached as a drive, that it is whole, and that it has a boot loader for this machine.",
    ),
    "boot-device": Advice(
        "no-boot-device",
        "The firmware found nothing to start.",
        "Check that the ISO is attached as a drive, that it is whole, and that it boots with this firmware.",
    ),
    "boot-secure": Advice(
        "secure-boot",
        "Secure Boot does not let the boot loader start.",
        "Use Ubuntu's own signed boot loader and kernel, or firmware without Secure Boot.",
    ),
    "boot-loader": Advice(
        "boot-loader",
        "The boot loader could not load the kernel.",
        "Look at its errors; check the ISO's checksum and the paths in its GRUB menu.",
    ),
    "initramfs": Advice(
        "initramfs-shell",
        "The initramfs could not start the live system and opened a shell.",
        "Look at the lines before the prompt; check the ISO's checksum, its casper folder and the kernel arguments.",
    ),
    "no-medium": Advice(
        "no-medium",
        "The kernel started from the medium, but the live system on it was not found.",
        "Check that the ISO is whole (checksum), attached as a drive the kernel knows, and has its casper folder.",
    ),
    "emergency-shell": Advice(
        "emergency-mode",
        "systemd could not start the system and opened its emergency shell.",
        "Look at the lines before it for the first unit that failed.",
    ),
    "confirm": Advice(
        "unconfirmed",
        "The kernel command line lacks `autoinstall`, so the installer asks a person before it writes to the disk.",
        "Put the word `autoinstall` on the kernel command line, before `---`.",
    ),
    "interactive": Advice(
        "interactive",
        "The installer found no answers, or some for a person to give (`interactive-sections`).",
        "Check that the answers are where the installer looks: `#cloud-config` as first line, the key "
        "`autoinstall:`, a meta-data file beside user-data, the `;` of `ds=nocloud;s=` quoted in GRUB.",
    ),
    "stage-partitioning": Advice(
        "curtin-stage-failed",
        "curtin failed while partitioning the disk: {stage}",
        f"Check `storage` against the machine's disk. curtin's own words are in {LOGS}.",
    ),
    "stage-extract": Advice(
        "curtin-stage-failed",
        "curtin failed while copying the system to the disk: {stage}",
        "Often the disk is too small (nothing checks that beforehand) or the medium is damaged. "
        f"curtin's own words are in {LOGS}.",
    ),
    "stage-curthooks": Advice(
        "curtin-stage-failed",
        "curtin failed while configuring the system: {stage}",
        "A kernel package that does not exist, a boot loader that does not fit the firmware, a full disk and an "
        f"unreachable mirror are the usual reasons. curtin's own words are in {LOGS}.",
    ),
    "stage": Advice(
        "curtin-stage-failed",
        "curtin, which writes the system to the disk, failed during: {stage}",
        f"curtin's own words are in {LOGS}.",
    ),
    "silent-early-command": Advice(
        "early-command-failed",
        "The installer stopped at the early-commands without a word; the last one announced was: {command}",
        "Correct the command; let it end with `|| true` if its failure does not matter. With an `error-commands` "
        "section the installer prints its reason.",
    ),
    "silent-answers": Advice(
        "answers-rejected",
        "The installer stopped before its first step without a word, most likely over the answers.",
        f"{VALIDATE} With an `error-commands` section the installer prints its reason.",
    ),
    "unknown": Advice(
        "installer-error",
        "The installer failed during: {phase}",
        f"Look into {LOGS}.",
    ),
}
"""What to say where no rule fits, by what decided that the install failed."""

REBOOT_LOOP = Advice(
    "reboot-loop",
    "The machine started again and again without a word of why; the furthest it came was: {phase}",
    "Look at the last lines before each start. Too little memory, a damaged medium, a watchdog and a kernel with "
    "`panic=` that cannot show why are the usual reasons.",
)
"""What to say of a console that shows one start after the other, none of which came to anything."""

LOADERS = frozenset({"grub-rescue", "uefi-shell", "boot-device", "boot-secure", "boot-loader"})
"""Those of them that happen before the kernel starts, where complaints of firmware and boot loader are the reason."""

INCOMPLETE: Mapping[str, Advice] = {
    "empty": Advice(
        "no-output",
        "Nothing reached the console.",
        "Check that the medium boots with this firmware and that the kernel has a serial `console=`.",
    ),
    "installed-system": Advice(
        "no-installer",
        "A system came up to its login prompt without an installer.",
        "Check the boot order: this looks like the boot of an installed system.",
    ),
    "powered-off": Advice(
        "ended-early",
        "The machine went down during «{phase}», with no proof that the install was complete.",
        "Look at the last lines: something other than the installer stopped the machine.",
    ),
    "ended": Advice(
        "ended-early",
        "The console ends during «{phase}», with no proof of success or failure.",
        "The machine was stopped, was still at work, or the last lines were lost.",
    ),
}
"""What to say of a console that ends without a verdict."""
