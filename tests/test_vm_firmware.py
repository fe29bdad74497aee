"""Firmware descriptors: what they say, which of them is in force, which suits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from builder.errors import HostError, UsageError
from builder.vm import firmware
from builder.vm.firmware import Firmware

Q35 = {"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}
VIRT = {"architecture": "aarch64", "machines": ["virt-*"]}


def descriptor(folder: Path, *features: str, target: dict[str, Any] = Q35, **changes: object) -> str:
    """The text of a descriptor whose two files are in ``folder``, where they are made."""
    for name in ("code.fd", "vars.fd"):
        (folder / name).write_bytes(name.encode())
    mapping: dict[str, object] = {
        "device": "flash",
        "executable": {"filename": str(folder / "code.fd"), "format": "raw"},
        "nvram-template": {"filename": str(folder / "vars.fd"), "format": "qcow2"},
    }
    root: dict[str, object] = {
        "description": "a firmware",
        "interface-types": ["uefi"],
        "mapping": {**mapping, **changes},
        "targets": [target],
        "features": list(features),
        "tags": [],
    }
    return json.dumps(root)


def test_a_descriptor_is_understood(tmp_path: Path) -> None:
    got = firmware.parse(descriptor(tmp_path, "acpi-s3", "verbose-dynamic"), Path("/d/60.json"))
    assert got == Firmware(
        executable=tmp_path / "code.fd",
        executable_format="raw",
        nvram_template=tmp_path / "vars.fd",
        nvram_format="qcow2",
        features=frozenset({"acpi-s3", "verbose-dynamic"}),
        targets=frozenset({("x86_64", "pc-i440fx-*"), ("x86_64", "pc-q35-*")}),
        descriptor=Path("/d/60.json"),
    )
    assert got.suits("amd64")
    assert not got.suits("arm64")


@pytest.mark.parametrize(
    "changes", [{"device": "memory", "filename": "/f"}, {"mode": "stateless"}, {"mode": "combined"}]
)
def test_firmware_in_other_forms_is_passed_over(tmp_path: Path, changes: dict[str, object]) -> None:
    assert firmware.parse(descriptor(tmp_path, **changes), Path("x")) is None  # type: ignore[arg-type] # any key


def test_a_bios_is_no_uefi(tmp_path: Path) -> None:
    root = {**json.loads(descriptor(tmp_path)), "interface-types": ["bios"]}
    assert firmware.parse(json.dumps(root), Path("x")) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"interface-types": ["uefi"], "mapping": {"device": "flash"}}'])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        firmware.parse(text, Path("x.json"))


def test_a_board_of_another_kind_does_not_suit(tmp_path: Path) -> None:
    text = descriptor(tmp_path, target={"architecture": "x86_64", "machines": ["microvm"]})
    got = firmware.parse(text, Path("x"))
    assert got is not None
    assert not got.suits("amd64")


def test_more_specific_folders_win_and_empty_files_hide(tmp_path: Path) -> None:
    for name, files in {
        "system": {"30-a.json": "system a", "40-b.json": "system b", "50-c.json": "system c"},
        "admin": {"40-b.json": "", "50-c.json": "admin c", "10-d.json": "admin d"},
        "user": {"50-c.json": "user c", "note.txt": "no"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    search = [tmp_path / "system", tmp_path / "absent", tmp_path / "admin", tmp_path / "user"]
    assert [text for _, text in firmware.descriptors(search)] == ["admin d", "system a", "user c"]


def test_the_folders_are_those_of_the_specification() -> None:
    assert firmware.folders(Path("/opt/qemu/bin/qemu-system-x86_64"), {"HOME": "/home/eve"}) == (
        Path("/opt/qemu/share/qemu/firmware"),
        Path("/etc/qemu/firmware"),
        Path("/home/eve/.config/qemu/firmware"),
    )
    assert firmware.folders(Path("/usr/bin/q"), {"XDG_CONFIG_HOME": "/x"})[-1] == Path("/x/qemu/firmware")


def put(folder: Path, name: str, *features: str, target: dict[str, Any] = Q35) -> Path:
    home = folder / name
    home.mkdir()
    (folder / f"{name}.json").write_text(descriptor(home, *features, target=target))
    return home / "code.fd"


def test_the_plain_one_is_taken_unless_secure_boot_is_asked_for(tmp_path: Path) -> None:
    enforcing = put(tmp_path, "40", "secure-boot", "enrolled-keys", "requires-smm")
    put(tmp_path, "50", "secure-boot", "requires-smm")
    plain = put(tmp_path, "60")
    other = put(tmp_path, "10", target=VIRT)
    assert firmware.find("amd64", search=[tmp_path]).executable == plain
    assert firmware.find("amd64", secure_boot=True, search=[tmp_path]).executable == enforcing
    assert firmware.find("arm64", search=[tmp_path]).executable == other


def test_secure_boot_without_keys_will_do_where_there_is_no_plain_one(tmp_path: Path) -> None:
    put(tmp_path, "40", "secure-boot", "enrolled-keys")
    empty = put(tmp_path, "50", "secure-boot", "requires-smm")
    assert firmware.find("amd64", search=[tmp_path]).executable == empty


def test_a_fresh_copy_of_the_variables_is_writable(tmp_path: Path) -> None:
    put(tmp_path, "40", "secure-boot", "enrolled-keys", "requires-smm")
    (tmp_path / "40/vars.fd").chmod(0o444)
    found = firmware.find("amd64", secure_boot=True, search=[tmp_path])
    flash = found.fresh(tmp_path / "mine.fd")
    assert flash.smm
    assert flash.variables_format == "qcow2"
    assert flash.variables.read_bytes() == b"vars.fd"
    assert flash.variables.stat().st_mode & 0o200


def test_what_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    put(tmp_path, "60").unlink()
    (tmp_path / "70.json").write_text("{")
    with pytest.raises(HostError, match=r"code\.fd, which does not exist") as caught:
        firmware.find("amd64", search=[tmp_path])
    assert "ovmf" in str(caught.value.hint)
    with pytest.raises(HostError, match="Secure Boot") as caught:
        firmware.find("arm64", secure_boot=True, search=[tmp_path])
    assert "qemu-efi-aarch64" in str(caught.value.hint)


def test_an_unknown_architecture_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        firmware.find("pdp11")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_what_is_installed_here_is_found(arch: str) -> None:
    if not any(Path("/usr/share/qemu/firmware").glob("*.json")) or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no descriptors here")
    try:
        found = firmware.find(arch)
    except HostError:
        pytest.skip(f"no firmware for {arch} here")
    assert found.executable.is_file()
    assert "enrolled-keys" not in found.features
