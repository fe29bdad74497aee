"""The whole journey on the rehearsal medium, with the command a person types; and its failures, provoked.

Under emulation on two cores: the first image takes about three minutes (and one more to make the medium, once),
each failure about one, the image under UEFI with LVM and a talking kernel about five.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from builder import boot, runs
from builder.autoinstall import own
from builder.autoinstall.password import hash_password
from builder.autoinstall.render import render
from builder.command import run
from builder.events import silent
from builder.image.session import payload_disk, session
from builder.install.patience import patience
from builder.install.site import Site
from builder.install.stage import Trace, install
from builder.media.image import inspect
from builder.rehearsal.build import rehearsal_iso
from builder.spec import GIB, Spec
from builder.store import cache_folder
from builder.vm import accel, disk
from builder.vm.qemu import Disk
from tests import mirror
from tests.command_line import prebake
from tests.journey import CLASSES, MISSING, published

if TYPE_CHECKING:
    from builder.autoinstall.render import Answers

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]
SPEC = Spec(name="journey", network="offline")
FACT = re.compile(r"^([a-z-]+)=(.*?)\r?$", re.MULTILINE)
LEFT = {"journey.qcow2", "console.cast", "manifest.json", "SHA256SUMS", "logs"}


def test_it_ends_with_the_images_path_and_everything_beside_it(built: tuple[Path, str, str]) -> None:
    image, text, _ = built
    assert image.name == "journey.qcow2"
    place = image.parent
    assert [path.name for path in place.parent.iterdir()] == ["journey"], "something was left behind"
    assert {path.name for path in place.iterdir()} == LEFT
    run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=place)
    info = disk.info(image)
    assert (info.format, info.size, info.backing, info.compression) == ("qcow2", 10 * GIB, None, "zstd")
    assert disk.check(image).clean
    told = json.loads((place / "manifest.json").read_text())
    (row,) = told["builds"][0]["files"]
    assert row["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert set(told["prebake"]["seconds"]) >= {"medium", "remaster", "install", "settle", "class", "prove"}
    proved = told["prebake"]["proved"]
    assert (proved["level"], [boot["boot"] for boot in proved["boots"]]) == (
        "full",
        ["virtio", "enlarged", "sata", "nvme", "scsi"],
    )
    firmwares = [boot["machine"].split(", ")[-1] for boot in proved["boots"]]
    assert firmwares == ["BIOS", "BIOS", "UEFI", "BIOS", "UEFI"]
    assert told["prebake"]["base"]["reused"] is False
    sizes = told["prebake"]["sizes"]
    assert sizes["/"] > sizes["/usr"] > sizes["/usr/lib"] > 0
    assert told["prebake"]["image"]["used"] > sizes["/usr"]
    origin = told["prebake"]["medium"]["origin"]
    assert origin["signature"] == "verified"
    assert origin["key"] == mirror.key().extract_certificate().fingerprint.upper()
    assert origin["url"].endswith("/24.04/ubuntu-24.04.3-live-server-amd64.iso")
    for title in ("Installing", "First boot", "Compacting", "Proving the image"):
        assert title in text
    assert " left)" not in text, "a time was told that nobody can know"
    (entry,) = runs.read(place.parent.parent / "cache/prebake/pace.json")
    (kept,) = entry.runs
    assert {"install", "install/late-commands", "class/seal", "publish"} <= set(kept.marks)
    console = (place / "logs/console.log").read_bytes()
    assert b"subiquity/Install/install/curtin_install" in console
    assert b"prebake-sentinel:installed:" in console
    assert b" login: " in (place / "logs/first-boot.log").read_bytes()
    proof = (place / "logs/proof.log").read_bytes()
    assert b" login: " in proof
    assert b"installer-logs=absent" in proof


def test_the_password_is_nowhere(built: tuple[Path, str, str]) -> None:
    image, text, processes = built
    assert "qemu-system-x86_64" in processes
    assert "powercoders" not in text + processes
    assert "$6$" not in text + processes
    for path in image.parent.rglob("*"):
        if path.is_file() and path != image:
            data = path.read_bytes()
            assert b"powercoders" not in data, path
            assert b"$6$" not in data, path


def test_the_image_has_been_on_every_kind_of_machine(built: tuple[Path, str, str]) -> None:
    """`--prove full`: five machines, two of them side by side, and what each of them said of itself."""
    logs = built[0].parent / "logs"
    names = {"virtio": "proof", **{name: f"proof-{name}" for name in ("enlarged", "sata", "nvme", "scsi")}}
    said = {
        name: dict(FACT.findall((logs / f"{log}.log").read_text("utf-8", "replace"))) for name, log in names.items()
    }
    firmwares = {name: facts["firmware"] for name, facts in said.items()}
    assert firmwares == {"virtio": "bios", "enlarged": "bios", "sata": "uefi", "nvme": "bios", "scsi": "uefi"}
    addresses = {name: facts["addresses"] for name, facts in said.items()}
    assert addresses == dict.fromkeys(["virtio", "enlarged", "sata", "nvme"], "10.0.2.15/24") | {"scsi": ""}
    assert len({facts["machine-id"] for facts in said.values()}) == len(said)
    assert int(said["enlarged"]["root-size"]) - int(said["virtio"]["root-size"]) > 3 * GIB
    told = json.loads((built[0].parent / "manifest.json").read_text())["prebake"]["proved"]
    assert "clones differ in their machine-id" in told["between"]


def line_of(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    for _ in range(200):
        with contextlib.suppress(OSError):
            end.connect(str(path))
            return end
        time.sleep(0.05)
    raise AssertionError("QEMU opened no socket")


def test_it_logs_in_on_the_serial_port_and_on_the_screen(built: tuple[Path, str, str], tmp_path: Path) -> None:
    """Boots with a plain machine, types on its keyboard, reads its screen. About a minute."""
    limits = patience(accel.choose("auto", "amd64").speed)
    overlay = tmp_path / "overlay.qcow2"
    disk.create(overlay, None, backing=built[0], backing_format="qcow2")
    disks = (Disk(overlay, boot=1), payload_disk(tmp_path / "payload.tar"))
    machine = replace(boot.plain_machine(SPEC, "amd64", accel.choose("auto", "amd64").name, tmp_path), disks=disks)
    with session(machine, "hand", SPEC.user, Site(tmp_path, tmp_path, limits, silent)) as system:

        def screen(words: str) -> str:
            text = ""
            for _ in range(60):
                text = system.shell.run("fold -w 80 < /dev/vcs1", seconds=limits.answer).output
                if words in text:
                    return text
                time.sleep(0.5)
            raise AssertionError(text)

        screen("ubuntu login:")
        system.machine.send_keys(*"ubuntu", "ret")
        screen("Password:")
        time.sleep(1)
        system.machine.send_keys(*"powercoders", "ret")
        screen("ubuntu@ubuntu:~$")
        system.machine.send_keys(*"tty", "ret")
        screen("/dev/tty1")
        assert system.machine.screendump(tmp_path / "screen.png").stat().st_size > 500
        system.power_off()


def test_an_image_that_is_not_sealed_fails_its_proof(
    built: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spoils a copy of the good image in a boot of its own, then verifies it. About a minute and a half.

    That boot has also made an identity, secrets and logs, which every copy of this copy would share.
    """
    before = hashlib.sha256(built[0].read_bytes()).digest()
    spoiled = tmp_path / "spoiled.qcow2"
    disk.create(spoiled, None, backing=built[0], backing_format="qcow2")
    probe = accel.choose("auto", "amd64")
    disks = (Disk(spoiled, boot=1), payload_disk(tmp_path / "payload.tar"))
    machine = replace(boot.plain_machine(SPEC, "amd64", probe.name, tmp_path), disks=disks)
    with session(machine, "spoil", SPEC.user, Site(tmp_path, tmp_path, patience(probe.speed), silent)) as system:
        system.shell.must(["mkdir", "/var/log/installer"], seconds=60)
        system.shell.must(["passwd", "-d", "root"], seconds=60)
        system.power_off()
    monkeypatch.setenv("CI", "true")
    options = ("--json", "--strict", "--firmware", "bios", "--cpus", "1", "--evidence", tmp_path / "evidence")
    result = prebake("verify", spoiled, *options)
    assert result.code == 11, result.err
    told = json.loads(result.out)
    bad = {row["check"] for row in told["checks"] if not row["good"]}
    left = {"no secret of another system", "no backups of the passwords"}
    assert hashlib.sha256(built[0].read_bytes()).digest() == before
    assert bad == {"no installer logs", "root has no password"} | left
    assert told["evidence"] == str(tmp_path / "evidence")
    assert b"powercoders" not in (tmp_path / "evidence/proof.log").read_bytes()


