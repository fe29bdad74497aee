"""Puts the rehearsal medium together, or takes it from the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from builder import command
from builder.events import Note, Phase, Reporter
from builder.leftovers import scratch
from builder.rehearsal import base as base_module
from builder.rehearsal import cpio, menu, recipe
from builder.store import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

MINIMAL = "ubuntu-server-minimal"
LAYER = f"{MINIMAL}.ubuntu-server.installer"
OPEN = "/var/tmp"  # noqa: S108 - only the parent of a folder with a name nobody can guess
"""Where an ordinary user's mmdebstrap works: its other user ids may not look into a home folder."""
UNLISTED = {"boot/grub/i386-pc/eltorito.img"}
"""xorriso writes its boot-info-table into this one, so that no checksum made before is right."""


def rehearsal_iso(
    cache: Path,
    report: Reporter,
    *,
    mirror: str | None = None,
    quiet: bool = True,
    create_users: str = "first-boot",
) -> Path:
    """Return the path of the medium in ``cache``, made now if its recipe has changed or it is not there.

    ``quiet`` keeps the kernel silent on the serial line; ``create_users`` is "first-boot" (as Ubuntu's
    installer up to 24.04.3) or "install" (since 24.04.4).

    Raises HostError if a program is missing and CommandError if one fails.
    """
    options = (f"quiet={quiet}", f"users={create_users}")
    folder = cache / "rehearsal"
    folder.mkdir(parents=True, exist_ok=True)
    iso = folder / f"rehearsal-{recipe.medium_fingerprint(options)}.iso"
    with locked(folder / "lock"):
        if iso.exists():
            report(Note(f"Rehearsal medium from the cache: {iso}", "debug"))
            return iso
        made = _base(folder, report, mirror)
        report(Phase("medium", "Putting the ISO together", 0.9))
        with tempfile.TemporaryDirectory(dir=folder, prefix="medium-") as name:
            work = Path(name)
            tree = work / "tree"
            arrange(tree, made, quiet=quiet, create_users=create_users)
            layer(work / "layer", tree / "casper" / f"{LAYER}.squashfs")
            write_md5sums(tree)
            esp = work / "esp.img"
            make_esp(tree / "EFI", esp)
            command.run(xorriso(tree, made.boot / "boot_hybrid.img", esp, work / "medium.iso"))
            os.replace(work / "medium.iso", iso)  # noqa: PTH105 - atomic by contract
    return iso


def _base(folder: Path, report: Reporter, mirror: str | None) -> base_module.Base:
    kept = folder / f"base-{recipe.base_fingerprint()}"
    if not kept.exists():
        report(Phase("base", "Making a Debian system (a minute or two)", 0.05))
        aside = kept.with_suffix(".new")
        shutil.rmtree(aside, ignore_errors=True)
        with scratch(Path(OPEN) if os.geteuid() else folder, "prebake-base-", "a Debian system") as work:
            work.chmod(0o755)
            base_module.build(work, mirror)
            shutil.copytree(work, aside)
        aside.rename(kept)
    return base_module.Base(kept / "base.squashfs", kept / "boot")


def arrange(tree: Path, made: base_module.Base, *, quiet: bool, create_users: str) -> None:
    """Lay the medium's files out as on Ubuntu's; the HWE kernel is the same file under a second name."""
    for name in (
        "casper",
        ".disk",
        "boot/grub/fonts",
        "EFI/boot",
        "dists/stable",
        "pool/main",
        "install",
        "preseed",
    ):
        (tree / name).mkdir(parents=True)
    casper, grub = tree / "casper", tree / "boot/grub"
    live_uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, made.squashfs.parent.name))
    os.link(made.squashfs, casper / f"{MINIMAL}.squashfs")
    shutil.copyfile(made.boot / "vmlinuz", casper / "vmlinuz")
    early = _early_initrd(live_uuid)
    (casper / "initrd").write_bytes(early + (made.boot / "initrd").read_bytes())
    for name in ("vmlinuz", "initrd"):
        os.link(casper / name, casper / f"hwe-{name}")
    (casper / "install-sources.yaml").write_text(yaml.safe_dump(_sources(made), sort_keys=False))
    (casper / "rehearsal.json").write_text(json.dumps({"create-users": create_users}) + "\n")
    (grub / "grub.cfg").write_text(menu.grub_cfg(quiet=quiet))
    (grub / "loopback.cfg").write_text(menu.loopback_cfg(quiet=quiet))
    for target in ("i386-pc", "x86_64-efi"):
        shutil.copytree(made.boot / target, grub / target)
    shutil.copyfile(made.boot / "eltorito.img", grub / "i386-pc/eltorito.img")
    shutil.copyfile(made.boot / "unicode.pf2", grub / "fonts/unicode.pf2")
    for source, name in (("shimx64", "bootx64"), ("gcdx64", "grubx64"), ("mmx64", "mmx64")):
        shutil.copyfile(made.boot / f"{source}.efi", tree / f"EFI/boot/{name}.efi")
    disk = tree / ".disk"
    (disk / "info").write_text(f"{recipe.DISK_INFO} ({time.strftime('%Y%m%d', time.gmtime())})")
    (disk / "base_installable").touch()
    (disk / "cd_type").write_text("full_cd/single\n")
    for name in ("casper-uuid-generic", "casper-uuid-generic-hwe"):
        (disk / name).write_text(live_uuid + "\n")
    (tree / "ubuntu").symlink_to(".")


