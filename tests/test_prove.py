"""The proof of an image, and of any image: tables, machines, what has to hold, and images that are bad, made here.

Guests here are boot sectors of a few bytes; a test that boots one takes about two seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import uuid
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from builder import outcome, pipeline
from builder.bases import Base, Told
from builder.cli_verify import as_rows, lines
from builder.command import CommandError, find, run
from builder.errors import InstallError, StalledError, VerificationError
from builder.events import Phase, silent
from builder.image import expect, intake, prove, table
from builder.image.facts import Check, parse
from builder.image.mute import unanswered
from builder.image.shell import Outcome, RootShell
from builder.image.strangers import FIRST, GROUPS, GROWN, SECOND, chosen
from builder.install.patience import patience
from builder.install.site import Site
from builder.publish.manifest import manifest, write_manifest
from builder.spec import GIB, Spec, User
from builder.story import Job, Story
from builder.verify import Verdict
from builder.vm import disk
from builder.vm.qemu import MachineSpec
from builder.vm.serial import SerialLine
from tests.command_line import inside
from tests.test_image import GOOD
from tests.test_vm_machine import PRINT, SLEEP

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Event

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")

# What the disk's first sectors say


def gpt(*kinds: tuple[uuid.UUID, int], sectors: int = 20480, code: bytes = b"\xeb\x63") -> bytes:
    """The start of a disk with a GPT; each partition is a type and its attributes."""
    record = code.ljust(446, b"\0") + struct.pack("<B3xB3xII", 0, 0xEE, 1, sectors - 1).ljust(64, b"\0") + b"\x55\xaa"
    header = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, sectors - 1, 34, 0, b"", 2, 128, 128, 0
    )
    rows = b"".join(kind.bytes_le.ljust(48, b"\1") + struct.pack("<Q", bits) + bytes(72) for kind, bits in kinds)
    return (record + header.ljust(512, b"\0") + rows).ljust(table.HEAD, b"\0")


def mbr(*rows: tuple[int, int, int], code: bytes = b"\xeb\x63") -> bytes:
    """The start of a disk with an MBR; each partition is a type, its first sector and how many it has."""
    entries = b"".join(struct.pack("<B3xB3xII", 0x80, *row) for row in rows)
    return code.ljust(446, b"\0") + entries.ljust(64, b"\0") + b"\x55\xaa" + bytes(512)


LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


@pytest.mark.parametrize(
    ("head", "kind", "firmwares", "end"),
    [
        (gpt((table.BIOS_BOOT, 0), (LINUX, 0)), "gpt", ("bios",), 20480 * 512),
        (gpt((table.BIOS_BOOT, 0), (LINUX, 0), code=b""), "gpt", (), 20480 * 512),
        (gpt((LINUX, 0)), "gpt", (), 20480 * 512),
        (gpt((LINUX, table.LEGACY)), "gpt", ("bios",), 20480 * 512),
        (gpt((table.ESP, 0), (LINUX, 0), code=b""), "gpt", ("uefi",), 20480 * 512),
        (gpt((table.ESP, 0), (table.BIOS_BOOT, 0), (LINUX, 0)), "gpt", ("bios", "uefi"), 20480 * 512),
        (mbr((0x83, 2048, 4096)), "mbr", ("bios",), 6144 * 512),
        (mbr((0x83, 2048, 4096), (0xEF, 6144, 100), code=b""), "mbr", ("uefi",), 6244 * 512),
        (mbr(), "none", ("bios",), 0),
        (b"\x55\xaa".rjust(512, b"\xf4"), "none", ("bios",), 0),
        (bytes(4096), "none", (), 0),
        (b"no image at all\n" * 100, "none", (), 0),
        (b"", "none", (), 0),
    ],
)
def test_what_a_disk_claims(head: bytes, kind: str, firmwares: tuple[str, ...], end: int) -> None:
    assert table.parse(head) == table.Table(kind, firmwares, end)


def test_a_table_that_lies_is_no_trap() -> None:
    good = gpt((table.ESP, 0))
    for place in (512 + 72, 512 + 80, 512 + 84):
        for value in (0, 0xFFFFFFFF):
            table.parse(good[:place] + struct.pack("<I", value) + good[place + 4 :])
    for length in range(0, 1400, 7):
        table.parse(good[:length])


# Which machines


def test_the_strangers_have_every_disk_and_card_each_with_an_address_and_a_slot_of_its_own() -> None:
    strangers = [one for group in chosen("full", ("bios", "uefi")) for one in group]
    assert {one.bus for one in strangers} == {"virtio", "sata", "nvme", "scsi"}
    cards = [one.card for one in strangers if one.card is not None]
    assert {card.model for card in cards} == {"virtio-net-pci", "e1000", "vmxnet3"}
    assert len({card.mac for card in cards}) == len({card.slot for card in cards}) == len(cards)
    assert all(card.slot for card in cards)
    assert {one.firmware for one in strangers} == {"bios", "uefi"}
    assert any(one.card is None for one in strangers)
    assert [one.grown for one in strangers if one.grown] == [GROWN] == [4 * GIB]
    assert len({one.name for one in strangers}) == len(strangers)
    assert [len(group) for group in GROUPS] == [2, 1, 1, 1]
    assert {one.firmware for group in chosen("full", ("uefi",)) for one in group} == {"uefi"}


def test_quick_is_one_boot() -> None:
    assert chosen("quick", ("uefi",)) == ((replace(FIRST, firmware="uefi"),),)
    assert chosen("quick", ("uefi", "bios")) == ((replace(FIRST, firmware="uefi"),), (SECOND,))
    assert FIRST.title == "virtio disk, network card virtio, BIOS"
    titles = [one.title for group in GROUPS for one in group]
    assert titles[1:] == [
        "virtio disk enlarged by 4 GiB, network card virtio, BIOS",
        "SATA disk, network card e1000, BIOS",
        "NVME disk, network card vmxnet3, BIOS",
        "SCSI disk, no network card, BIOS",
    ]


# What has to hold

SPEC = Spec("x")
ALONE = GROUPS[-1][0]
HERE = {**GOOD, "firmware": "bios", "root-size": str(9 * GIB), "network-waits": ""}


def wrong(stranger: Any, facts: dict[str, str], *, strict: bool = True) -> list[str]:
    return [one.name for one in expect.seen(stranger, facts, SPEC, None, strict=strict) if one.wrong]


def test_each_machine_looks_at_what_it_can_show() -> None:
    assert wrong(FIRST, HERE) == []
    alone = {**HERE, "nics": "", "addresses": ""}
    assert wrong(ALONE, alone) == []
    assert wrong(FIRST, alone) == ["network"]
    assert wrong(ALONE, HERE) == ["no network card"]
    assert wrong(replace(FIRST, firmware="uefi"), HERE) == ["started by UEFI"]
    larger = {**HERE, "disk-bytes": str(14 * GIB)}
    assert wrong(GROUPS[0][1], larger) == []
    assert wrong(GROUPS[0][1], HERE) == ["disk size"]


@pytest.mark.parametrize(
    ("waits", "good"),
    [
        ("systemd-networkd-wait-online.service:0.4", True),
        ("systemd-networkd-wait-online.service:120.2", False),
        ("networking.service:0.1 NetworkManager-wait-online.service:60.0", False),
        ("networking.service:soon", False),
        ("", True),
        (None, False),
    ],
)
def test_a_boot_that_waited_for_the_network_is_told(waits: str | None, good: bool) -> None:
    facts = {"nics": "", **({} if waits is None else {"network-waits": waits})}
    (check,) = [one for one in expect.alone(facts) if one.name == "no wait for the network"]
    assert check.good == good


def test_a_root_that_does_not_grow_is_told() -> None:
    def grown(size: int) -> bool:
        return expect.grows(HERE, {"root-size": str(size)}, GROWN).good

    assert grown(13 * GIB)
    assert grown(int(12.8 * GIB))
    assert not grown(9 * GIB)
    assert not grown(11 * GIB)
    assert not expect.grows({}, {"root-size": str(13 * GIB)}, GROWN).good
    assert "0.0 of 4 GiB" in expect.grows(HERE, HERE, GROWN).found


def test_clones_that_are_one_machine_are_told() -> None:
    def same(**other: str) -> list[str]:
        one = {**HERE, "host-key-prints": "aa bb"}
        return [check.name for check in expect.twins(one, {**one, **other}) if check.wrong]

    ids, keys, places = [one.name for one in expect.twins(HERE, HERE)]
    fresh = {"machine-id": "e" * 32, "host-key-prints": "cc dd"}
    assert same(**fresh) == []
    assert same(**{**fresh, "host-key-prints": ""}) == []
    assert same(**{**fresh, "machine-id": HERE["machine-id"]}) == [ids]
    assert same(**{**fresh, "machine-id": ""}) == [ids]
    assert same(**{**fresh, "host-key-prints": "cc bb"}) == [keys]
    assert same(**{**fresh, "addresses": ""}) == [places]


def test_an_image_of_somebody_elses_is_not_wrong_for_being_another() -> None:
    other = {**HERE, "ssh-server": "present", "listening": "0.0.0.0:22", "cloud-init": "done", "root-password": "set"}
    assert {"no SSH server", "nothing on port 22", "root has no password"} <= set(wrong(FIRST, other))
    assert wrong(FIRST, other, strict=False) == []
    notes = [str(one) for one in expect.seen(FIRST, other, SPEC, None, strict=False) if not one.good]
    assert "note   no SSH server: present" in notes
    for key in ("addresses", "machine-id", "user-id"):
        assert wrong(FIRST, {**other, key: ""}, strict=False), key
    assert wrong(FIRST, {**other, "consoles": "getty@tty1.service"}, strict=False) == ["login on the serial port"]


def test_the_facts_script_tells_all_that_is_judged() -> None:
    text = run(["cat", "templates/guest/facts.sh"]).stdout.decode()
    for key in ("network-waits", "root-size", "host-key-prints"):
        assert f"say {key} " in text
    assert parse("machine-id=a\nnetwork-waits=a.service:0.1 b.service:2.0\n")["network-waits"].count(":") == 2


# A whole proof, with machines that are not there


class Faked:
    """Sessions without machines: facts by the name of the log, or an error."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.open: list[str] = []
        self.most = 0
        self.specs: list[MachineSpec] = []

    def __call__(self, spec: MachineSpec, name: str, user: User, site: Site) -> Any:
        del user
        site.report(Phase("boot", "Booting", 0.5))
        faked, told = self, self.told[name]
        self.specs.append(spec)

        class Opened:
            def __enter__(self) -> Any:
                if isinstance(told, Exception):
                    raise told
                faked.open.append(name)
                faked.most = max(faked.most, len(faked.open))
                return SimpleNamespace(
                    facts=lambda: told, seconds=30.0, shell=MagicMock(), limits=site.limits, scripts="/s"
                )

            def __exit__(self, *_: object) -> None:
                faked.open.remove(name)

        return Opened()


