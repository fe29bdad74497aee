"""The table of known failures: the words that give each away, the likely cause, the way out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.install.advice import LOGS, VALIDATE, Advice


@dataclass(frozen=True)
class Rule:
    """``words`` (and ``path``, and ``phases`` where given) that stand for ``advice``.

    ``exception`` is False for words that also appear in an install that goes well.
    """

    words: re.Pattern[str]
    advice: Advice
    path: re.Pattern[str] | None = None
    phases: frozenset[str] = frozenset()
    exception: bool = True


def _rule(
    words: str,
    slug: str,
    explanation: str,
    hint: str,
    *,
    path: str | None = None,
    phases: tuple[str, ...] = (),
    exception: bool = True,
) -> Rule:
    return Rule(
        re.compile(words, re.IGNORECASE | re.DOTALL),
        Advice(slug, explanation, hint),
        None if path is None else re.compile(path),
        frozenset(phases),
        exception,
    )


_FAILED_COMMAND = (
    r"Command '(?P<command>.*)' (?P<how>returned non-zero exit status \d+|died with .*?)\.?$"
    r"|^Command execution failure: (?P<only>.*)$"
)
_EXIT = r"returned non-zero exit status|died with|Command execution failure"

RULES: tuple[Rule, ...] = (
    # The answers
    _rule(
        r"Malformed autoinstall in '(?:version or interactive-sections|version)' section",
        "malformed-answers",
        "`version` is missing or not 1, or `interactive-sections` is not a list of sections.",
        f"Begin the answers with `version: 1`. {VALIDATE}",
    ),
    _rule(
        r"Malformed autoinstall in 'identity' section",
        "malformed-answers",
        "The section `identity` does not fit this installer's schema.",
        "`identity` needs username, hostname and password (a crypt hash, quoted) and takes no unknown key; "
        f"`groups` is known only since 26.04. {VALIDATE}",
    ),
    _rule(
        r"Malformed autoinstall in '(?P<section>[^']+)' section",
        "malformed-answers",
        "The section `{section}` does not fit this installer's schema.",
        f"Correct `{{section}}`: key names, and lists where lists are wanted. {VALIDATE}",
    ),
    _rule(
        r"is valid autoinstall but not found under 'autoinstall'|Misplaced autoinstall directives",
        "misplaced-keys",
        "Keys of the installer stand at the top level of the cloud-config.",
        f"Move them, indented, under `autoinstall:`. {VALIDATE}",
    ),
    _rule(
        r"is not a valid cloud config datasource|No other keys may be present alongside 'autoinstall'",
        "misplaced-keys",
        "autoinstall.yaml has further keys beside `autoinstall:`.",
        "Move the other keys under `autoinstall:`, or under its `user-data:` if they are cloud-init's.",
    ),
    _rule(
        r"neither identity nor user-data provided",
        "no-user",
        "The answers create no user.",
        "Give `identity`, or `user-data` with users.",
    ),
    _rule(
        r"Username (?:is|contains) .*",
        "bad-username",
        "This installer does not accept the user's name.",
        "Choose a name of lower-case letters, digits, `-` and `_` that the system does not use itself.",
        exception=False,
    ),
    _rule(
        r"unknown timezone: ?(?P<zone>.*)",
        "bad-timezone",
        "The installer does not know the time zone {zone}.",
        "Name a zone of the tz database, such as Etc/UTC or Europe/Zurich.",
    ),
    _rule(
        r"^'?(?:none|rsyslog)'?$",
        "bad-reporting",
        "A `reporting` handler has a type this installer does not have.",
        "Use type print, log, webhook or journald, or leave `reporting` out.",
        path=r"load_autoinstall_config|Reporting/",
    ),
    _rule(
        r"is not one of \[|is not of type '|is a required property|Additional properties are not allowed"
        r"|Failed validating",
        "malformed-answers",
        "A value in the answers does not fit this installer's schema.",
        VALIDATE,
    ),
    _rule(
        r"^$",
        "unknown-source",
        "The answers name an install source (`source: id:`) this medium does not have.",
        "Use an id of the medium's casper/install-sources.yaml, such as ubuntu-server, or leave `source` out.",
        path=r"Source/load_autoinstall_data$",
        exception=False,
    ),
    # Disk
    _rule(
        r"Failed to find matching device(?: for (?P<match>.*))?|no disk found large enough",
        "no-matching-disk",
        "No disk of the machine is what `storage` asks for.",
        "Compare `storage` with the machine's disks (path, serial, size); the install medium itself never counts.",
    ),
    _rule(
        r"SELECT_BOOT_DISK|did not create needed bootloader partition",
        "no-boot-disk",
        "`storage` has no place for the boot loader of the firmware the installer was started with.",
        "With UEFI an EFI system partition mounted at /boot/efi needs `grub_device: true`; with BIOS the disk "
        "needs it, and a `bios_grub` partition on GPT.",
    ),
    _rule(
        r"did not match requirement (?P<requirement>\w+)|did not mount root",
        "storage-requirement",
        "`storage` leaves out something every system needs.",
        "Mount a file system at / and give the boot loader its partition.",
    ),
    _rule(
        r"requested size larger than gap|larger than (?:the )?(?:gap|disk)|(?:disk|device) (?:is )?too small"
        r"|not enough (?:free )?space",
        "disk-too-small",
        "The disk is smaller than what `storage` puts on it.",
        "Give the machine a larger disk, or the partitions smaller sizes.",
    ),
    _rule(
        r"block_probe_fail|disk_probe_fail",
        "block-probe",
        "The installer did not get to know the disks in time.",
        "It waits only 15 s before 22.04.3: use a newer point release where the machine is slow (emulation).",
        exception=False,
    ),
    _rule(
        r"TimeoutError|timed? ?out|^$",
        "block-probe",
        "The installer did not get to know the disks in time.",
        "It waits only 15 s before 22.04.3: use a newer point release where the machine is slow (emulation).",
        path=r"(?:Filesystem|Storage)/_probe",
        exception=False,
    ),
    # Network and packages
    _rule(
        r"no mirror is usable",
        "no-usable-mirror",
        "No package mirror could be reached, and `apt.fallback` is abort (as by default in 22.04.3 and 22.04.4).",
        "Set `apt: {{fallback: offline-install}}`, name a reachable mirror or proxy, or give the machine no NIC.",
    ),
    _rule(
        _EXIT + r"|^E: ",
        "package-lists",
        "apt could not fetch or read its package lists.",
        "Check network, mirror and proxy of the machine; without a NIC the medium's own pool is used.",
        path=r"configure_apt|Mirror/",
    ),
    _rule(
        r"Unable to locate package (?P<package>\S+)",
        "no-such-package",
        "No package source of the install has the package {package}.",
        "Check the name and the release; an offline install has only the packages of the medium's pool.",
    ),
    _rule(
        _EXIT,
        "security-updates",
        "Installing the security updates failed.",
        "Check network and mirror, or install without a NIC and update on the first boot.",
        path=r"run_unattended_upgrades",
    ),
    _rule(
        r"chpasswd",
        "bad-password-hash",
        "The target system did not take the user's password.",
        "Give `identity.password` as a crypt hash, in quotes.",
        exception=False,
    ),
    # Commands
    _rule(
        _FAILED_COMMAND,
        "early-command-failed",
        "An early-command failed: {command}",
        "Correct the command; let it end with `|| true` if its failure does not matter.",
        phases=("early-commands",),
    ),
    _rule(
        _FAILED_COMMAND,
        "late-command-failed",
        "A late-command failed: {command}",
        "Correct the command (the new system is at /target, `curtin in-target -- CMD` runs inside it); "
        "let it end with `|| true` if its failure does not matter.",
        phases=("late-commands",),
    ),
    # Machine and medium
    _rule(
        r"Initramfs unpacking failed: write error",
        "out-of-memory",
        "The machine has too little memory for the medium's initramfs.",
        "Give the machine more memory; an installer wants 2 GiB, better 3.",
        exception=False,
    ),
    _rule(
        r"Out of memory: |oom-kill|out of memory|deadlocked on memory",
        "out-of-memory",
        "The machine ran out of memory.",
        "Give the machine more memory; an installer wants 2 GiB, better 3.",
        exception=False,
    ),
    _rule(
        r"Main process exited, code=(?:killed|dumped)",
        "installer-killed",
        "The installer's own process was killed, or crashed.",
        "Look into the guest's journal for who killed it; a command of the answers or too little memory can.",
        exception=False,
    ),
    _rule(
        r"Unable to find a (?:medium containing a )?live file system",
        "no-medium",
        "The kernel started from the medium, but the live system on it was not found.",
        "Check that the ISO is whole (checksum), attached as a drive the kernel knows, and has its casper folder.",
        exception=False,
    ),
    _rule(
        r"No space left on device",
        "disk-full",
        "A file system ran full in the guest.",
        "Give the machine a larger disk, or more memory if it was the live session's.",
        exception=False,
    ),
    _rule(
        r"SQUASHFS error|I/O error,? (?:on )?dev |medium error, dev |Check finished: errors found"
        r"|Initramfs unpacking failed: |Can not mount .*squashfs|\bmount: .*squashfs",
        "medium-damaged",
        "The medium could not be read without errors.",
        "Check the ISO's checksum, fetch it again, remaster it again.",
        exception=False,
    ),
    _rule(
        r"Access Denied|Security (?:Policy )?Violation|bad shim signature|has invalid signature|shim_lock protocol"
        r"|prohibited by secure boot policy",
        "secure-boot",
        "Secure Boot does not let the boot loader or the kernel start.",
        "Use Ubuntu's own signed boot loader and kernel, or firmware without Secure Boot.",
        phases=("boot-loader",),
        exception=False,
    ),
    _rule(
        r"^error: (?:\S+:\d+:)?file `?(?P<file>\S+?)' not found",
        "boot-file-missing",
        "The boot loader did not find {file} on the medium.",
        "Check the ISO's checksum and the paths in its GRUB menu; remaster it again.",
        phases=("boot-loader",),
        exception=False,
    ),
    _rule(
        r"ALERT! +(?P<device>\S+) does not exist|Warning: (?P<other>/dev/\S+) does not exist",
        "no-root-device",
        "The initramfs waited in vain for the disk with the system.",
        "Check that the disk is attached where the kernel command line looks for it, by a driver the initramfs has.",
        phases=("live-system",),
        exception=False,
    ),
    _rule(
        r"Unable to mount root fs|No working init found|Cannot open root device",
        "no-initramfs",
        "The kernel found no system to start: most likely it got no initramfs.",
        "Check the `initrd` line of the boot menu, the ISO's checksum, and that the machine has memory enough.",
        exception=False,
    ),
    _rule(
        _EXIT,
        "package-failed",
        "A package could not be installed: {package}",
        "Check that the package exists in this release and can be reached: network and mirror, or the medium's "
        "pool when offline. Exit status 100 is apt's.",
        path=r"install_(?P<package>[^/]+)",
    ),
    _rule(
        r"Command '.*curtin.*' (?:returned|died)",
        "curtin-failed",
        "curtin, which writes the system to the disk, failed during: {stage}",
        f"Its own log says more: curtin-install.log in {LOGS}.",
    ),
    _rule(
        _FAILED_COMMAND,
        "command-failed",
        "A command of the installer failed: {command}",
        f"Look into {LOGS}.",
    ),
)
"""In order: the first rule that fits any of the words is the cause."""
