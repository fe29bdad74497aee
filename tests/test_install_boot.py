"""Machines that never reach the installer: firmware, boot loaders, kernels and initramfs that give up."""

from __future__ import annotations

import pytest

from builder.install.console import ConsoleParser
from builder.install.explain import explain
from builder.install.signals import BootFailed, BootTrouble, ConsoleEvent, KernelPanic, OutOfMemory, Output, Prompt
from builder.install.state import InstallState
from tests.test_install_verdict import (
    BOOT,
    COPIED,
    DOWN,
    FAILED_LATE,
    INSTALLED,
    LATE,
    LATE_DONE,
    PROMPT,
    REBOOT,
    SHUTDOWN,
    TOKEN,
    console,
    verdict,
)

SEABIOS = "SeaBIOS (version 1.16.2-debian-1.16.2-1)\niPXE (https://ipxe.org) 00:02.0 CA00 PCI2.10 PnP PMM\n"
OVMF = '\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001 "UEFI QEMU DVD-ROM QM00003 " from '
OVMF += "PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x1,0xFFFF,0x0)\n"
DENIED = 'BdsDxe: failed to load Boot0001 "UEFI QEMU DVD-ROM QM00003 " from PciRoot(0x0)/Pci(0x1F,0x2): Access Denied\n'
KERNEL = "[    0.000000] Linux version 6.8.0-31-generic (buildd@lcy02) (gcc 13.2) #31-Ubuntu SMP\n[    0.500000] x\n"
VFS = "[    2.1] x\n[    2.100000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
NEXT = "Begin: Loading essential drivers ... done.\nBegin: Mounting root file system ... "