def _early_initrd(live_uuid: str) -> bytes:
    with scratch(Path(tempfile.gettempdir()), "prebake-", "a RAM disk") as tree:
        shutil.copytree(recipe.HERE / "live/initrd", tree, dirs_exist_ok=True)
        (tree / "conf/uuid.conf").write_text(live_uuid + "\n")
        return cpio.archive(tree)


def _sources(made: base_module.Base) -> list[dict[str, object]]:
    size = made.squashfs.stat().st_size * 3
    rows = (
        ("ubuntu-server", "Rehearsal Server", True),
        ("ubuntu-server-minimal", "Rehearsal Server (minimized)", False),
    )
    return [
        {
            "id": key,
            "name": {"en": name},
            "description": {"en": "Debian, for rehearsing an installation."},
            "default": default,
            "path": f"{MINIMAL}.squashfs",
            "size": size,
            "type": "fsimage",
            "variant": "server",
            "locale_support": "none",
        }
        for key, name, default in rows
    ]


def layer(tree: Path, squashfs: Path) -> None:
    """Pack what the live session has over the plain system: the installer, its consoles, cloud-init's settings."""
    shutil.copytree(recipe.HERE / "live/root", tree)
    package = tree / "usr/lib/python3/dist-packages/rehearsal_installer"
    shutil.copytree(recipe.HERE / "guest", package, ignore=shutil.ignore_patterns("__pycache__"))
    units = tree / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for name in ("rehearsal-server.service", "casper-md5check.service"):
        (wanted / name).symlink_to(f"../{name}")
    for name in ("systemd-networkd-wait-online.service", "fstrim.timer", "dpkg-db-backup.timer"):
        (units / name).symlink_to("/dev/null")
    base_module.pack_layer(tree, squashfs)


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())


def write_md5sums(tree: Path) -> None:
    """Write md5sum.txt over all files, in the form `md5sum -c` reads."""
    lines = []
    for path in _files(tree):
        name = path.relative_to(tree).as_posix()
        if name not in UNLISTED:
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False)
            lines.append(f"{digest.hexdigest()}  ./{name}\n")
    (tree / "md5sum.txt").write_text("".join(lines))


def make_esp(efi: Path, image: Path) -> None:
    """Make the EFI system partition: a FAT image that holds only EFI/boot, one MiB larger than its files."""
    kib = sum(path.stat().st_size for path in _files(efi)) // 1024 + 1024
    command.run(("mkfs.vfat", "-n", "ESP", "-C", str(image), str(kib)))
    command.run(("mcopy", "-s", "-i", str(image), str(efi), "::/EFI"))


def xorriso(tree: Path, mbr: Path, esp: Path, iso: Path) -> tuple[str, ...]:
    """Return xorriso's arguments: the options Ubuntu's live-server ISOs have been made with since 20.10."""
    # fmt: off
    return (
        "xorriso", "-as", "mkisofs", "-r", "-checksum_algorithm_iso", "md5,sha1",
        "-V", recipe.VOLUME_ID, "-o", str(iso), "-J", "-joliet-long", "-l", "-cache-inodes",
        "-b", "boot/grub/i386-pc/eltorito.img", "-no-emul-boot", "-boot-load-size", "4",
        "-boot-info-table", "--grub2-boot-info", "--grub2-mbr", str(mbr), "--mbr-force-bootable",
        "-append_partition", "2", "0xef", str(esp), "-appended_part_as_gpt",
        "-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot",
        "-partition_offset", "16", str(tree),
    )
    # fmt: on