ALL = {
    "proof": HERE,
    "proof-enlarged": {
        **HERE,
        "machine-id": "e" * 32,
        "disk-bytes": str(14 * GIB),
        "root-size": str(13 * GIB),
    },
    "proof-sata": HERE,
    "proof-nvme": HERE,
    "proof-scsi": {**HERE, "nics": "", "addresses": ""},
}


def proved(
    folder: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], level: str = "full"
) -> tuple[prove.Proof, Faked, list[Event]]:
    image = folder / "image.qcow2"
    disk.create(image, 10 * GIB)
    faked = Faked(told)
    monkeypatch.setattr(prove, "session", faked)
    heard: list[Event] = []
    site = Site(folder, folder, patience(1.0), heard.append)
    machine = MachineSpec("t", "amd64", "tcg", 2, 4096)
    done = prove.prove(image, machine, SPEC, site, prove.Plan(level))
    assert list(folder.glob("proof*")) == [], "an overlay was left"
    return done, faked, heard


def test_a_full_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, faked, heard = proved(tmp_path, monkeypatch, ALL)
    done.refuse_bad()
    assert [boot.stranger.name for boot in done.boots] == ["virtio", "enlarged", "sata", "nvme", "scsi"]
    assert (faked.most, faked.open) == (2, [])
    assert {spec.memory_mib for spec in faked.specs} == {2048}
    assert [event.done for event in heard if isinstance(event, Phase)] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert {check.name for check in done.between} >= {"the root grows with the disk"}
    told = done.to_json()
    assert told["level"] == "full"
    assert [boot["machine"] for boot in told["boots"]][2] == "SATA disk, network card e1000, BIOS"
    assert all("boots to a login" in boot["checks"] for boot in told["boots"])


