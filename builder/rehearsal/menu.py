"""The medium's GRUB menu, with the entries and the shape of Ubuntu's: no `autoinstall`, no `console=`."""

from __future__ import annotations

KERNELS = (("Try or Install Rehearsal Server", ""), ("Rehearsal Server with the HWE kernel", "hwe-"))

HEAD = """set timeout=30

loadfont unicode

set menu_color_normal=white/black
set menu_color_highlight=black/light-gray

"""
TAIL = """grub_platform
if [ "$grub_platform" = "efi" ]; then
menuentry 'Boot from next volume' {
\texit 1
}
menuentry 'UEFI Firmware Settings' {
\tfwsetup
}
fi
"""


def entry(title: str, prefix: str, before: str, after: str) -> str:
    """Return one menu entry; ``before`` and ``after`` stand on their side of the `---`."""
    return (
        f'menuentry "{title}" {{\n\tset gfxpayload=keep\n'
        f"\tlinux\t/casper/{prefix}vmlinuz {before} ---{after}\n\tinitrd\t/casper/{prefix}initrd\n}}\n"
    )


def grub_cfg(*, quiet: bool) -> str:
    """Return boot/grub/grub.cfg; ``quiet`` spares the emulated serial line the kernel's words."""
    after = " quiet" if quiet else ""
    return HEAD + "".join(entry(title, prefix, "", after) for title, prefix in KERNELS) + TAIL


def loopback_cfg(*, quiet: bool) -> str:
    """Return boot/grub/loopback.cfg, for booting the ISO as a file."""
    after = " quiet" if quiet else ""
    scan = "iso-scan/filename=${iso_path}"
    return "".join(entry(title, prefix, scan, after) for title, prefix in KERNELS)
