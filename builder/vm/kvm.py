"""Why /dev/kvm cannot be opened, or is of no use though it opens, and what to do about it.

The causes and their fixes are those of Linux's documentation of KVM (https://www.linux-kvm.org/page/FAQ) and
of the systems that put Linux into a box: containers, WSL, hosted CI machines.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

DEVICE = Path("/dev/kvm")

UDEV_RULE = (
    'echo \'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"\''
    " | sudo tee /etc/udev/rules.d/99-kvm.rules"
    " && sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm"
)
"""Opens KVM to everybody; what hosted CI machines need, where a new login cannot be had."""


@dataclass(frozen=True)
class Trouble:
    """Why something is of no use, and how to mend it if that is known.

    ``cause`` is a word for programs: of an accelerator "permission", "module", "nested", "setup" (virtualisation is
    switched off in the computer's setup), "container", "busy", "hangs" (it opens, and guests do not run), "missing"
    (this build of QEMU does not have it) or "" for anything else.
    """

    reason: str
    fix: str | None
    cause: str = ""


BUSY = Trouble(
    "KVM is busy: another hypervisor holds the processor's virtualisation",
    "stop the virtual machines of VirtualBox, VMware or the like, then try again",
    "busy",
)


@dataclass(frozen=True)
class Surroundings:
    """What is known of the system that runs prebake.

    ``flags`` are the processor's, from /proc/cpuinfo; ``arch`` is "amd64" or "arm64"; ``member`` tells
    whether the user is listed in the group of the device (not whether this session has that group).
    """

    arch: str
    flags: frozenset[str] = frozenset()
    container: bool = False
    wsl: bool = False
    user: str = "$USER"
    group: str = "kvm"
    member: bool = False

    @property
    def virtual(self) -> bool:
        """Whether this system is itself a virtual machine that says so."""
        return "hypervisor" in self.flags


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Return the flags of the first processor in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def explain_missing(here: Surroundings) -> Trouble:
    """Say why there is no /dev/kvm."""
    if here.container:
        return Trouble(
            "there is no /dev/kvm in this container",
            "start the container with `--device /dev/kvm`",
            "container",
        )
    module = "kvm_intel" if "vmx" in here.flags else "kvm_amd" if "svm" in here.flags else None
    if module is not None:
        return Trouble(
            f"there is no /dev/kvm: the processor can virtualise, but the kernel module {module} is not loaded",
            f"`sudo modprobe {module}`; if that fails, `sudo dmesg | grep -i kvm` says why",
            "module",
        )
    if here.wsl:
        return Trouble(
            "there is no /dev/kvm: WSL runs without nested virtualisation",
            "put `nestedVirtualization=true` under `[wsl2]` in %UserProfile%\\.wslconfig,"
            " then `wsl --shutdown` (Windows 11 and an up-to-date WSL)",
            "nested",
        )
    if here.virtual or here.arch == "arm64":
        return Trouble(
            "there is no /dev/kvm: this is a virtual machine, or a processor, without virtualisation of its own",
            "switch nested virtualisation on in the hypervisor around it, or build on the bare machine",
            "nested",
        )
    return Trouble(
        "there is no /dev/kvm: virtualisation is switched off in this computer's firmware",
        "switch on Intel VT-x or AMD-V (SVM) in the BIOS setup",
        "setup",
    )


def explain_denied(here: Surroundings) -> Trouble:
    """Say why /dev/kvm may not be opened."""
    if here.container or here.user == "root":  # nothing but a box around it keeps root out
        return Trouble(
            "/dev/kvm is there, but this container may not open it",
            f"start the container with `--device /dev/kvm --group-add {here.group}`",
            "permission",
        )
    if here.member:
        return Trouble(
            f"/dev/kvm may not be opened: {here.user} is in the group {here.group}, but this session is older",
            f"log out and in again, or start this from `newgrp {here.group}`",
            "permission",
        )
    return Trouble(
        f"/dev/kvm may not be opened by {here.user}",
        f"`sudo usermod -aG {here.group} {here.user}`, then log out and in again; on a CI machine: `{UDEV_RULE}`",
        "permission",
    )


def explain_hanging(how: str, here: Surroundings) -> Trouble:
    """Say why guests do not run though /dev/kvm opens and takes a machine; ``how`` says how far one came.

    Permission, module and the processor's own part are in order then, so none of their fixes helps.
    """
    if here.wsl:
        fix = "update WSL and Windows: `wsl --update`, then `wsl --shutdown`"
    elif here.virtual:
        fix = (
            "have nested virtualisation mended in the hypervisor around this computer, which is itself a virtual "
            "machine (nothing in here mends it), or build on another machine"
        )
    elif here.arch == "arm64":  # its processors do not say whether they are real
        fix = "update the kernel; if this is itself a virtual machine, mend the hypervisor around it"
    else:
        fix = "update the kernel and the computer's firmware; `sudo dmesg | grep -i kvm` may say what is wrong"
    return Trouble(f"/dev/kvm opens, but no guest runs under it: {how}", fix, "hangs")


def explain(code: int, here: Surroundings) -> Trouble:
    """Say what the error number ``code`` of opening /dev/kvm means."""
    if code in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return explain_missing(here)
    if code in {errno.EACCES, errno.EPERM}:
        return explain_denied(here)
    if code == errno.EBUSY:
        return BUSY
    return Trouble(f"/dev/kvm cannot be opened: {os.strerror(code)}", None)


def surroundings(arch: str, device: Path = DEVICE) -> Surroundings:
    """Look around: the processor's flags, the box this runs in, the user and the device's group."""
    import grp  # noqa: PLC0415 - only Unix has it, and only Linux comes here

    user = _user()
    try:
        group = grp.getgrgid(device.stat().st_gid)
    except (OSError, KeyError):
        named, member = "kvm", False
    else:
        named, member = group.gr_name, user in group.gr_mem
    return Surroundings(
        arch=arch,
        flags=cpu_flags(_read(Path("/proc/cpuinfo"))),
        container=any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        wsl="microsoft" in _read(Path("/proc/sys/kernel/osrelease")).lower(),
        user=user,
        group="kvm" if named == "root" else named,
        member=member,
    )


def open_trouble(arch: str, device: Path = DEVICE) -> Trouble | None:
    """Open ``device`` for reading and writing, as QEMU does; return None if that works, else why not.

    That it opens says little: see ``builder.vm.accel``.
    """
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return explain(error.errno or errno.EIO, surroundings(arch, device))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _user() -> str:
    import pwd  # noqa: PLC0415 - only Unix has it, and only Linux comes here

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "$USER"
