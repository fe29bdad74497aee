"""Small ISOs laid out like Ubuntu's live-server media, built with xorriso once a test session.

The option lists are Canonical's: debian-cd's boot scripts (22.04 to 25.10) and livecd-rootfs's isobuilder
(26.04). What is small is the content: a few kilobytes stand for each kernel and file system.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builder.command import run
from builder.errors import PrebakeError
from builder.store import cache_folder, locked

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOT_HYBRID = Path("/usr/lib/grub/i386-pc/boot_hybrid.img")
PROGRAMS = ("xorriso", "mkfs.vfat", "mcopy", "mmd", "grub-mkimage")

GRUB_2204 = """\
set timeout=30

loadfont unicode

set menu_color_normal=white/black
set menu_color_highlight=black/light-gray

menuentry "Try or Install Ubuntu Server" {
	set gfxpayload=keep
	linux	/casper/vmlinuz  ---
	initrd	/casper/initrd
}
menuentry "Ubuntu Server with the HWE kernel" {
	set gfxpayload=keep
	linux	/casper/hwe-vmlinuz  ---
	initrd	/casper/hwe-initrd
}
grub_platform
if [ "$grub_platform" = "efi" ]; then
menuentry 'Boot from next volume' {
	exit 1
}
menuentry 'UEFI Firmware Settings' {
	fwsetup
}
else
menuentry 'Test memory' {
	linux16 /boot/memtest86+.bin
}
fi
"""

LOOPBACK = """\
menuentry "Try or Install Ubuntu Server" {
	set gfxpayload=keep
	linux	/casper/vmlinuz  iso-scan/filename=${iso_path} ---
	initrd	/casper/initrd
}
menuentry "Ubuntu Server with the HWE kernel" {
	set gfxpayload=keep
	linux	/casper/hwe-vmlinuz  iso-scan/filename=${iso_path} ---
	initrd	/casper/hwe-initrd
}
"""

GRUB_2604 = """\
set timeout=30

menuentry "Try or Install Ubuntu Server" {
    set gfxpayload=keep
    linux  /casper/vmlinuz  ---\x20
    initrd /casper/initrd
}
menuentry "Ubuntu Server with the HWE kernel" {
    set gfxpayload=keep
    linux  /casper/hwe-vmlinuz  ---\x20
    initrd /casper/hwe-initrd
}
"""

GRUB_ARM64 = """\
set timeout=30
if [ "$dtb" != "" ]; then
    set cmdline="clk_ignore_unused pd_ignore_unused"
fi
menuentry "Try or Install Ubuntu Server" {
    set gfxpayload=keep
    linux /casper/vmlinuz $cmdline  ---  console=tty0
    initrd /casper/initrd
}
"""

SIGHT = """\
echo "PLATFORM $grub_platform"
echo "FROM $cmdpath"
for device in (cd) (cd0) (cd1) (hd0) (hd0,1); do
	if [ -f $device/nocloud/user-data ]; then
		echo "SEEN from $device"
		cat $device/nocloud/user-data
	fi
done
"""
"""Says where GRUB runs and what it sees; on the serial port only if something has made that a console."""

TALKING = """\
function linux {
	echo "KERNEL $1"
	for word in "$@"; do
		echo "[$word]"
	done
}
function initrd {
	if [ "$1" = "@LAST@" ]; then
		halt
	fi
	set default=1
	export default
	configfile $prefix/grub.cfg
}
"""
"""In front of a menu: entries say what the kernel would get, each word by itself, one entry after the other.

GRUB finds a function only where there is no command of that name, so it must have no `linux` built in.
"""


UNLISTED = frozenset({"boot/grub/i386-pc/eltorito.img"})
"""What md5sum.txt leaves out."""
UNLISTED_2604 = UNLISTED | {"boot/grub/grub.cfg"}
"""What it leaves out on media that isobuilder has made, which are 26.04's."""


