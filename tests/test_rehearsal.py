"""The rehearsal medium's parts that need no boot: menus, archives, the guest's decisions."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from builder.command import run
from builder.media.grub import boots_casper
from builder.rehearsal import cpio, menu, recipe
from builder.rehearsal.guest import layout
from builder.rehearsal.guest.answers import AnswersError, carried, check_core, check_identity, check_section
from builder.rehearsal.guest.events import line
from builder.rehearsal.guest.layout import GIB, MIB, StorageError

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = {"username": "ubuntu", "hostname": "vm", "password": "$6$x$y"}


def test_the_menu_asks_for_nothing_that_the_remaster_has_to_add() -> None:
    for text in (menu.grub_cfg(quiet=True), menu.grub_cfg(quiet=False), menu.loopback_cfg(quiet=True)):
        assert boots_casper(text)
        assert "autoinstall" not in text
        assert "console=" not in text
        assert len(re.findall(r"^\tlinux\t/casper/(?:hwe-)?vmlinuz .*---", text, re.MULTILINE)) == 2
    assert "---\n" in menu.grub_cfg(quiet=False)
    assert "--- quiet\n" in menu.grub_cfg(quiet=True)


def test_fingerprints_follow_the_options() -> None:
    assert recipe.medium_fingerprint(("a",)) == recipe.medium_fingerprint(("a",))
    assert recipe.medium_fingerprint(("a",)) != recipe.medium_fingerprint(("b",))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_reads_the_archive(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "scripts/deep").mkdir(parents=True)
    (tree / "scripts/casper").write_bytes(b"odd length")
    (tree / "scripts/deep/empty").touch()
    out.mkdir()
    data = cpio.archive(tree)
    assert len(data) % 512 == 0
    run(["cpio", "-id", "--quiet"], cwd=out, stdin=data)
    assert (out / "scripts/casper").read_bytes() == b"odd length"
    assert (out / "scripts/deep/empty").read_bytes() == b""


def test_a_line_is_indented_by_its_depth() -> None:
    assert line("start", "subiquity/core_validation") == "start: subiquity/core_validation: "
    assert line("start", "subiquity/Install/install") == "start: subiquity/Install/install: "
    assert line("finish", "subiquity/Install/install/a/b", "x") == "finish:   subiquity/Install/install/a/b: x"


@pytest.mark.parametrize(
    ("cmdline", "kept"),
    [
        ("BOOT_IMAGE=/casper/vmlinuz autoinstall console=tty0 console=ttyS0 ---", "console=tty0 console=ttyS0"),
        ("autoinstall console=ttyS0 --- quiet splash", "console=ttyS0 quiet splash"),
        ("console=ttyS0 --- console=tty0", "console=ttyS0 console=tty0"),
        ("autoinstall quiet", ""),
        ("--- BOOTIF=x initrd=y a", "a"),
    ],
)
def test_kernel_arguments_that_the_installed_system_keeps(cmdline: str, kept: str) -> None:
    assert carried(cmdline.split()) == kept.split()


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("identity", {"identity": {"username": "u"}}),
        ("identity", {"identity": {**IDENTITY, "groups": []}}),
        ("identity", {"identity": {**IDENTITY, "password": 1}}),
        ("late-commands", {"late-commands": "echo hi"}),
        ("shutdown", {"shutdown": "halt"}),
        ("storage", {"storage": "direct"}),
        ("timezone", {"timezone": None}),
    ],
)
def test_a_malformed_section_is_named(name: str, answers: dict[str, Any]) -> None:
    with pytest.raises(AnswersError, match=f"Malformed autoinstall in '{name}' section"):
        check_section(name, answers)


def test_good_answers_pass() -> None:
    answers = {"version": 1, "identity": IDENTITY, "late-commands": ["true", ["echo", "x"]], "proxy": None}
    assert check_core(answers) == []
    for name in answers:
        if name != "version":
            check_section(name, answers)
    check_identity(answers)
    assert check_core({"version": 1, "storgage": {}}) == ["storgage"]
    with pytest.raises(AnswersError, match="'version or interactive-sections'"):
        check_core({"version": 2})
    with pytest.raises(AnswersError, match="neither identity nor user-data provided"):
        check_identity({})


@pytest.mark.parametrize("uefi", [False, True])
@pytest.mark.parametrize("name", ["direct", "lvm", "no-such-layout"])
def test_layouts_boot_under_their_firmware(name: str, uefi: bool) -> None:
    actions = layout.guided({"name": name}, "/dev/vda", 10 * GIB, uefi=uefi)
    layout.check(actions, uefi=uefi)
    with pytest.raises(StorageError, match="SELECT_BOOT_DISK"):
        layout.check(actions, uefi=not uefi)
    assert any(action["type"] == "lvm_partition" for action in actions) == (name == "lvm")


@pytest.mark.parametrize(
    ("disk", "policy", "root"),
    [(8, "scaled", -1), (20, "scaled", 10 * GIB), (100, "all", -1), (300, "scaled", 100 * GIB)],
)
def test_the_root_volume_is_scaled_as_ubuntu_does(disk: int, policy: str, root: int) -> None:
    actions = layout.guided({"name": "lvm", "sizing-policy": policy}, "/dev/vda", disk * GIB, uefi=True)
    assert next(action["size"] for action in actions if action["type"] == "lvm_partition") == root


def test_storage_that_cannot_be() -> None:
    with pytest.raises(StorageError, match="requested size larger than gap"):
        layout.guided({"name": "lvm"}, "/dev/vda", 2 * GIB, uefi=False)
    with pytest.raises(StorageError, match="everything"):
        layout.guided({"name": "lvm", "sizing-policy": "everything"}, "/dev/vda", 20 * GIB, uefi=False)
    with pytest.raises(StorageError, match="MOUNT_ROOT"):
        layout.check([{"id": "d", "type": "disk", "grub_device": True}], uefi=False)


def test_sizes_and_partitions() -> None:
    assert layout.size_of("512M", 0) == 512 * MIB
    assert layout.size_of("1.5GiB", 0) == 1536 * MIB
    assert layout.size_of("50%", 10 * GIB) == 5 * GIB
    assert layout.size_of(-1, 0) == -1
    with pytest.raises(StorageError):
        layout.size_of("many", 0)
    script = layout.partition_script(
        [{"flag": "bios_grub", "size": "1M"}, {"flag": "boot", "size": "512M", "number": 2}, {"size": -1}], GIB
    )
    assert script.splitlines() == [
        "label: gpt",
        "1 : size=2048, type=21686148-6449-6E6F-744E-656564454649",
        "2 : size=1048576, type=U",
        "3 : type=L",
    ]