def test_a_quick_proof_is_one_boot_with_all_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, faked, heard = proved(tmp_path, monkeypatch, ALL, "quick")
    done.refuse_bad()
    assert [spec.memory_mib for spec in faked.specs] == [4096]
    assert [event.done for event in heard if isinstance(event, Phase)] == [0.5]
    assert done.between == []


def test_the_manifest_says_what_was_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, _, _ = proved(tmp_path, monkeypatch, ALL, "quick")
    monkeypatch.setattr(outcome, "qemu_version", lambda _arch: "7")
    iso = tmp_path / "x.iso"
    iso.touch()
    medium = MagicMock(path=iso, volume_id="V", disk_info="i", size=0, arch="amd64")
    job = Job(SPEC, iso, tmp_path)
    info = disk.Info("qcow2", 1, 1)
    base = Base(iso, Told(1, 7.0, {}, 3.0))
    told = outcome.describe(job, medium, "tcg", info, base=base, proof=done, story=Story(silent))
    assert told["base"] == {"made": 7, "reused": True}
    assert told["login_seconds"] == {"first": 3.0, "again": 30.0}
    assert told["system"]["firmware"] == "bios"
    assert told["proved"] == done.to_json()
    assert json.loads(json.dumps(told))["proved"]["boots"][0]["machine"] == FIRST.title