@dataclass(frozen=True)
class Variant:
    """One kind of medium: which options xorriso gets and what the tree holds."""

    name: str
    volume_id: str = "Ubuntu-Server 24.04.3 LTS amd64"
    disk_info: str = 'Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)'
    arch: str = "amd64"
    table: str = "gpt"
    joliet: bool = True
    second_tree: bool = True
    iso_level: int | None = None
    bootable_mbr: bool = True
    grub_cfg: str = GRUB_2204
    loopback: str | None = LOOPBACK
    catalog_sum: str = ""
    """Whether md5sum.txt lists the boot catalog: with a "right" sum, with a "wrong" one, or not at all."""
    unlisted: frozenset[str] = UNLISTED
    extra: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    programs: str = "names"
    """What is on the ESP: "names" of programs only, a "grub" that boots, or Debian's "signed" shim and GRUB."""

    def tree(self) -> dict[str, bytes]:
        """Return what the ISO holds, by path without a leading slash, without md5sum.txt and the boot files."""
        files: dict[str, bytes] = {
            ".disk/info": self.disk_info.encode(),
            ".disk/cd_type": b"full_cd/single\n",
            ".disk/casper-uuid-generic": b"8d5e-generic\n",
            "boot/grub/grub.cfg": self.grub_cfg.encode(),
            "casper/vmlinuz": b"kernel" * 700,
            "casper/initrd": b"initrd" * 900,
            "casper/hwe-vmlinuz": b"hwe-kernel" * 700,
            "casper/hwe-initrd": b"hwe-initrd" * 900,
            "casper/install-sources.yaml": b"- id: ubuntu-server\n",
            "casper/ubuntu-server-minimal.squashfs": b"hsqs" + bytes(range(256)) * 64,
            "casper/ubuntu-server-minimal.ubuntu-server.installer.generic-hwe.squashfs": b"hsqs" * 8,
            "casper/ubuntu-server-minimal.manifest": b"bash\t5.2\n",
            "dists/noble/Release": b"Origin: Ubuntu\n",
            "pool/main/g/grub2/grub-pc_2.12_amd64.deb": b"!<arch>\n",
            "pool/main/s/shim signed/empty": b"",
            "install/mt86plus": b"memtest",
            "preseed/ubuntu.seed": b"# nothing\n",
        }
        if self.loopback is not None:
            files["boot/grub/loopback.cfg"] = self.loopback.encode()
        return {**files, **self.extra}


AMD64 = Variant("amd64")
AMD64_2604 = Variant(
    "amd64-26.04",
    volume_id="Ubuntu-Server 26.04.1 LTS amd64",
    disk_info='Ubuntu-Server 26.04.1 LTS "Resolute Raccoon" - Release amd64 (20260806)',
    iso_level=3,
    grub_cfg=GRUB_2604,
    catalog_sum="right",
    unlisted=UNLISTED_2604,
)
NO_JOLIET = Variant("no-joliet", joliet=False)
NO_SECOND_TREE = Variant("no-second-tree", second_tree=False, iso_level=2)
ARM64_GPT = Variant(
    "arm64-gpt",
    volume_id="Ubuntu-Server 26.04 LTS arm64",
    disk_info='Ubuntu-Server 26.04 LTS "Resolute Raccoon" - Release arm64 (20260423)',
    arch="arm64",
    iso_level=3,
    bootable_mbr=False,
    grub_cfg=GRUB_ARM64,
    loopback=None,
    unlisted=UNLISTED_2604,
)
ARM64_MBR = Variant(
    "arm64-mbr",
    volume_id="Ubuntu-Server 22.04.5 LTS arm64",
    disk_info='Ubuntu-Server 22.04.5 LTS "Jammy Jellyfish" - Release arm64 (20240911)',
    arch="arm64",
    table="mbr",
    bootable_mbr=False,
    loopback=None,
    catalog_sum="right",
)
MANY = Variant(
    "many",
    iso_level=3,
    extra={
        **{f"pool/many/package-{number:03d}_1.0~rc{number % 7}+dfsg.deb": b"x" * number for number in range(300)},
        "pool/" + "/".join(f"d{depth}" for depth in range(12)) + "/deep file.txt": b"deep",
        "pool/" + "long-name-" * 19 + "end": b"long",
        **{f"pool/tricky/{name}": name.encode() for name in ("a", "a.b", "a-b", "A", "a~", "ab", "a b", "é", "Ω")},
        **{f"pool/dir{number:02d}/leaf": b"leaf" for number in range(60)},
    },
)
VARIANTS = (
    AMD64,
    AMD64_2604,
    NO_JOLIET,
    NO_SECOND_TREE,
    ARM64_GPT,
    ARM64_MBR,
)