class Attempt:
    """One install of changed answers, in a folder of its own."""

    def __init__(self, iso: Path, folder: Path) -> None:
        self.iso = inspect(iso)
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.trace = Trace()
        self.answers = render(SPEC, password_hash=hash_password("powercoders"))

    @property
    def told(self) -> dict[str, Any]:
        """The sections of the answers."""
        found: dict[str, Any] = yaml.safe_load(self.answers.user_data)["autoinstall"]
        return found

    def changed(self, sections: dict[str, Any]) -> Answers:
        """The answers with other sections; those that are None are left out."""
        told = {key: value for key, value in {**self.told, **sections}.items() if value is not None}
        return replace(self.answers, user_data="#cloud-config\n" + yaml.safe_dump({"autoinstall": told}, width=10_000))

    def __call__(self, answers: Answers) -> None:
        probe = accel.choose("auto", "amd64")
        overlay = boot.boot_medium(self.iso, answers, self.folder / "medium.qcow2", silent)
        target = self.folder / "disk.qcow2"
        disk.create(target, SPEC.disk)
        machine = boot.plain_machine(SPEC, "amd64", probe.name, self.folder)
        spec = boot.installer(machine, SPEC, overlay, target, self.folder / "guest-logs.tgz")
        site = Site(self.folder, self.logs, patience(probe.speed), silent)
        install(spec, answers.token, site, trace=self.trace)