def test_a_clone_that_is_the_same_machine_and_a_root_that_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = {**ALL["proof-enlarged"], "machine-id": HERE["machine-id"], "root-size": HERE["root-size"]}
    done, _, _ = proved(tmp_path, monkeypatch, {**ALL, "proof-enlarged": twin})
    with pytest.raises(VerificationError) as caught:
        done.refuse_bad()
    assert "side by side: clones differ in their machine-id: " in caught.value.message
    assert "side by side: the root grows with the disk: 0.0 of 4 GiB more" in caught.value.message


def test_a_later_boot_that_fails_spoils_the_proof_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = InstallError("The system does not start: the root file system was not found.", console=["(initramfs)"])
    done, _, _ = proved(tmp_path, monkeypatch, {**ALL, "proof-nvme": trouble, "proof-enlarged": trouble})
    assert [boot.seen is None for boot in done.boots] == [False, True, False, True, False]
    assert [check.name for check in done.checks if check.wrong] == ["boots to a login"] * 2
    with pytest.raises(VerificationError, match="enlarged by 4 GiB") as caught:
        done.refuse_bad()
    assert caught.value.console == ("(initramfs)",)
    assert done.first.facts == HERE


def test_a_first_boot_that_fails_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, faked, _ = proved(tmp_path, monkeypatch, {**ALL, "proof": StalledError("Nothing came.")})
    assert len(done.boots) == len(faked.specs) == 1
    with pytest.raises(VerificationError, match="Nothing came"):
        _ = done.first


def test_a_build_with_a_bad_proof_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (
        *("check_asked", "check_layout", "check_patience", "answers_for", "tell_added", "boot_medium", "plain_machine"),
        *("qemu_version", "disk", "install", "installer", "inspect", "stages", "check_free", "bases", "finish_logs"),
        *("features",),
    ):
        monkeypatch.setattr(pipeline, name, MagicMock())
    monkeypatch.setattr(pipeline, "suited", lambda spec, _arch: spec)
    monkeypatch.setattr("builder.pipeline.disk.create", lambda path, *_: path.touch())
    monkeypatch.setattr("builder.pipeline.bases.reuse", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "runs", MagicMock(NAME="pace.json"))
    monkeypatch.setattr(pipeline, "accel", SimpleNamespace(choose=lambda *_: SimpleNamespace(name="tcg", speed=1.0)))
    kept = MagicMock()
    monkeypatch.setattr(pipeline, "keep_evidence", kept)
    bad = prove.Proof("quick", [prove.Boot(FIRST, None, (Check("boots to a login", good=False, found="no"),))])
    monkeypatch.setattr(prove, "prove", lambda *_: bad)
    job = Job(Spec("mine", network="offline"), tmp_path / "x.iso", tmp_path / "output")
    before = tmp_path / "output/mine"
    with pytest.raises(VerificationError, match="boots to a login: no"):
        pipeline.build_image(job, silent)
    assert not before.exists()
    assert kept.call_count == 1