def missing_programs() -> list[str]:
    """Return what building a medium needs and this host lacks."""
    lacking = [name for name in PROGRAMS if not (shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin"))]
    return lacking + ([] if BOOT_HYBRID.exists() else [str(BOOT_HYBRID)])


@functools.cache
def workshop() -> Path:
    """Return the folder of this session's media; it is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="prebake-media-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


MODULES = ("iso9660", "part_msdos", "part_gpt", "normal", "configfile")
COMMANDS = ("echo", "cat", "halt", "test", "search", "minicmd", "reboot")


@functools.cache
def eltorito_image() -> Path:
    """Return a GRUB boot image for BIOS that reads /boot/grub/grub.cfg from the medium."""
    path = workshop() / "eltorito.img"
    target = ["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-o", str(path)]
    run(["grub-mkimage", *target, "biosdisk", "serial", "terminal", "all_video", *MODULES, *COMMANDS])
    return path


@functools.cache
def grub_efi(arch: str) -> bytes:
    """Return a GRUB for UEFI that reads /boot/grub/grub.cfg from the medium it came from.

    Raises LookupError if GRUB's modules for ``arch`` cannot be had.
    """
    target = {"amd64": "x86_64-efi", "arm64": "arm64-efi"}[arch]
    folder = Path("/usr/lib/grub") / target
    if not (folder / "iso9660.mod").exists():
        folder = debian_package(f"grub-efi-{arch}-bin", arch) / "usr/lib/grub" / target
    path, early = workshop() / f"grub-{target}.efi", workshop() / "early.cfg"
    early.write_text("search --file --set=root /.disk/info\nset prefix=($root)/boot/grub\n")
    argv = ["grub-mkimage", "-d", str(folder), "-O", target, "-p", "/boot/grub", "-c", str(early), "-o", str(path)]
    run([*argv, "fat", "efi_gop", *MODULES, *COMMANDS])
    return path.read_bytes()


UNOBTAINABLE: dict[tuple[str, str], str] = {}
"""Why a package cannot be fetched, so that a session without a network asks once."""


def debian_package(name: str, arch: str) -> Path:
    """Return the folder a Debian package is unpacked in; it is fetched once and kept in the cache.

    This host's own apt fetches it, for ``arch`` and in folders of its own, so nothing is installed or changed.
    Raises LookupError if there is no apt, or the host's sources do not have the package.
    """
    kept = cache_folder() / "tests" / f"{name}-{arch}"
    if (name, arch) in UNOBTAINABLE:
        raise LookupError(UNOBTAINABLE[name, arch])
    with locked(kept.with_suffix(".lock")):
        if kept.exists():
            return kept
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            work = Path(scratch)
            settings = [f"APT::Architecture={arch}", f"APT::Architectures::={arch}", "APT::Sandbox::User=root"]
            settings += [f"Dir::{kind}={work / kind.lower()}" for kind in ("State", "Cache")]
            settings += [f"Dir::State::status={work / 'status'}"]
            options = [word for setting in settings for word in ("-o", setting)]
            (work / "status").touch()
            for folder in ("state/lists/partial", "cache/archives/partial"):
                (work / folder).mkdir(parents=True)
            try:
                run(["apt-get", "-qq", *options, "update"], cwd=work, timeout=100)
                run(["apt-get", "-qq", *options, "download", name], cwd=work, timeout=100)
                run(["dpkg-deb", "-x", str(next(work.glob("*.deb"))), str(work / "tree")])
            except PrebakeError as error:
                UNOBTAINABLE[name, arch] = (
                    f"{name} for {arch} cannot be fetched: {error.message.splitlines()[-1].strip()}"
                )
                raise LookupError(UNOBTAINABLE[name, arch]) from error
            (work / "tree").rename(kept)
    return kept


def _first(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not found:
        raise LookupError(f"There is no {pattern} in {folder}.")
    return found[0]


def efi_programs(variant: Variant) -> dict[str, bytes]:
    """Return the files of EFI/boot, by name. Raises LookupError if they cannot be had."""
    suffix = "x64" if variant.arch == "amd64" else "aa64"
    if variant.programs == "signed":
        shim = _first(debian_package("shim-signed", variant.arch), f"shim{suffix}.efi.signed*")
        grub = _first(debian_package(f"grub-efi-{variant.arch}-signed", variant.arch), f"gcd{suffix}.efi.signed")
        return {f"boot{suffix}.efi": shim.read_bytes(), f"grub{suffix}.efi": grub.read_bytes()}
    grub_program = grub_efi(variant.arch) if variant.programs == "grub" else b"grub" * 999
    return {f"boot{suffix}.efi": grub_program, f"mm{suffix}.efi": b"mok manager"}


def esp_image(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Make a FAT image named ESP in ``folder`` that holds ``files``."""
    image = folder / "efi.img"
    kilobytes = 256 + sum(len(content) for content in files.values()) // 1024
    run(["mkfs.vfat", "-n", "ESP", "-C", str(image), str((kilobytes + 3) // 4 * 4)])
    run(["mmd", "-i", str(image), "::EFI", "::EFI/boot"])
    for name, content in files.items():
        source = folder / name
        source.write_bytes(content)
        run(["mcopy", "-i", str(image), str(source), f"::EFI/boot/{name}"])
    return image


WRONG_SUM = b"0" * 32


def catalog_path(variant: Variant) -> str:
    """Return where the tree shows the boot catalog."""
    return "/boot.catalog" if variant.arch == "amd64" else "/boot/boot.cat"


def fill(folder: Path, files: Mapping[str, bytes], more: str = "", unlisted: frozenset[str] = UNLISTED) -> None:
    """Write ``files`` below ``folder`` and the md5sum.txt that belongs to them, with ``more`` lines."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "ubuntu").symlink_to(".")
    lines = [
        f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  ./{name}\n"
        for name, content in sorted(files.items())
        if name not in unlisted
    ]
    (folder / "md5sum.txt").write_text("".join(lines) + more)


def _correct(image: Path, path: str) -> None:
    """Make the sum of the boot catalog right, which exists only once xorriso has made the image."""
    kept = image.with_suffix(".catalog")
    run(["xorriso", "-indev", str(image), "-osirrox", "on", "-extract", path, str(kept)])
    catalog = kept.read_bytes()
    assert catalog
    right = hashlib.md5(catalog, usedforsecurity=False).hexdigest().encode()
    whole = image.read_bytes()
    line = b"  ." + path.encode() + b"\n"
    assert whole.count(WRONG_SUM + line) == 1
    image.write_bytes(whole.replace(WRONG_SUM + line, right + line))


def options(variant: Variant, esp: Path) -> list[str]:
    """Return xorriso's mkisofs options for a variant, without output and tree."""
    words = ["-r", *(["-iso-level", str(variant.iso_level)] if variant.iso_level else []), "-V", variant.volume_id]
    words += ["-J", "-joliet-long"] if variant.joliet else []
    words += ["-l"]
    if variant.arch == "amd64":
        words += ["-b", "boot/grub/i386-pc/eltorito.img", "-no-emul-boot", "-boot-load-size", "4"]
        words += ["-boot-info-table", "--grub2-boot-info", "--grub2-mbr", str(BOOT_HYBRID)]
    else:
        words += ["-c", "boot/boot.cat"]
    words += ["-append_partition", "2", "0xef", str(esp)]
    words += ["-appended_part_as_gpt"] if variant.table == "gpt" else []
    words += ["-partition_cyl_align", "all"] if variant.arch == "arm64" else []
    words += ["--mbr-force-bootable"] if variant.bootable_mbr else []
    words += ["-eltorito-alt-boot"] if variant.arch == "amd64" else []
    words += ["-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]
    return words + (["-partition_offset", "16"] if variant.second_tree else [])


@functools.cache
def medium(variant: Variant) -> Path:
    """Build the ISO of ``variant``, once. Raises LookupError if its EFI programs cannot be had."""
    programs = efi_programs(variant)
    folder = workshop() / variant.name
    tree = folder / "tree"
    tree.mkdir(parents=True)
    files = variant.tree()
    files |= {f"EFI/boot/{name}": content for name, content in programs.items()}
    if variant.arch == "amd64":
        files["boot/grub/i386-pc/eltorito.img"] = eltorito_image().read_bytes()
    path = catalog_path(variant)
    fill(tree, files, f"{WRONG_SUM.decode()}  .{path}\n" if variant.catalog_sum else "", variant.unlisted)
    image = folder / f"{variant.name}.iso"
    esp = esp_image(folder, programs)
    run(["xorriso", "-as", "mkisofs", *options(variant, esp), "-o", str(image), str(tree)])
    if variant.catalog_sum == "right":
        _correct(image, path)
    return image


def report(image: Path) -> list[str]:
    """Return xorriso's description of an ISO's partitions and boot entries, a line an item."""
    argv = ["xorriso", "-indev", str(image), "-report_system_area", "plain", "-report_el_torito", "plain"]
    return run(argv).stdout.decode().splitlines()


def extract(image: Path, folder: Path, *, joliet: bool = False) -> Path:
    """Extract the whole tree of an ISO, as xorriso sees it, to a new ``folder``."""
    argv = ["xorriso", "-read_fs", "norock" if joliet else "any", "-osirrox", "on", "-indev", str(image)]
    run([*argv, "-extract", "/", str(folder)])
    run(["chmod", "-R", "u+rwX", str(folder)])
    return folder
