"""What the rehearsal medium is made of: packages, kernel modules, names."""

from __future__ import annotations

import hashlib
from pathlib import Path

SUITE = "bookworm"
VERSION = "24.04.3"
"""The point release whose flow is rehearsed: the user is created at first boot, two kernels in the menu."""
VOLUME_ID = f"Rehearsal-Server {VERSION} amd64"
DISK_INFO = f'Rehearsal-Server {VERSION} "Debian {SUITE} underneath" - Release amd64'

HERE = Path(__file__).parent

PACKAGES = (
    *(
        "usr-is-merged",
        "systemd-sysv",
        "udev",
        "dbus",
        "login",
        "passwd",
        "kmod",
        "procps",
        "sudo",
        "tzdata",
        "locales",
    ),
    *("iproute2", "iputils-ping", "netplan.io", "ca-certificates", "less", "nano"),
    *("linux-image-amd64", "initramfs-tools", "busybox", "zstd", "lz4"),
    *("cloud-init", "cloud-guest-utils", "python3-yaml"),
    *("fdisk", "e2fsprogs", "dosfstools", "lvm2", "squashfs-tools"),
    *(
        "grub2-common",
        "grub-pc-bin",
        "grub-efi-amd64-bin",
        "grub-efi-amd64-signed",
        "shim-signed",
        "efibootmgr",
    ),
)

KERNEL_MODULES = (
    "arch/*",
    "crypto/*",
    "lib/*",
    "block/t10-pi*",  # without it sd_mod, which every USB and SATA disk needs, does not load
    *(f"drivers/{name}/*" for name in ("ata", "virtio", "cdrom", "nvme", "hv", "rtc", "net/hyperv", "net/vmxnet3")),
    *("drivers/block/virtio_blk*", "drivers/block/loop*", "drivers/md/dm-*", "drivers/firmware/qemu_fw_cfg*"),
    *("drivers/char/virtio_console*", "drivers/char/hw_random/*", "drivers/dax/*", "drivers/nvdimm/*"),
    *("drivers/net/virtio_net*", "drivers/net/net_failover*", "net/core/failover*"),
    *("drivers/net/ethernet/intel/e1000/*", "drivers/net/ethernet/intel/e1000e/*"),
    *(
        "drivers/scsi/s[dgr]_mod*",
        "drivers/scsi/scsi_*",
        "drivers/scsi/virtio_scsi*",
        "drivers/scsi/vmw_pvscsi*",
    ),
    *("drivers/scsi/hv_storvsc*", "drivers/message/fusion/*", "drivers/scsi/sr_mod*"),
    *("drivers/usb/core/*", "drivers/usb/common/*", "drivers/usb/host/*", "drivers/usb/storage/*"),
    *("drivers/hid/hid.ko*", "drivers/hid/hid-generic*", "drivers/hid/hid-hyperv*", "drivers/hid/usbhid/*"),
    *("drivers/input/evdev*", "drivers/input/serio/*", "drivers/input/mouse/psmouse*", "drivers/ptp/*"),
    *("drivers/acpi/*", "drivers/pps/*", "drivers/video/*"),
    *(f"fs/{name}/*" for name in ("ext4", "jbd2", "isofs", "squashfs", "overlayfs", "fat", "nls", "fuse")),
    *("fs/mbcache*", "fs/autofs/*", "fs/configfs/*", "fs/efivarfs/*", "fs/binfmt_misc*"),
)
"""Modules the live system and the proofs need: every bus and network card the image is proved with."""

DPKG_OPTIONS = (
    "force-unsafe-io",
    *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "lintian", "locale", "bug")),
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/lib/udev/hwdb.d/*",
    "path-exclude=/usr/lib/grub/x86_64-efi-signed/grubnet*",
    "path-exclude=/lib/modules/*/kernel/*",
    *(f"path-include=/lib/modules/*/kernel/{name}" for name in KERNEL_MODULES),
)


def base_fingerprint() -> str:
    """Return a key for the system's tree: it changes with the packages and what is done to them."""
    parts = [SUITE, *PACKAGES, *DPKG_OPTIONS]
    parts += [path.read_text() for path in (HERE / "base.py", *sorted((HERE / "hooks").iterdir()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def medium_fingerprint(options: tuple[str, ...]) -> str:
    """Return a key for the whole medium: the base, the installer and how the ISO is put together."""
    digest = hashlib.sha256("\0".join((base_fingerprint(), VERSION, *options)).encode())
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
