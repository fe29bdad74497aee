"""The system on the medium: Debian by mmdebstrap, packed as a squashfs, its boot files beside it."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from builder import command
from builder.errors import HostError
from builder.rehearsal import recipe

SQUASHFS = ("tar2sqfs", "--quiet", "--compressor", "zstd", "--comp-extra", "level=3")
BOOT_FILES = {
    "vmlinuz": r"boot/vmlinuz-.*",
    "initrd": r"boot/initrd\.img-.*",
    "boot_hybrid.img": r"usr/lib/grub/i386-pc/boot_hybrid\.img",
    "eltorito.img": r"usr/lib/grub/i386-pc/eltorito\.img",
    "unicode.pf2": r"usr/share/grub/unicode\.pf2",
    "shimx64.efi": r"usr/lib/shim/shimx64\.efi\.signed",
    "mmx64.efi": r"usr/lib/shim/mmx64\.efi(\.signed)?",
    "gcdx64.efi": r"usr/lib/grub/x86_64-efi-signed/gcdx64\.efi\.signed",
}
MODULES = re.compile(r"usr/lib/grub/(i386-pc|x86_64-efi)/[^/]+\.(mod|lst)")
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
"""Comes with mmdebstrap; the package usrmerge would bring all of Perl."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Base:
    """The packed system and the folder with its kernel, its initial RAM disk and its boot loaders."""

    squashfs: Path
    boot: Path


def sources(mirror: str | None) -> list[str]:
    """Return apt source lines for the suite: from ``mirror``, from this host if it runs the suite, or none.

    ``mirror`` replaces the archive and is asked for nothing else. With none, mmdebstrap takes the one it knows.
    """
    if mirror:
        return [f"deb {mirror} {recipe.SUITE} main"]
    listed = []
    if shutil.which("apt-get"):
        form = "$(REPO_URI)|$(CODENAME)|$(ORIGIN)|$(COMPONENT)"
        out = command.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).stdout
        for row in sorted(set(out.decode().splitlines())):
            uri, codename, origin, component = row.split("|")
            if origin == "Debian" and codename.split("-")[0] == recipe.SUITE and component == "main":
                listed.append(f"deb {uri} {codename} main")
    return listed if any(f" {recipe.SUITE} " in line for line in listed) else []


def apt_options() -> list[str]:
    """Return this host's apt settings on proxies, validity and retries: the mirror is reached the same way."""
    if not shutil.which("apt-config"):
        return []
    dump = command.run(["apt-config", "dump"]).stdout.decode().splitlines()
    wanted = re.compile(r"Acquire::(Check-\S+|Retries|https?::(\S+::)?(Proxy|Timeout)\S*) ")
    return [line.rstrip(";") for line in dump if wanted.match(line)]


def build(folder: Path, mirror: str | None) -> Base:
    """Make the tree (about a minute, 100 MB fetched), pack it into ``folder``, which must exist and be empty.

    Raises HostError if a program is missing, CommandError with mmdebstrap's words if it fails.
    """
    for program in ("mmdebstrap", "tar2sqfs", "xorriso", "mkfs.vfat", "mcopy"):
        command.find(program)
    lines = sources(mirror)
    if not KEYRING.exists():
        raise HostError(
            "Debian's archive keys are not on this host; the rehearsal medium cannot be checked as genuine.",
            hint="Install them: sudo apt-get install debian-archive-keyring",
        )
    tar = folder / "base.tar"
    hooks = folder / "hooks"
    shutil.copytree(recipe.HERE / "hooks", hooks)
    options = [f"--aptopt={line}" for line in apt_options()]
    options += [f"--dpkgopt={line}" for line in recipe.DPKG_OPTIONS]
    command.run(
        (
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            "--format=tar",
            f"--keyring={KEYRING}",
            f"--include={','.join(recipe.PACKAGES)}",
            f"--hook-dir={MERGED_USR}",
            f"--essential-hook={hooks / 'essential'}",
            f"--customize-hook={hooks / 'customize'}",
            *options,
            recipe.SUITE,
            str(tar),
            *lines,
        ),
        env={"TMPDIR": str(folder)},
    )
    boot = folder / "boot"
    unpack_boot_files(tar, boot)
    squashfs = folder / "base.squashfs"
    with tar.open("rb") as stream:
        command.run((*SQUASHFS, str(squashfs)), stdin=stream)
    tar.unlink()
    return Base(squashfs, boot)


def unpack_boot_files(tar: Path, boot: Path) -> None:
    """Take the kernel, its initial RAM disk and GRUB's files out of the tree's archive."""
    boot.mkdir()
    with tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.lstrip("./")
            for short, pattern in BOOT_FILES.items():
                if member.isfile() and re.fullmatch(pattern, name):
                    _extract(archive, member, boot / short)
            if member.isfile() and MODULES.fullmatch(name):
                _extract(archive, member, boot.joinpath(*name.split("/")[-2:]))
    missing = sorted(set(BOOT_FILES) - {path.name for path in boot.iterdir()})
    if missing:
        raise HostError(
            f"The Debian tree lacks boot files: {', '.join(missing)}.",
            hint="Is the mirror complete? Another one can be named with --mirror.",
        )


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    stream = archive.extractfile(member)
    if stream is not None:
        path.parent.mkdir(exist_ok=True)
        with stream, path.open("wb") as out:
            shutil.copyfileobj(stream, out)


def pack_layer(tree: Path, squashfs: Path) -> None:
    """Pack a folder as a squashfs that belongs to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tree, ".", filter=_of_root)
    command.run((*SQUASHFS, str(squashfs)), stdin=buffer.getvalue())


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