# Console, phase, cause's slug, part of the reason
FAILURES: dict[str, tuple[str, str, str, str]] = {
    "SeaBIOS": (
        SEABIOS + "Booting from DVD/CD...\nBoot failed: Could not read from CDROM (code 0003)\n"
        "Booting from ROM...\nNo bootable device.\n",
        "boot-loader",
        "no-boot-device",
        "Could not read from CDROM",
    ),
    "SeaBIOS that tries again": (
        "Boot failed: could not read the boot disk\n\nNo bootable device.  Retrying in 60 seconds.\n",
        "boot-loader",
        "no-boot-device",
        "could not read the boot disk",
    ),
    "iPXE falls through": (
        SEABIOS + "iPXE 1.21.1 -- Open Source Network Boot Firmware\nNothing to boot: No such file\n"
        "No more network devices\n\nNo bootable device.\n",
        "boot-loader",
        "no-boot-device",
        "No bootable device",
    ),
    "OVMF": (
        OVMF + 'BdsDxe: failed to load Boot0001 "UEFI QEMU DVD-ROM" from PciRoot(0x0): Not Found\n'
        ">>Start PXE over IPv4.\n  PXE-E16: No valid offer received.\n"
        "BdsDxe: No bootable option or device was found.\nBdsDxe: Press any key to enter the Boot Manager Menu.\n",
        "boot-loader",
        "no-boot-device",
        "Not Found",
    ),
    "VirtualBox": ("FATAL: No bootable medium found! System halted.\n", "boot-loader", "no-boot-device", "No bootable"),
    "UEFI shell": (
        OVMF + 'BdsDxe: failed to load Boot0001 "UEFI QEMU DVD-ROM" from PciRoot(0x0): Not Found\n'
        "UEFI Interactive Shell v2.2\nEDK II\nPress ESC in 1 seconds to skip startup.nsh\n"
        "\x1b[0m\x1b[37m\x1b[40mShell> \x1b[0m\x1b[37m\x1b[40m",
        "boot-loader",
        "boot-loader",
        "Not Found",
    ),
    "Secure Boot, firmware": (
        OVMF + DENIED + "BdsDxe: No bootable option or device was found.\n",
        "boot-loader",
        "secure-boot",
        "Access Denied",
    ),
    "Secure Boot, shim": (
        OVMF + "ERROR\nVerification failed: (0x1A) Security Violation\n",
        "boot-loader",
        "secure-boot",
        "Security Violation",
    ),
    "Secure Boot, SBAT": (
        (
            "Verifying shim SBAT data failed: Security Policy Violation\n"
            "Something has gone seriously wrong: SBAT self-check failed: Security Policy Violation\n"
        ),
        "boot-loader",
        "secure-boot",
        "Security Policy Violation",
    ),
    "Secure Boot, GRUB": (
        "error: bad shim signature.\nerror: you need to load the kernel first.\n\nPress any key to continue...",
        "boot-loader",
        "secure-boot",
        "bad shim signature",
    ),
    "GRUB, no kernel": (
        (
            "error: can't find command `grub_platform'.\nerror: file `/casper/vmlinuz' not found.\n"
            "error: you need to load the kernel first.\n\nPress any key to continue..."
        ),
        "boot-loader",
        "boot-file-missing",
        "/casper/vmlinuz",
    ),
    "GRUB 2.12, no kernel": (
        (
            "error: ../../grub-core/fs/fshelp.c:257:file `/casper/vmlinuz' not found.\n"
            "error: ../../grub-core/loader/i386/efi/linux.c:258:you need to load the kernel first.\n"
        ),
        "boot-loader",
        "boot-file-missing",
        "/casper/vmlinuz",
    ),
    "GRUB, another error": (
        "error: invalid magic number.\nerror: you need to load the kernel first.\n",
        "boot-loader",
        "boot-loader",
        "invalid magic number",
    ),
    "GRUB shell": (
        (
            "error: can't find command `grub_platform'.\nerror: no such device: /.disk/info.\n"
            "             GNU GRUB  version 2.12\n\n   Minimal BASH-like line editing is supported.\n\ngrub> "
        ),
        "boot-loader",
        "boot-loader",
        "no such device",
    ),
    "GRUB rescue": (
        "error: file `/boot/grub/i386-pc/normal.mod' not found.\nEntering rescue mode...\ngrub rescue> ",
        "boot-loader",
        "boot-file-missing",
        "normal.mod",
    ),
    "no initramfs": (KERNEL + VFS, "kernel", "no-initramfs", "unknown-block(0,0)"),
    "no init": (
        KERNEL
        + "[    3.000000][    T1] Kernel panic - not syncing: No working init found.  Try passing init= option\n",
        "kernel",
        "no-initramfs",
        "No working init found",
    ),
    "GRUB had no memory for the initramfs": (
        "error: out of memory.\n\nPress any key to continue...\n" + KERNEL + VFS,
        "kernel",
        "out-of-memory",
        "error: out of memory.",
    ),
    "initramfs damaged": (
        KERNEL + "[    1.000000] Initramfs unpacking failed: invalid magic at start of compressed archive\n" + VFS,
        "kernel",
        "medium-damaged",
        "invalid magic",
    ),
    "deadlock": (
        KERNEL + "[   40.000000] Kernel panic - not syncing: System is deadlocked on memory\n",
        "kernel",
        "out-of-memory",
        "deadlocked",
    ),
    "panic_on_oom": (
        KERNEL + "[   40.000000] Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled\n",
        "kernel",
        "out-of-memory",
        "panic_on_oom",
    ),
    "no live file system on the network": (
        KERNEL + NEXT + "Unable to find a live file system on the network\n",
        "live-system",
        "no-medium",
        "on the network",
    ),
    "casper asks for a URL": (
        KERNEL + NEXT + "Attempt interactive netboot from a URL?\nyes no (default yes): ",
        "live-system",
        "no-medium",
        "netboot",
    ),
    "squashfs": (
        KERNEL + NEXT + "mount: mounting /dev/loop0 on //filesystem.squashfs failed: Invalid argument\n"
        "Can not mount /dev/loop0 (/cdrom/casper/filesystem.squashfs) on //filesystem.squashfs\n\n\n"
        "BusyBox v1.36.1 (Ubuntu 1:1.36.1-6ubuntu3) built-in shell (ash)\n\n(initramfs) ",
        "live-system",
        "medium-damaged",
        "filesystem.squashfs",
    ),
    "no root device": (
        KERNEL
        + NEXT
        + "Gave up waiting for root file system device.  Common problems:\n - Boot args (cat /proc/cmdline)\n"
        "ALERT!  /dev/disk/by-uuid/1234-5678 does not exist.  Dropping to a shell!\n\n\n(initramfs) ",
        "live-system",
        "no-root-device",
        "by-uuid/1234-5678",
    ),
    "dracut": (
        KERNEL + "[  190.000000] dracut-initqueue[345]: Warning: dracut-initqueue: timeout, still waiting for hooks:\n"
        'Warning: /dev/disk/by-label/X does not exist\n\nGenerating "/run/initramfs/rdsosreport.txt"\n\n\n'
        'Entering emergency mode. Exit the shell to continue.\nType "journalctl" to view system logs.\n\ndracut:/# ',
        "kernel",
        "no-root-device",
        "by-label/X",
    ),
    "emergency": (
        BOOT + 'You are in emergency mode. After logging in, type "journalctl -xb" to view\n',
        "cloud-init",
        "emergency-mode",
        "emergency mode",
    ),
    "rescue": (
        BOOT + "You are in rescue mode. After logging in, type\n",
        "cloud-init",
        "emergency-mode",
        "rescue mode",
    ),
    "maintenance": (BOOT + "Press Enter for maintenance\n", "cloud-init", "emergency-mode", "Press Enter"),
    "password for maintenance": (
        BOOT + "Give root password for maintenance\n(or press Control-D to continue): ",
        "cloud-init",
        "emergency-mode",
        "Give root password",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_boot_failure(name: str) -> None:
    text, phase, slug, reason = FAILURES[name]
    found = explain(console(text))
    assert (found.verdict, found.phase) == ("failure", phase)
    assert (found.cause or "").startswith(f"{slug}: "), found.cause
    assert reason in (found.reason or "")
    assert found.final
    assert "(not shown)" not in (found.cause or "")


@pytest.mark.parametrize("name", FAILURES)
def test_trouble_before_an_install_that_went_well_is_no_reason_for_anything(name: str) -> None:
    trouble = "".join(
        line
        for line in FAILURES[name][0].splitlines(keepends=True)
        if isinstance(only(line.strip()), BootTrouble | Output)
    )
    assert verdict(trouble + INSTALLED + LATE + LATE_DONE + DOWN)["verdict"] == "success"
    found = verdict(trouble + INSTALLED + LATE + FAILED_LATE + PROMPT)
    assert found["cause"].startswith("late-command-failed: ")


def only(line: str) -> ConsoleEvent | None:
    found = ConsoleParser().feed(line.encode() + b"\r\n")
    return found[0] if found else None


@pytest.mark.parametrize(
    "line",
    [
        'BdsDxe: starting Boot0001 "UEFI QEMU DVD-ROM" from PciRoot(0x0)',
        "Booting from DVD/CD...",
        "Press ESC in 5 seconds to skip startup.nsh or any other key to continue.",
        "Shell> echo startup",
        "[    0.000000] secureboot: Secure boot disabled",
        "[    0.000000] Kernel command line: BOOT_IMAGE=/casper/vmlinuz autoinstall ---",
        "[    1.923158] Initramfs unpacking failed: Decoding failed",
        "Warning: something else",
        "mount: /cdrom: WARNING: source write-protected, mounted read-only.",
        "---[ end Kernel panic - not syncing: VFS ]---",
        "  running mount: failed",
    ],
)
def test_what_only_looks_like_trouble(line: str) -> None:
    assert not isinstance(only(line), BootFailed | BootTrouble | KernelPanic | Prompt)


OOM = [
    "python3 invoked oom-killer: gfp_mask=0x1100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=a,pid=9",
    "Out of memory: Killed process 1234 (python3) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0",
    "Out of memory and no killable processes...",
]


@pytest.mark.parametrize("text", OOM)
def test_out_of_memory(text: str) -> None:
    line = f"[   99.100000] {text}"
    assert isinstance(only(line), OutOfMemory)
    assert isinstance(only(f"[   99.100000][  T123] {text}"), OutOfMemory)
    found = verdict(INSTALLED + line + "\n")
    assert found["verdict"] == "failure"
    assert found["cause"].startswith("out-of-memory: ")
    assert verdict(INSTALLED + line + "\n" + LATE + LATE_DONE + SHUTDOWN)["verdict"] == "success"


@pytest.mark.parametrize(
    "text",
    [
        "Memory cgroup out of memory: Killed process 1234 (snapd) total-vm:1kB",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x,task=a,pid=9",
    ],
)
def test_a_group_that_outgrew_its_own_limit_is_no_end(text: str) -> None:
    assert verdict(INSTALLED + f"[   99.100000] {text}\n")["verdict"] == "incomplete"


# Several boots on one console

SYSTEM = KERNEL + "[    9.000000] systemd[1]: systemd 255 running\nUbuntu 24.04 LTS demo ttyS0\n\ndemo login: "
SUCCESS = SEABIOS + INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN + REBOOT
FAILURE = SEABIOS + INSTALLED + LATE + FAILED_LATE + PROMPT + "\n"
CUT = SEABIOS + INSTALLED + LATE
VAIN = SEABIOS + KERNEL + "Loading, please wait...\n"


@pytest.mark.parametrize(
    ("text", "outcome", "slug"),
    [
        (SUCCESS + SEABIOS + SYSTEM, "success", None),
        (SUCCESS + SYSTEM + "\n" + SYSTEM + "\n" + SYSTEM, "success", None),
        (SUCCESS + SEABIOS + KERNEL + VFS, "success", None),
        (SUCCESS + VAIN * 5, "success", None),
        (SUCCESS + FAILURE, "failure", "late-command-failed"),
        (FAILURE + SUCCESS, "success", None),
        (FAILURE + SUCCESS + SEABIOS + SYSTEM, "success", None),
        (FAILURE + SEABIOS + SYSTEM, "failure", "late-command-failed"),
        (FAILURE + VAIN * 5, "failure", "late-command-failed"),
        (SUCCESS + CUT, "incomplete", "ended-early"),
        (CUT + SUCCESS, "success", None),
        (CUT + SEABIOS + SYSTEM, "incomplete", "ended-early"),
        (CUT + SEABIOS + KERNEL + VFS, "failure", "no-initramfs"),
        (SEABIOS + KERNEL + VFS + VAIN, "failure", "no-initramfs"),
        (SEABIOS + KERNEL + VFS + SUCCESS, "success", None),
        (SEABIOS + KERNEL + VFS + SYSTEM, "incomplete", "no-installer"),
        (SEABIOS + "No bootable device.\n" + SUCCESS, "success", None),
        (OVMF + INSTALLED + LATE + FAILED_LATE + PROMPT + OVMF + INSTALLED + LATE + LATE_DONE + DOWN, "success", None),
        # A loop
        (VAIN * 2, "incomplete", "ended-early"),
        (VAIN * 3, "failure", "reboot-loop"),
        (VAIN * 50, "failure", "reboot-loop"),
        (SEABIOS * 3, "failure", "reboot-loop"),
        (CUT * 3, "failure", "reboot-loop"),
        (CUT + VAIN * 2, "failure", "reboot-loop"),
        (OVMF + KERNEL + OVMF + KERNEL + OVMF + KERNEL, "failure", "reboot-loop"),
        (KERNEL * 4, "failure", "reboot-loop"),
        (VAIN * 5 + SUCCESS, "success", None),
        (VAIN * 5 + FAILURE, "failure", "late-command-failed"),
        # Orderly restarts, and systems that came up, are no loop
        ((VAIN + REBOOT) * 5, "incomplete", "ended-early"),
        ((VAIN + "[  OK  ] Reached target multi-user.target - Multi-User System.\n") * 5, "incomplete", "ended-early"),
        ((SYSTEM + "\n") * 5, "incomplete", "no-installer"),
        # Firmware that tries its options one after the other, and a menu that is drawn again
        (OVMF * 4 + INSTALLED + LATE + LATE_DONE + SHUTDOWN, "success", None),
        (OVMF * 4, "incomplete", "ended-early"),
    ],
)
def test_several_boots(text: str, outcome: str, slug: str | None) -> None:
    found = explain(console(text))
    assert found.verdict == outcome
    assert (found.cause or "None").partition(":")[0] == str(slug)


def test_a_loop_tells_the_furthest_it_came() -> None:
    found = explain(console(VAIN + CUT + VAIN))
    assert (found.phase, found.cause) == ("late-commands", (found.cause or "").replace("Start", ""))
    assert "Running the late-commands" in (found.cause or "")
    assert found.lines[-1].startswith("finish:  subiquity/Late/")


def test_the_kernels_log_shown_after_a_failure_hides_nothing() -> None:
    log = KERNEL + "[   66.648329] systemd[1]: running\n"
    for text in (
        FAILURE + log,
        INSTALLED + LATE + FAILED_LATE + "start: subiquity/Error/run: \n" + log + PROMPT + "\n",
    ):
        found = explain(console(text))
        assert found.verdict == "failure"
        assert (found.cause or "").startswith("late-command-failed: ")
    done = f"prebake-sentinel:installed:{TOKEN}\n"
    assert explain(console(INSTALLED + LATE + log + done + DOWN), TOKEN).verdict == "success"


def test_several_boots_by_any_chunks() -> None:
    raw = console(FAILURE + SUCCESS + SEABIOS + SYSTEM)
    expected = explain(raw)
    for size in (1, 2, 7, 64, 65, 997):
        assert explain(raw[at : at + size] for at in range(0, len(raw), size)) == expected


def test_the_watch_of_a_running_install_knows_no_second_boot() -> None:
    state = InstallState()
    state.feed(console(FAILURE + SUCCESS))
    assert state.verdict().verdict == "failure"