@pytest.fixture
def attempt(iso: Path, tmp_path: Path) -> Attempt:
    return Attempt(iso, tmp_path)


@pytest.mark.rare
def test_an_install_of_own_answers_that_reboots_on_a_medium_that_checks_itself(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instructor's file, the other way to end, commands on the console, md5sum.txt in the guest. About a minute."""
    monkeypatch.setattr(boot, "UNCHECKED", ())
    check = "/run/casper-md5check.json"
    wait = f"for i in $(seq 100); do [ -e {check} ] && break; sleep 1; done; cat {check} > /dev/ttyS0"
    path = tmp_path / "own.yaml"
    path.write_text(
        f"version: 1\nidentity: {{hostname: vm, username: ann, password: {attempt.answers.password_hash}}}\n"
        "early-commands: ['echo heard-$((40+2))']\nstorage: {layout: {name: direct}}\n"
        f"late-commands: ['{wait}']\n"
    )
    attempt.answers = own.answers_of(own.load(path), tty="ttyS0", watched=True)
    assert len(attempt.answers.added) == 4
    attempt(attempt.changed({"shutdown": "reboot"}))
    console = (attempt.logs / "console.log").read_bytes()
    assert b"running early commands\r\n" in console
    assert b"\nheard-42\r\n" in console
    assert b'"result": "pass"' in console
    assert b"mode=REBOOT" in console
    assert b"reboot: Restarting system" in console


@pytest.fixture(scope="session")
def plain_iso() -> Path:
    """A rehearsal medium whose kernel talks and whose installer makes the user, as Ubuntu's since 24.04.4."""
    return rehearsal_iso(cache_folder(), silent, quiet=False, create_users="install")


CLASS = r"""
extends: CLASSES/plain.yaml
name: uefi
firmware: [uefi, bios]
storage: lvm
disk: 8G
swap: 256M
user: {name: student, full-name: "Ann O'Hara"}
hostname: lab-vm
network: {version: 2, ethernets: {lab: {match: {name: "e*"}, dhcp4: true, optional: true}}}
files:
  - {path: "/srv/it's here/notes.txt", content: "TOP-SECRET {{ }}\n", owner: student, mode: 640}
run:
  - |
    echo "swap: $(swapon --show=NAME,SIZE --bytes --noheadings)"
    stat -c '%n %U:%G %a' "/srv/it's here/notes.txt"
    getent passwd student | cut -d: -f5
  - exec > /srv/other.txt; echo "$0 $- in $PWD"
"""


def test_a_class_under_uefi_with_lvm_and_a_talking_kernel(plain_iso: Path, tmp_path: Path) -> None:
    """Another firmware, another layout, another console, another user and password: about five minutes."""
    password = "correct horse: {}\"'"
    secret = tmp_path / "password"
    secret.write_text(f"{password}\n")
    (tmp_path / "it.yaml").write_text(CLASS.replace("CLASSES", str(CLASSES)))
    with mirror.serving(published(plain_iso)) as server:
        del server.files["/24.04/SHA256SUMS.gpg"]
        result = prebake(
            "image", tmp_path / "it.yaml", "--mirror", server.url, "--insecure-skip-signature", "--offline",
            "-o", tmp_path / "output", "--password-file", secret, "--cpus", "1",
            env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
        )  # fmt: skip
    assert result.code == 0, result.err
    assert "is not proven to be Ubuntu's" in result.err
    image = Path(result.out.strip())
    assert image == tmp_path / "output/uefi/uefi.qcow2"
    told = json.loads((image.parent / "manifest.json").read_text())["prebake"]
    assert told["medium"]["origin"]["signature"] == "skipped"
    assert told["system"]["firmware"] == "uefi"
    assert [boot["machine"].split(", ")[-1] for boot in told["proved"]["boots"]] == ["UEFI", "BIOS"]
    assert "console=ttyS0,115200n8" in told["system"]["cmdline"]
    assert "autoinstall" not in told["system"]["cmdline"]
    assert told["image"]["virtual_size"] == 8 * GIB
    console = (image.parent / "logs/console.log").read_bytes()
    assert b"Linux version" in console
    assert b"configuring lvm_volgroup" in console
    first = (image.parent / "logs/class.log").read_bytes()
    assert b"swap: /swap.img 268431360" in first  # less its header
    assert b"/srv/it's here/notes.txt student:student 640" in first
    assert b"Ann O'Hara" in first
    for path in image.parent.rglob("*"):
        if path.is_file() and path != image:
            data = path.read_bytes()
            assert not any(word in data for word in (password.encode(), b"$6$", b"TOP-SECRET")), path
    shutil.rmtree(image.parent)
