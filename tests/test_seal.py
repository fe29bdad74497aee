"""The scripts that tidy up and grow, on trees and disks of files: real partitions, no root, no guest."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from builder.resources import templates

if TYPE_CHECKING:
    from pathlib import Path

GUEST = templates() / "guest"
MIB = 1 << 20
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SFDISK = shutil.which("sfdisk", path=SYSTEM_PATH)
ROOT = "29 1 {number} / / rw,relatime shared:1 - {kind} {source} rw\n"
PROC = "22 29 0:21 / /proc rw - proc proc rw\n"


class Disk:
    """A disk with two partitions, as proc, sys and dev show it, and programs that only say how they were called."""

    def __init__(self, top: Path, *, kind: str = "ext4", volume: str = "", spare: int = 4096) -> None:
        self.top = top
        self.path = top / "dev/vda"
        self.said = top / "said"
        self.fake = top / "bin"
        for folder in ("dev", "var/lib", "proc/self", "bin", "sys/dev/block", "sys/class/block"):
            (top / folder).mkdir(parents=True)
        self.tree = top / "sys/devices/pci/block/vda"
        self.sectors = 128 * MIB // 512
        self.rows = [(2048, 2048), (4096, self.sectors - 4096 - spare)]
        self.describe()
        number, source, device = "252:2", "/dev/vda2", self.tree / "vda2"
        if volume:
            number, source = "253:0", "/dev/mapper/ubuntu--vg-ubuntu--lv"
            device = top / "sys/devices/virtual/block/dm-0"
            for folder in ("dm", "slaves"):
                (device / folder).mkdir(parents=True)
            (device / "dm/uuid").write_text(f"{volume}\n")
            (device / "dm/name").write_text("ubuntu--vg-ubuntu--lv\n")
            (device / "slaves/vda2").symlink_to(self.tree / "vda2")
        if kind == "btrfs":
            number = "0:40"
        (top / "sys/dev/block" / number).symlink_to(device)
        (top / "sys/class/block/vda2").symlink_to(self.tree / "vda2")
        mounts = ROOT.format(number=number, kind=kind, source=source)
        (top / "proc/self/mountinfo").write_text(PROC + mounts + PROC.replace("/proc", "/root"))
        for name in ("partx", "resize2fs", "xfs_growfs", "btrfs", "pvresize", "lvextend"):
            self.program(name)

    def describe(self) -> None:
        """Write what the kernel says of the disk."""
        self.tree.mkdir(parents=True, exist_ok=True)
        (self.tree / "size").write_text(f"{self.sectors}\n")
        for number, (start, size) in enumerate(self.rows, 1):
            place = self.tree / f"vda{number}"
            place.mkdir(exist_ok=True)
            for name, value in (("partition", number), ("start", start), ("size", size)):
                (place / name).write_text(f"{value}\n")

    def program(self, name: str, text: str = "exit 0") -> None:
        path = self.fake / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.said}\n{text}\n')
        path.chmod(0o755)

    def grow(self) -> subprocess.CompletedProcess[str]:
        """Run the script with this disk, and no growpart of the host's."""
        for name in ("sfdisk", "rm", "sh"):
            found = shutil.which(name, path=SYSTEM_PATH)
            if found and not (self.fake / name).exists():
                (self.fake / name).symlink_to(found)
        argv = ["/bin/sh", str(GUEST / "grow-root.sh"), str(self.top)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": str(self.fake)})

    @property
    def calls(self) -> list[str]:
        return self.said.read_text().replace(str(self.top), "").splitlines() if self.said.exists() else []


def partitioned(disk: Disk, before: int) -> None:
    """Make the disk a file of ``before`` bytes with a real table, and then as large as the kernel says it is."""
    assert SFDISK is not None
    with disk.path.open("wb") as stream:
        stream.truncate(before)
    table = f"label: gpt\n{disk.rows[0][0]},{disk.rows[0][1]},L\n{disk.rows[1][0]},,L\n"
    subprocess.run([SFDISK, "-q", str(disk.path)], input=table, text=True, check=True, capture_output=True)
    with disk.path.open("r+b") as stream:
        stream.truncate(disk.sectors * 512)


def table_of(path: Path) -> str:
    assert SFDISK is not None
    return subprocess.run([SFDISK, "--dump", str(path)], capture_output=True, text=True, check=True).stdout


def test_nothing_is_done_where_nothing_is_to_grow(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    done = disk.grow()
    assert (done.returncode, done.stdout, done.stderr, disk.calls) == (0, "", "", [])
    assert not (tmp_path / "var/lib/grow-root.unfinished").exists()


@pytest.mark.skipif(SFDISK is None, reason="needs sfdisk")
@pytest.mark.parametrize(
    ("kind", "volume", "calls"),
    [
        ("ext4", "", ["resize2fs /dev/vda2"]),
        ("xfs", "", ["xfs_growfs /"]),
        ("btrfs", "", ["btrfs filesystem resize max /"]),
        (
            "ext4",
            "LVM-abc",
            [
                "pvresize -q /dev/vda2",
                "lvextend -q -l +100%FREE /dev/mapper/ubuntu--vg-ubuntu--lv",
                "resize2fs /dev/mapper/ubuntu--vg-ubuntu--lv",
            ],
        ),
    ],
)
def test_a_larger_disk_is_used(tmp_path: Path, kind: str, volume: str, calls: list[str]) -> None:
    disk = Disk(tmp_path, kind=kind, volume=volume, spare=64 * MIB // 512)
    partitioned(disk, 64 * MIB)
    before = table_of(disk.path)
    done = disk.grow()
    assert done.returncode == 0, done
    assert "has grown with its disk" in done.stdout
    assert disk.calls == ["partx -u --nr 2 /dev/vda", *calls]
    after = table_of(disk.path)
    assert before != after
    assert f"last-lba: {disk.sectors - 34}" in after
    with disk.path.open("rb") as stream:
        stream.seek(-512, os.SEEK_END)
        assert stream.read(8) == b"EFI PART", "the copy of the table is not at the end"
    assert not (tmp_path / "var/lib/grow-root.unfinished").exists()


@pytest.mark.skipif(SFDISK is None, reason="needs sfdisk")
def test_growpart_goes_first_and_its_no_change_is_no_failure(tmp_path: Path) -> None:
    disk = Disk(tmp_path, spare=64 * MIB // 512)
    disk.program("growpart", "exit 1")
    assert disk.grow().returncode == 0
    assert disk.calls == ["growpart /dev/vda 2", "resize2fs /dev/vda2"]
    disk.said.unlink()
    disk.program("growpart", "exit 2")
    partitioned(disk, 64 * MIB)
    assert disk.grow().returncode == 0
    assert disk.calls == ["growpart /dev/vda 2", "partx -u --nr 2 /dev/vda", "resize2fs /dev/vda2"]


def test_what_a_power_cut_left_half_done_is_finished(tmp_path: Path) -> None:
    disk = Disk(tmp_path, spare=64 * MIB // 512)
    disk.program("growpart")
    disk.program("resize2fs", "exit 1")
    done = disk.grow()
    assert (done.returncode, "could not be grown" in done.stdout) == (1, True)
    disk.rows[1] = (4096, disk.sectors - 4096 - 34)
    disk.describe()
    disk.said.unlink()
    disk.program("resize2fs")
    assert disk.grow().returncode == 0
    assert disk.calls == ["resize2fs /dev/vda2"]
    assert disk.grow().stdout == ""


@pytest.mark.parametrize("case", ["not-last", "crypt", "overlay", "two-disks"])
def test_any_other_layout_is_left_alone(tmp_path: Path, case: str) -> None:
    volume = {"crypt": "CRYPT-LUKS2-x", "two-disks": "LVM-x"}.get(case, "")
    disk = Disk(tmp_path, kind="overlay" if case == "overlay" else "ext4", volume=volume, spare=64 * MIB // 512)
    if case == "not-last":
        disk.rows.append((sum(disk.rows[1]), 2048))
        disk.describe()
    if case == "two-disks":
        (tmp_path / "sys/devices/virtual/block/dm-0/slaves/vdb1").mkdir()
    done = disk.grow()
    assert (done.returncode, done.stdout, done.stderr, disk.calls) == (0, "", "", [])


FIRMWARE = {
    "lib/firmware/iwlwifi.ucode.zst": 3 * MIB,
    "usr/lib/firmware/amdgpu/big.bin": 5 * MIB,
    "usr/lib/firmware/amd-ucode/kept.bin": MIB,
    "usr/share/doc/linux-firmware/copyright": MIB,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A system with linux-firmware in two packages, and firmware that is of others."""
    base = tmp_path / "var/lib/dpkg"
    (base / "info").mkdir(parents=True)
    (base / "updates").mkdir()
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    rows = ""
    names = list(FIRMWARE)
    for package, files in (("linux-firmware", names[:1]), ("linux-firmware-amd", names[1:]), ("intel-microcode", [])):
        rows += f"Package: {package}\nStatus: install ok installed\nArchitecture: all\nMaintainer: A <a@example.org>\n"
        rows += "Version: 1\nDescription: x\n\n"
        lines = ["/.", "/lib/firmware", *(f"/{name}" for name in files)]
        (base / f"info/{package}.list").write_text("".join(f"{line}\n" for line in lines))
    (base / "status").write_text(rows)
    more = {"usr/lib/firmware/intel-ucode/06": MIB, "usr/lib/firmware/6.8.0-31-generic/x.bin": MIB}
    for name, size in {**FIRMWARE, **more}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return tmp_path


def firmware(tree: Path, budget: str) -> str:
    argv = ["sh", str(GUEST / "firmware.sh"), budget, str(tree)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="needs dpkg")
def test_firmware_above_its_budget_goes_and_does_not_come_back(tree: Path) -> None:
    excludes = tree / "etc/dpkg/dpkg.cfg.d/no-firmware"
    for budget in ("keep", "8"):
        assert firmware(tree, budget) == ""
        assert not excludes.exists()
    assert firmware(tree, "7") == "note: firmware for cards that no virtual machine has: 8 MiB freed\n"
    left = sorted(str(path.relative_to(tree)) for path in (tree / "usr/lib/firmware").rglob("*") if path.is_file())
    kept = ["6.8.0-31-generic/x.bin", "amd-ucode/kept.bin", "intel-ucode/06"]
    assert left == [f"usr/lib/firmware/{name}" for name in kept]
    assert not (tree / "usr/lib/firmware/amdgpu").exists()
    assert (tree / "usr/share/doc/linux-firmware/copyright").exists()
    before = excludes.read_text()
    assert firmware(tree, "7") == ""
    assert excludes.read_text() == before


@pytest.mark.skipif(shutil.which("dpkg-deb") is None or os.geteuid() != 0, reason="needs dpkg and root")
def test_an_upgrade_unpacks_no_firmware(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What dpkg makes of the excludes, with a real package."""
    firmware(tree, "0")
    rows = (tree / "etc/dpkg/dpkg.cfg.d/no-firmware").read_text().splitlines()
    rules = [f"--{row}" for row in rows if row.startswith("path-")]
    source = tmp_path_factory.mktemp("package")
    (source / "DEBIAN").mkdir()
    control = "Package: linux-firmware-new\nVersion: 2\nArchitecture: all\nMaintainer: A <a@example.org>\n"
    (source / "DEBIAN/control").write_text(f"{control}Description: x\n")
    for name in ("amdgpu/new.bin", "6.8.0-99-generic/y.bin", "amd-ucode/new.bin", "regulatory.db"):
        path = source / "usr/lib/firmware" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    package = source.parent / "new.deb"
    argv = ["dpkg-deb", "-b", str(source), str(package)]
    subprocess.run(argv, check=True, capture_output=True)
    argv = ["dpkg", f"--root={tree}", "--force-all", *rules, "--unpack", str(package)]
    subprocess.run(argv, check=True, capture_output=True)
    place = tree / "usr/lib/firmware"
    assert not (place / "amdgpu/new.bin").exists()
    assert all((place / name).exists() for name in ("6.8.0-99-generic/y.bin", "amd-ucode/new.bin", "regulatory.db"))


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts in a namespace of its own")
@pytest.mark.parametrize("policy", ["off", "nocloud"])
def test_a_seal_keeps_what_a_class_has_placed_and_a_second_one_changes_nothing(tmp_path: Path, policy: str) -> None:
    """Runs the whole script where /etc, /var, /root, /home and /boot are folders of the test's; about a second."""
    for name in ("etc", "var", "root", "home", "boot", "tmp"):
        (tmp_path / "fs" / name).mkdir(parents=True)
    top = tmp_path / "fs"
    gone = (
        *("etc/machine-id", "etc/ssh/ssh_host_rsa_key", "etc/shadow-", "etc/netplan/50-cloud-init.yaml"),
        *(
            "etc/sudoers.d/90-cloud-init-users",
            "etc/apt/sources.list.curtin.old",
            "etc/apt/apt.conf.d/90curtin-aptproxy",
        ),
        *("etc/cloud/ds-identify.cfg", "etc/cloud/cloud.cfg.d/99-installer.cfg", "var/lib/cloud/instance/x"),
        *("var/log/installer/autoinstall-user-data", "var/log/journal/abc/system.journal", "var/crash/a.crash"),
        *("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "boot/efi/loader/random-seed"),
        *("var/lib/ubuntu-advantage/private/token", "var/cache/pollinate/seeded", "var/lib/dhcp/a.lease"),
        *("var/lib/systemd/coredump/core.zst", "var/lib/apt/lists/x_Packages", "home/ann/.mysql_history"),
        *("home/ann/.cache/x", "root/.bash_history", "root/.ssh/authorized_keys"),
    )
    kept = (
        "etc/sudoers.d/class",
        "home/ann/.bash_history",
        "home/ann/.ssh/authorized_keys",
        "var/log/of the class/a.log",
    )
    for name in (*gone, *kept, "var/log/wtmp"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "root/.ssh/authorized_keys" else "x")
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "seal.sh").write_text((GUEST / "seal.sh").read_text())
    (scripts / "placed.txt").write_text("".join(f"/{name}\n" for name in kept if "authorized" not in name))
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("systemctl", "fstrim", "apt-get"):
        (fake / name).write_text("#!/bin/sh\nexit 0\n")
        (fake / name).chmod(0o755)
    folders = ("etc", "var", "root", "home", "boot", "tmp")  # /tmp last: pytest's own folder lies there
    script = f"mount --bind {scripts} /mnt\nmount --bind {fake} /media\n"
    script += "".join(f": > {top}/{name}/.ours\nmount --bind {top}/{name} /{name}\n" for name in folders)
    script += "".join(f"[ -e /{name}/.ours ]\nrm /{name}/.ours\n" for name in folders)  # or it ends here
    script += f"PATH=/media:$PATH sh /mnt/seal.sh {policy} ann\n"

    def sealed() -> dict[str, str]:
        argv = ["unshare", "--mount", "sh", "-ec", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}

    first = sealed()
    netplan = first["etc/netplan/01-netcfg.yaml"]
    assert yaml.safe_load(netplan)["network"]["ethernets"]["zz-any"]["match"] == {"name": "e*"}
    assert {name: first[name] for name in kept} == dict.fromkeys(kept, "x")
    assert first["etc/machine-id"] == first["var/log/wtmp"] == ""
    made = {"etc/machine-id", "etc/cloud/ds-identify.cfg"}
    assert {name for name in gone if name in first} <= made
    assert not (top / "root/.ssh").exists()
    assert ("etc/cloud/cloud-init.disabled" in first) == (policy == "off")
    if policy == "nocloud":
        told = yaml.safe_load(first["etc/cloud/cloud.cfg.d/90-prebake.cfg"])
        assert told["datasource_list"] == ["NoCloud", "ConfigDrive"]
        assert told["system_info"]["default_user"] == {"name": "ann", "lock_passwd": False}
        assert "notfound=disabled" in first["etc/cloud/ds-identify.cfg"]
    assert sealed() == first
