"""Facts and checks, the console line, the workspace, manifests and evidence: what needs no guest."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import sys
import tarfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builder.command import run
from builder.errors import HostError, InstallError, UsageError, VerificationError
from builder.events import Note, silent
from builder.image.facts import GONE, LISTS, Check, checks, parse, sealed_checks
from builder.image.prove import refuse_bad
from builder.image.seal import beside, freed, notes, trouble
from builder.image.session import payload
from builder.image.shell import LOGIN, PROMPT
from builder.image.stages import compact
from builder.install.evidence import masked_typed, unpack_guest_logs
from builder.install.patience import QUIET, patience
from builder.install.phases import BY_NAME
from builder.publish.manifest import manifest, sha256sums
from builder.resources import templates
from builder.spec import GIB, Content, File, Spec
from builder.vm import disk
from builder.vm.serial import LineClosedError, LineSilentError, SerialLine
from builder.workspace import check_free, check_place, deliver, put_aside, workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = {
    "machine-id": "0c11603a4f664207bab663146308b1bb",
    "user-id": "1000",
    "user-groups": "ubuntu adm sudo",
    "root-password": "locked",
    "cloud-init": "disabled",
    "nics": "enp0s2",
    "addresses": "10.0.2.15/24",
    "disk-bytes": str(10 * GIB),
    "root-bytes": str(10 * GIB - (1 << 20)),
    "ssh-server": "absent",
    "listening": "127.0.0.53:53 0.0.0.0:5355",
    "consoles": "getty@tty1.service serial-getty@ttyS0.service",
    "screen": "ubuntu login:",
    "installer-logs": "absent",
    "hashes-in-logs": "",
    "netplan": "01-netcfg.yaml",
    "host-keys": "",
    "cmdline": "BOOT_IMAGE=/boot/vmlinuz root=UUID=1 ro console=tty0 console=ttyS0,115200n8",
    "state": "running",
    "failed-units": "",
    "swap": "0",
    "swap-wanted": "0",
    "swap-files": "",
    "root-size": str(10 * GIB - (300 << 20)),
    "grow-root": "enabled there",
    "grub-timeouts": "0",
    "kernels": "6.8.0-31-generic",
    "firmware-mib": "12",
    "log-bytes": "1048576",
    "apt-proxy": "",
    "cloud-policy": "off",
    "cloud-lists": "",
    **dict.fromkeys(GONE.values(), ""),
}
SPEC = Spec(name="x")


def wrong(facts: dict[str, str], machine_id: str | None = "f" * 32, spec: Spec = SPEC) -> list[str]:
    done = [*checks(facts, spec), *sealed_checks(facts, machine_id, spec)]
    return [check.name for check in done if not check.good]


def test_good_facts_pass() -> None:
    assert wrong(GOOD) == []


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("user-id", "", "user ubuntu"),
        ("user-groups", "ubuntu", "the user may use sudo"),
        ("root-password", "set", "root has no password"),
        ("cloud-init", "error", "cloud-init"),
        ("addresses", "", "network"),
        ("disk-bytes", str(9 * GIB), "disk size"),
        ("root-bytes", str(4 * GIB), "entire disk used"),
        ("ssh-server", "present", "no SSH server"),
        ("listening", "0.0.0.0:22", "nothing on port 22"),
        ("consoles", "getty@tty1.service", "login on the serial port"),
        ("screen", "", "login on the screen"),
        ("machine-id", "f" * 32, "a machine-id of its own"),
        ("machine-id", "", "a machine-id of its own"),
        ("installer-logs", "present", "no installer logs"),
        ("hashes-in-logs", "/var/log/x", "no password hash in logs"),
        ("netplan", "01-netcfg.yaml 50-cloud-init.yaml", "one network configuration"),
        ("host-keys", "/etc/ssh/ssh_host_rsa_key", "no SSH host keys"),
        ("cloud-init", "done", "cloud-init stays off"),
        ("cloud-policy", "nocloud", "cloud-init's policy"),
        ("cloud-policy", "off nocloud", "cloud-init's policy"),
        ("cloud-policy", "", "cloud-init's policy"),
        ("cmdline", "ro console=tty0", "the kernel speaks on both consoles"),
        ("cmdline", "ro console=ttyS0", "the kernel speaks on both consoles"),
        ("cmdline", "ro quiet", "the kernel speaks on both consoles"),
        ("state", "starting", "the system runs and no unit has failed"),
        ("state", "", "the system runs and no unit has failed"),
        ("failed-units", "nginx.service", "the system runs and no unit has failed"),
        ("swap", "1024", "swap"),
        ("swap-files", "/swap.img", "swap"),
        ("root-size", str(4 * GIB), "the root file system fills its volume"),
        ("grow-root", "disabled there", "the root grows with its disk"),
        ("grow-root", "enabled", "the root grows with its disk"),
        ("grub-timeouts", "0 30", "GRUB does not wait"),
        ("grub-timeouts", "-1", "GRUB does not wait"),
        ("grub-timeouts", "", "GRUB does not wait"),
        ("kernels", "6.8.0-31-generic 6.8.0-40-generic 6.8.0-41-generic", "no old kernels"),
        ("kernels", "", "no old kernels"),
        ("firmware-mib", "800", "little firmware"),
        ("log-bytes", str(300 << 20), "small logs"),
        ("log-bytes", "", "small logs"),
        ("apt-proxy", "/etc/apt/apt.conf.d/90curtin-aptproxy", "no proxy that nobody asked for"),
        ("snaps", "not set up", "snapd has set itself up"),
        *((key, "/what/is/left", name) for name, key in GONE.items()),
    ],
)
def test_each_check_can_fail(key: str, value: str, name: str) -> None:
    assert name in wrong({**GOOD, key: value})


@pytest.mark.parametrize("key", ["state", "grow-root", "kernels", "log-bytes", *GONE.values()])
def test_what_is_not_told_is_not_taken_for_good(key: str) -> None:
    assert wrong({name: value for name, value in GOOD.items() if name != key})


def test_a_class_has_its_way() -> None:
    asked = replace(
        SPEC,
        swap=512 << 20,
        cloud_init="nocloud",
        may_fail=("nginx.service",),
        proxy="http://proxy.example:3128",
        firmware_budget=None,
        content=Content(files=(File("/home/ubuntu/.bash_history"),)),
    )
    facts = {
        **GOOD,
        "swap": str((512 << 20) - 4096),
        "swap-wanted": "1",
        "swap-files": "/swap.img",
        "cloud-policy": "nocloud",
        "cloud-lists": LISTS,
        "state": "degraded",
        "failed-units": "fwupd-refresh.service nginx.service",
        "apt-proxy": "/etc/apt/apt.conf.d/90curtin-aptproxy",
        "histories": "/home/ubuntu/.bash_history",
        "firmware-mib": "800",
        "snaps": "seeded",
    }
    assert wrong(facts, spec=asked) == []
    assert wrong({**facts, "cloud-lists": ""}, spec=asked) == ["cloud-init's policy"]
    assert wrong({**facts, "swap": "0"}, spec=asked) == ["swap"]
    assert wrong({**facts, "snap-leftovers": "lxd_1"}, spec=asked) == ["snapd has set itself up"]
    server = {**facts, "ssh-server": "present", "listening": "0.0.0.0:22", "host-keys": "/etc/ssh/ssh_host_rsa_key"}
    assert wrong(server, spec=replace(asked, ssh_server=True)) == ["SSH host keys are made at boot"]
    made = {**server, "ssh-keys-made": "/etc/systemd/system/ssh.service.d/host-keys.conf"}
    assert wrong(made, spec=replace(asked, ssh_server=True)) == []


def test_an_image_of_which_nothing_is_known_has_to_fit_together() -> None:
    unknown = replace(SPEC, swap=None, cloud_init="", firmware_budget=None)
    assert wrong(GOOD, spec=unknown) == []
    seeded = {**GOOD, "cloud-policy": "nocloud", "cloud-lists": LISTS, "swap": "4096", "swap-wanted": "1"}
    assert wrong(seeded, spec=unknown) == []
    assert wrong({**seeded, "cloud-policy": "off nocloud"}, spec=unknown) == ["cloud-init's policy"]
    assert wrong({**seeded, "swap": "0"}, spec=unknown) == ["swap"]


def test_what_is_deleted_takes_no_room() -> None:
    info = disk.Info("qcow2", 10 * GIB, 600 << 20, None, "zstd")
    assert freed({"root-used": str(GIB)}, info).good
    assert not freed({"root-used": str(GIB)}, replace(info, allocated=2 * GIB)).good
    assert freed({"root-used": str(GIB)}, replace(info, format="raw", allocated=10 * GIB)).good


def test_what_is_tidied_up_is_told() -> None:
    said = "Reading package lists...\r\nnote: firmware: 900 MiB freed\r\nwarning: snapd is late\r\nnote: \nE: no\n"
    assert list(notes(said)) == [Note("Firmware: 900 MiB freed."), Note("Snapd is late.", "warning")]
    heard: list[str] = []
    trouble({"state": "starting", "jobs": "a.service", "failed-units": "b.service"}, lambda one: heard.append(str(one)))
    assert len(heard) == 2
    trouble(GOOD, lambda one: heard.append(str(one)))
    assert len(heard) == 2
    assert list(beside(SPEC)) == []
    placed = replace(SPEC, content=Content(files=(File("/a b"), File("/c"))))
    assert list(beside(placed)) == [("placed.txt", b"/a b\n/c\n")]


def test_facts_are_read_and_their_absence_is_told() -> None:
    assert parse("noise\nmachine-id=abc\nscreen=a b=c\n")["screen"] == "a b=c"
    with pytest.raises(InstallError, match="does not tell"):
        parse("sh: not found\n")
    with pytest.raises(VerificationError, match="network: no address"):
        refuse_bad([Check("user", good=True, found="x"), Check("network", good=False, found="no address")])


def test_the_payload_is_whole_sectors_and_holds_the_scripts_and_more(tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_text("notes")
    images = []
    for name in ("one.tar", "two.tar"):
        payload(tmp_path / name, [("class/file-0", source), ("class/command-0", b"true\n")])
        images.append((tmp_path / name).read_bytes())
    assert len(images[0]) % 512 == 0
    with tarfile.open(tmp_path / "one.tar") as archive:
        scripts = sorted(path.name for path in (templates() / "guest").iterdir())
        assert {"facts.sh", "grow-root.service", "grow-root.sh", "seal.sh", "tidy.sh"} < set(scripts)
        assert archive.getnames() == [*scripts, "class/file-0", "class/command-0"]
        found = archive.extractfile("class/file-0")
        assert found is not None
        assert found.read() == b"notes"
    assert images[0] == images[1]


@pytest.fixture
def line() -> Iterator[tuple[SerialLine, socket.socket, io.BytesIO, list[bytes]]]:
    ours, theirs = socket.socketpair()
    record = io.BytesIO()
    heard: list[bytes] = []
    with ours, theirs:
        yield SerialLine(ours, record, heard.append), theirs, record, heard


def test_lines_come_one_by_one_and_prompts_too(
    line: tuple[SerialLine, socket.socket, io.BytesIO, list[bytes]],
) -> None:
    serial, guest, record, heard = line
    guest.sendall(b"one\r\ntwo\r\n\xff\x00three login: ")
    assert serial.read_line(1) == b"one\r\n"
    assert serial.read_line(1) == b"two\r\n"
    assert serial.read_line(0.01) == b"\xff\x00three login: "
    assert serial.read_line(0.01) == b""
    assert serial.tail()[-1] == "\ufffdthree login:"
    guest.sendall(b"last")
    guest.close()
    assert serial.read_line(1) == b"last"
    with pytest.raises(LineClosedError):
        serial.read_line(1)
    assert record.getvalue() == b"".join(heard) == b"one\r\ntwo\r\n\xff\x00three login: last"


def test_words_are_waited_for(line: tuple[SerialLine, socket.socket, io.BytesIO, list[bytes]]) -> None:
    serial, guest, _, _ = line
    timer = threading.Timer(0.05, guest.sendall, [b"noise\r\nend-1 7\r\n"])
    timer.start()
    place, match, before = serial.expect([b"never", rb"end-1 (\d+)"], 5)
    timer.join()
    assert (place, match[1], before) == (1, b"7", "noise\n")
    with pytest.raises(LineSilentError):
        serial.expect([b"never"], 0.05)
    serial.send("typed")
    assert guest.recv(100) == b"typed\n"
    guest.close()
    with pytest.raises(LineClosedError):
        serial.expect([b"never"], 1)


def test_patience_follows_the_speed_of_the_host() -> None:
    emulated, hardware, slow = patience(1.0), patience(12.0), patience(0.5)
    assert emulated.silence("curthooks") > 2 * hardware.silence("curthooks") > 2 * 418
    assert slow.install == 2 * emulated.install
    assert patience(None) == emulated
    assert patience(1.0, install=5).install == 5
    assert patience(1.0, silence=2).silence("curthooks") == 2
    assert slow.still > emulated.still > hardware.still


def test_every_phase_has_its_own_patience_and_none_is_shorter_than_what_was_seen() -> None:
    assert set(QUIET) == set(BY_NAME)
    seen = {"kernel": 187, "live-system": 153, "cloud-init": 98, "partitioning": 109, "extract": 131, "curthooks": 418}
    for phase, seconds in seen.items():
        assert patience(1.0).silence(phase) > 3 * seconds
    assert min(patience(1e9).silence(phase) for phase in ("live-system", "shutdown")) > 2 * 90, "a job of systemd's"
    assert min(patience(1e9).idle(phase) for phase in ("live-system", "shutdown", "curthooks")) > 90
    assert patience(0.25).silence("kernel") > patience(1.0).silence("kernel") > patience(1e9).silence("kernel")
    assert patience(1e9).silence("kernel") >= 60
    assert patience(1.0).silence("no such phase") > 600
    assert patience(1.0).silence(None) == patience(1.0).silence("boot-loader")


def make(folder: Path, mark: str, *, ours: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / mark).touch()
    if ours:
        (folder / "manifest.json").write_text('{"prebake": {}}')
    return folder


def test_what_exists_is_not_overwritten_and_what_is_replaced_is_kept_beside(tmp_path: Path) -> None:
    target = make(tmp_path / "out/vm", "first")
    with pytest.raises(UsageError, match="exists already"):
        check_place(target, force=False)
    check_place(target, force=True)
    for mark in ("second", "third"):
        with workspace(tmp_path / "out", "vm") as work:
            deliver(make(work / "result", mark), target, force=True)
    assert (target / "third").exists()
    assert (tmp_path / "out/vm.old/second").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["vm", "vm.old"]
    with workspace(tmp_path / "out", "vm") as work, pytest.raises(UsageError):
        deliver(make(work / "result", "late"), target, force=False)


def test_a_folder_of_somebody_elses_is_never_replaced(tmp_path: Path) -> None:
    thesis = make(tmp_path / "src", "thesis.txt", ours=False)
    with pytest.raises(UsageError, match="no image folder"):
        check_place(thesis, force=True)
    evidence = make(tmp_path / "made", "error.txt", ours=False)
    with pytest.raises(OSError):
        put_aside(evidence, thesis)
    assert (thesis / "thesis.txt").exists()
    older = make(tmp_path / "vm.failed", "error.txt", ours=False)
    put_aside(evidence, older)
    assert not evidence.exists()


def test_an_interruption_half_way_puts_the_old_image_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, made = make(tmp_path / "vm", "good"), make(tmp_path / "made", "new")
    rename = type(target).rename

    def interrupted(path: Path, to: Path) -> Path:
        if path == made:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(type(target), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver(made, target, force=True)
    assert (target / "good").exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with workspace(tmp_path / "a/b", "vm") as work:
            (work / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_known_before(tmp_path: Path) -> None:
    check_free(tmp_path, 1, "The build")
    with pytest.raises(HostError, match="The build needs about"):
        check_free(tmp_path, 1 << 60, "The build")


def test_manifest_and_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    path.write_bytes(b"abc")
    value = manifest("a", [path], built=7, arch="amd64", details={"k": 1})
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (build,) = value["builds"]
    assert build["files"] == [{"name": "a.qcow2", "size": 3, "sha256": digest}]
    assert build["packer_run_uuid"] == value["last_run_uuid"]
    assert (build["build_time"], build["artifact_id"], value["prebake"]) == (7, "a-amd64", {"k": 1})
    assert sha256sums([path]) == f"{digest} *a.qcow2\n"
    json.dumps(value)


def test_a_compacted_image_is_small_clean_and_stands_alone(tmp_path: Path) -> None:
    source, image = tmp_path / "source.qcow2", tmp_path / "image.qcow2"
    disk.create(source, GIB)
    info = compact(source, image, silent)
    assert (info.size, info.backing, info.compression) == (GIB, None, "zstd")


ZSTD_NEEDED = 1 << 3
"""The bit of a qcow2's header for "incompatible": QEMU before 5.1 refuses an image in which it is set."""