def test_a_build_is_proved_under_what_it_was_installed_under_and_in_full_under_all_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(table=table.Table("gpt", ("bios", "uefi")))
    monkeypatch.setattr(intake, "look", lambda _image: found)
    image = tmp_path / "image"
    bios, uefi = (Spec("t", firmware=one, both=False) for one in ("bios", "uefi"))
    assert pipeline.firmwares_of(image, bios, "amd64", "quick") == ("bios",)
    assert pipeline.firmwares_of(image, replace(uefi, both=True), "amd64", "quick") == ("uefi", "bios")
    assert pipeline.firmwares_of(image, bios, "amd64", "full") == ("bios", "uefi")
    assert pipeline.firmwares_of(image, uefi, "amd64", "full") == ("uefi", "bios")
    assert pipeline.firmwares_of(image, bios, "arm64", "full") == ("uefi",)


# What a machine without a login on its serial port does instead


@pytest.mark.parametrize(
    ("heard", "shown", "words"),
    [
        ([], ["Ubuntu 24.04 LTS vm tty1", "", "vm login:"], "boots, but has no serial console.*login prompt"),
        ([], ["SeaBIOS", "No bootable device."], "found nothing to boot"),
        ([], ["Please unlock disk vda3_crypt:"], "encrypted"),
        ([], ["FreeDOS kernel", "C:\\>"], "no Linux login is among them"),
        ([], [], "shows a picture: proof.png"),
        (["C:\\>"], ["vm login:"], "says something on its serial port, but offers no login"),
    ],
)
def test_what_the_screen_says_is_told(tmp_path: Path, heard: list[str], shown: list[str], words: str) -> None:
    found = unanswered(StalledError("It did not come within 9 s."), heard, shown, tmp_path / "proof.png")
    with pytest.raises(StalledError, match=f"(?s){words}"):
        raise found
    assert "within 9 s" in found.message
    assert found.hint
    assert found.evidence == tmp_path / "proof.png"
    assert list(found.console) == (heard or shown)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"Please unlock disk vda3_crypt: ", "encrypted"),
        (b"\r\nEnter passphrase for hd0,gpt2 (4c6a): ", "encrypted"),
        (b"Please enter passphrase for disk VBOX_HARDDISK (root): ", "encrypted"),
        (b'BdsDxe: starting Boot0003 "EFI Internal Shell" from Fv(7CB8BDC9)\r\n', "UEFI firmware found nothing"),
        (b"BdsDxe: No bootable option or device was found.\r\n", "UEFI firmware found nothing"),
    ],
)
def test_a_boot_that_asks_for_a_passphrase_is_told_at_once(said: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        shell = RootShell(SerialLine(ours, io.BytesIO(), lambda _: None), user="ann", password="x")
        with pytest.raises(InstallError, match=words):
            shell.log_in(first_seconds=5, boot_seconds=5, seconds=5)


def test_a_user_who_may_not_become_root_is_told() -> None:
    """The other side is a thread that answers as a system would."""
    ours, theirs = socket.socketpair()

    def system() -> None:
        with theirs, theirs.makefile("rb") as typed:
            theirs.sendall(b"\r\nvm login: ")
            typed.readline()
            theirs.sendall(b"Password: ")
            typed.readline()
            theirs.sendall(b"ann@vm:~$ ")
            line = typed.readline().decode()
            mark = line.partition("'ask-''")[2].partition("'")[0]
            theirs.sendall(f"ask-{mark}\r\n".encode())
            typed.readline()
            theirs.sendall(f"no-{mark}\r\n".encode())
            typed.read()

    answering = threading.Thread(target=system)
    answering.start()
    with ours:
        shell = RootShell(SerialLine(ours, io.BytesIO(), lambda _: None), user="ann", password="x")
        with pytest.raises(InstallError, match="ann may not become root with sudo") as caught:
            shell.log_in(first_seconds=5, boot_seconds=5, seconds=5)
    answering.join()
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="is root")
def test_root_itself_needs_no_sudo() -> None:
    ours, theirs = socket.socketpair()
    with (
        theirs,
        ours,
        subprocess.Popen(
            [find("sh")],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=theirs.fileno(),
            env={"PATH": "/nowhere:/usr/bin:/bin"},
        ) as guest,
    ):
        shell = RootShell(SerialLine(ours, io.BytesIO(), lambda _: None), user="root", password="x")
        shell._become_root(10)
        assert shell.run("id -u", seconds=10) == Outcome(0, "0\n")
        guest.kill()