@pytest.mark.parametrize(("compression", "bit"), [("zstd", ZSTD_NEEDED), ("zlib", 0)])
def test_an_image_is_packed_as_asked_and_holds_the_same(
    tmp_path: Path, compression: disk.Compression, bit: int
) -> None:
    source, image = tmp_path / "source.qcow2", tmp_path / "image.qcow2"
    disk.create(source, 64 << 20)
    (tmp_path / "words").write_bytes(bytes(range(256)) * (1 << 12))
    writes = ["-c", f"write -q -s {tmp_path / 'words'} 3M 1M", "-c", f"write -q -s {tmp_path / 'words'} 40M 1M"]
    run(["qemu-io", "-f", "qcow2", *writes, str(source)])
    info = compact(source, image, silent, compression=compression)
    assert (info.format, info.size, info.compression) == ("qcow2", 64 << 20, compression)
    assert int.from_bytes(image.read_bytes()[72:80], "big") & ZSTD_NEEDED == bit
    assert f"compression type: {compression}" in run(["qemu-img", "info", str(image)]).stdout.decode()
    assert disk.check(image).clean
    run(["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", str(source), str(image)])
    assert image.stat().st_size < (1 << 20)


def test_guest_logs_are_unpacked_with_secrets_masked_and_nothing_outside(tmp_path: Path) -> None:
    archive, out = tmp_path / "logs.tgz", tmp_path / "out"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in (
            ("var/log/installer/debug.log", b"hash $6$salt$hash end"),
            ("../escape", b"x"),
            ("/etc/absolute", b"x"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("var/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert unpack_guest_logs(archive, out, ["$6$salt$hash"]) == ["var/log/installer/debug.log"]
    assert (out / "var/log/installer/debug.log").read_bytes() == b"hash ******** end"
    assert not archive.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_an_echoed_password_is_masked_and_an_ordinary_word_is_not() -> None:
    console = b"ubuntu login: ubuntu\r\nPassword: ubuntu\r\nWelcome to ubuntu now\r\nubuntu\r\nubuntu@vm:~$ ubuntu\r\n"
    shown = masked_typed(console, "ubuntu").split(b"\r\n")
    assert shown[1:] == [b"Password: ********", b"Welcome to ubuntu now", b"********", b"ubuntu@vm:~$ ********", b""]
    assert masked_typed(console, "") == console
    assert masked_typed(b"a: $6$x", "$6$x") == b"a: ********"


@pytest.mark.parametrize("keep", [0, 1, 60, 200])
def test_a_torn_archive_gives_what_can_be_read(tmp_path: Path, keep: int) -> None:
    archive = tmp_path / "logs.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for number in range(50):
            member = tarfile.TarInfo(f"f{number}")
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes(range(250)) * 4))
    archive.write_bytes(archive.read_bytes()[:keep])
    names = unpack_guest_logs(archive, tmp_path / "out", [])
    assert len(names) < 50
    assert (tmp_path / "out/INCOMPLETE.txt").exists() == (keep > 0)


@pytest.mark.parametrize(
    ("said", "asks"),
    [
        (b"\r\nubuntu login: ", True),
        (b"\r\nlab-vm.local login: \r\n[   30.1] a late kernel message\r\n", True),
        (b"\r\nLast login: Mon Nov 23 10:34:25 UTC 2026 on ttyS0\r\nubuntu@ubuntu:~$ ", False),
    ],
)
def test_a_login_prompt_is_told_from_a_greeting(said: bytes, asks: bool) -> None:
    assert bool(re.search(LOGIN, said)) == asks
    assert bool(re.search(PROMPT, said)) != asks


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small tmpfs")
def test_a_disk_that_fills_outside_a_machine_is_told_as_such(tmp_path: Path) -> None:
    source, small = tmp_path / "source.qcow2", tmp_path / "small"
    small.mkdir()
    disk.create(source, 8 << 20)
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 8M", str(source)])
    run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)])
    try:
        with pytest.raises(HostError, match="disk is full"):
            disk.convert(source, small / "image.qcow2")
    finally:
        run(["umount", str(small)])