# Bad images, made here, through the command


def sector(text: bytes, *, screen: bool) -> bytes:
    """A disk that writes ``text`` to the screen or to the serial line, and then sleeps."""
    teletype = bytes.fromhex("31c0 8ed8 8ed0 bc007c be807c 31db ac 84c0 7406 b40e cd10 ebf5")
    program = (teletype if screen else PRINT) + SLEEP
    return (program.ljust(0x80, b"\0") + text + b"\0").ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512)


def refused(image: Path, *more: str) -> tuple[str, dict[str, Any]]:
    """Verify a bad image that must stay as it is; return what people and what programs were told."""
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in image.parent.iterdir()}
    evidence = image.parent.parent / "evidence"
    result = inside("verify", image, "--json", "--evidence", evidence, "--accel", "tcg", "--timeout", "4", *more)
    assert result.code == 11, result.err
    assert "Traceback" not in result.err
    assert {path.name: hashlib.sha256(path.read_bytes()).digest() for path in image.parent.iterdir()} == before
    told = json.loads(result.out)
    assert not told["good"]
    return " ".join(result.err.split()), told


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def whole(place: Path) -> Path:
    """A good image of 8 MiB of which 2 are full, as far as anybody can tell without booting it."""
    image = place / "image.qcow2"
    disk.create(image, 8 << 20)
    raw = place.parent / "raw"
    raw.write_bytes(mbr((0x83, 2048, 8192), code=PRINT) + bytes(range(256)) * 8192)
    run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(image)])
    run(["qemu-img", "resize", "-q", str(image), "8M"])
    return image


LUKS = ("--object", "secret,id=key,data=open-sesame")


def encrypted(image: Path, form: str) -> None:
    """Make an encrypted image; qemu-img now and then cannot measure how hard to make the key on a busy host."""
    prefix = "encrypt." if form == "qcow2" else ""
    options = f"{prefix}key-secret=key,{prefix}iter-time=500" + (",encrypt.format=luks" if prefix else "")
    for _ in range(9):
        with contextlib.suppress(CommandError):
            run(["qemu-img", "create", "-q", *LUKS, "-f", form, "-o", options, str(image), "1M"])
            return
    pytest.skip("qemu-img makes no encrypted image here")


@pytest.mark.parametrize("form", ["qcow2", "luks"])
def test_an_encrypted_image(place: Path, form: str) -> None:
    image = place / "image"
    encrypted(image, form)
    text, told = refused(image)
    assert "image is encrypted (LUKS)" in text
    assert told["checks"][0]["check"] == "a whole image"
    assert told["evidence"] is None


@pytest.mark.parametrize("keep", [20, 100, 200_000, 1 << 20])
def test_a_truncated_qcow2(whole: Path, keep: int) -> None:
    with whole.open("rb+") as file:
        file.truncate(keep)
    text, _ = refused(whole)
    assert "truncated" in text or "no disk image" in text


def test_a_truncated_raw_image(place: Path) -> None:
    image = place / "image.raw"
    image.write_bytes(gpt((table.BIOS_BOOT, 0), (LINUX, 0), sectors=8192))
    text, _ = refused(image)
    assert "image.raw is truncated: its partitions need 4194304 bytes, the disk has 1048576." in text


def test_an_image_whose_base_is_gone(place: Path, whole: Path) -> None:
    image = place / "over.qcow2"
    disk.create(image, None, backing=whole, backing_format="qcow2")
    whole.unlink()
    text, _ = refused(image)
    assert "over.qcow2 is not whole: the image behind it cannot be opened" in text


def test_an_image_with_corrupt_refcounts(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    (at,) = struct.unpack_from(">Q", data, 48)
    (block,) = struct.unpack_from(">Q", data, at)
    data[block : block + 32] = bytes(32)
    whole.write_bytes(data)
    text, _ = refused(whole)
    assert "image.qcow2 is damaged or truncated: `qemu-img check` counts" in text


def test_an_image_in_use(whole: Path) -> None:
    with subprocess.Popen([find("qemu-io"), str(whole)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(b"read 0 512\n")
        writer.stdin.flush()
        writer.stdout.readline()
        text, _ = refused(whole)
        writer.stdin.close()
    assert "image.qcow2 is in use: another program writes to it." in text


def test_an_image_with_nothing_to_start(place: Path) -> None:
    image = place / "data.raw"
    image.write_bytes(gpt((LINUX, 0), sectors=2048))
    text, _ = refused(image)
    assert "data.raw has nothing to start: neither boot code for a BIOS nor an EFI partition." in text


@needs_qemu
def test_an_image_without_a_serial_console(place: Path) -> None:
    image = place / "image.raw"
    image.write_bytes(sector(b"Ubuntu 24.04 LTS vm tty1\r\n\r\nvm login: ", screen=True))
    text, told = refused(image, "--full")
    assert "The image boots, but has no serial console: its screen shows a login prompt" in text
    assert "| vm login:" in text
    assert "console=ttyS0,115200n8" in text
    (picture,) = (place.parent / "evidence").glob("proof.p[np][gm]")
    assert str(picture) in text
    assert picture.stat().st_size > 500
    assert told["boots"] == {"virtio": "virtio disk, network card virtio, BIOS"}, "the others were booted too"
    (row,) = [row for row in told["checks"] if row["boot"]]
    assert (row["boot"], row["check"], row["good"], row["required"]) == ("virtio", "boots to a login", False, True)


@needs_qemu
@pytest.mark.parametrize("screen", [True, False], ids=["on the screen", "on the serial line"])
def test_an_image_that_is_not_linux(place: Path, screen: bool) -> None:
    image = place / "image.raw"
    image.write_bytes(sector(b"FreeDOS kernel 2043\r\nC:\\>", screen=screen))
    text, _ = refused(image)
    assert ("no Linux login is among them" if screen else "offers no login there") in text
    assert "Is it a Linux system" in text
    assert "| FreeDOS kernel 2043" in text


@needs_qemu
def test_an_image_that_asks_for_a_passphrase(place: Path) -> None:
    image = place / "image.raw"
    image.write_bytes(sector(b"Please unlock disk vda3_crypt: ", screen=False))
    text, _ = refused(image)
    assert "its disk is encrypted, and the boot asks for the passphrase" in text


# What an image that was made here is known by


def test_the_manifest_beside_an_image_says_whose_it_is(place: Path, whole: Path) -> None:
    assert intake.manifest_beside(whole) is None
    details = {"spec": {"user": {"name": "ann"}, "ssh_server": True}}
    write_manifest(place / "manifest.json", manifest("image", [whole], built=7, arch="amd64", details=details))
    told = intake.manifest_beside(whole)
    assert told is not None
    assert told["sha256"] == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert told["prebake"] == details
    other = place / "other.qcow2"
    shutil.copyfile(whole, other)
    assert intake.manifest_beside(other) is None
    for text in ("", "[]", '{"builds": 3}', '{"builds": [{"files": [{"name": "image.qcow2"}]}]}'):
        (place / "manifest.json").write_text(text)
        assert intake.manifest_beside(whole) is None


def test_a_verdict_is_told_by_boot() -> None:
    checks = (
        Check("a whole image", good=True, found="qcow2"),
        Check("network", good=True, found="10.0.2.15/24", boot="virtio"),
        Check("no SSH server", good=False, found="present", required=False, boot="virtio"),
        Check("clones differ", good=True, found="a and b", boot="side by side"),
    )
    verdict = Verdict(checks, machines={"virtio": FIRST.title})
    assert verdict.good
    assert list(lines(verdict)) == [
        "ok     a whole image: qcow2",
        "virtio: virtio disk, network card virtio, BIOS",
        "  ok     network: 10.0.2.15/24",
        "  note   no SSH server: present",
        "side by side",
        "  ok     clones differ: a and b",
    ]
    bad = replace(verdict, checks=(*checks, Check("user", good=False, found="", boot="virtio")))
    assert not bad.good
    assert as_rows(bad)["checks"][-1] == {
        "boot": "virtio",
        "check": "user",
        "good": False,
        "required": True,
        "found": "",
    }
