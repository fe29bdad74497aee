"""QEMU's argument list: golden texts for whole machines, and QEMU's own opinion of every kind of disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.image.strangers import GROUPS
from builder.vm import disk, firmware
from builder.vm.machine import Machine
from builder.vm.qemu import Bus, Disk, Flash, MachineSpec, Nic, Port, argv, cpu, escape
from tests.test_vm_machine import RESET, TEXT, boot_sector, read

INSTALL = MachineSpec(
    name="noble, install",
    arch="amd64",
    accel="kvm",
    cpus=2,
    memory_mib=4096,
    disks=(
        Disk(Path("/w/medium, 1.qcow2"), role="cdrom", bus="sata", boot=0),
        Disk(Path("/w/disk.qcow2"), serial="root,1", boot=1, cache="unsafe"),
    ),
    nic=Nic(mac="52:54:00:12:34:56"),
    ports=(Port("org.prebake.evidence", Path("/w/evidence,1")),),
    serial=Path("/r/a,b/serial"),
    qmp=Path("/r/a,b/qmp"),
)

INSTALL_ARGV = r"""
qemu-system-x86_64
-nodefaults
-no-user-config
-name guest=noble,, install
-machine q35
-accel kvm
-cpu host
-smp 2
-m 4096
-rtc base=utc
-display none
-device pvpanic
-device VGA
-device virtio-rng-pci
-netdev user,id=net0,restrict=on
-device virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile=
-blockdev {"node-name":"disk0","driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"/w/medium, 1.qcow2"}}
-device ide-cd,bus=ide.0,drive=disk0,id=disk0-device,werror=stop,rerror=stop,bootindex=0
-blockdev {"node-name":"disk1","driver":"qcow2","read-only":false,"file":{"driver":"file","filename":"/w/disk.qcow2"},"discard":"unmap","detect-zeroes":"unmap","cache":{"no-flush":true}}
-device virtio-blk-pci,drive=disk1,id=disk1-device,werror=stop,rerror=stop,serial=root,,1,bootindex=1
-boot strict=on
-device virtio-serial-pci,id=ports
-chardev file,id=port0,path=/w/evidence,,1
-device virtserialport,bus=ports.0,chardev=port0,name=org.prebake.evidence
-chardev socket,id=serial,path=/r/a,,b/serial,server=on,wait=off
-serial chardev:serial
-chardev socket,id=qmp,path=/r/a,,b/qmp,server=on,wait=off
-mon chardev=qmp,mode=control
-action reboot=shutdown,shutdown=pause
-S
"""  # noqa: E501 - an argument is a line

ARM64 = MachineSpec(
    name="a",
    arch="arm64",
    accel="tcg",
    cpus=1,
    memory_mib=2048,
    firmware=Flash(Path("/f/code.fd"), Path("/w/variables.qcow2"), variables_format="qcow2"),
    disks=(Disk(Path("/w/d.raw"), format="raw", bus="sata"), Disk(Path("/w/e.raw"), format="raw", bus="nvme")),
    display=False,
    rtc="2024-01-01T00:00:00",
)

ARM64_ARGV = r"""
qemu-system-aarch64
-nodefaults
-no-user-config
-name guest=a
-blockdev {"node-name":"code","driver":"raw","read-only":true,"file":{"driver":"file","filename":"/f/code.fd"}}
-blockdev {"node-name":"variables","driver":"qcow2","read-only":false,"file":{"driver":"file","filename":"/w/variables.qcow2"}}
-machine virt,gic-version=max,pflash0=code,pflash1=variables
-accel tcg
-cpu cortex-a57
-smp 1
-m 2048
-rtc base=2024-01-01T00:00:00
-display none
-device pvpanic-pci
-device virtio-rng-pci
-nic none
-device ahci,id=ide
-blockdev {"node-name":"disk0","driver":"raw","read-only":false,"file":{"driver":"file","filename":"/w/d.raw"},"discard":"unmap","detect-zeroes":"unmap"}
-device ide-hd,bus=ide.0,drive=disk0,id=disk0-device,werror=stop,rerror=stop
-blockdev {"node-name":"disk1","driver":"raw","read-only":false,"file":{"driver":"file","filename":"/w/e.raw"},"discard":"unmap","detect-zeroes":"unmap"}
-device nvme,drive=disk1,id=disk1-device,serial=disk1
-action reboot=shutdown,shutdown=pause
-S
"""  # noqa: E501 - an argument is a line


def lines(arguments: tuple[str, ...]) -> str:
    """One line an option with its value."""
    text = "\n".join(arguments[:1])
    for argument in arguments[1:]:
        text += f"\n{argument}" if argument.startswith("-") else f" {argument}"
    return f"\n{text}\n"


@pytest.mark.parametrize(("spec", "golden"), [(INSTALL, INSTALL_ARGV), (ARM64, ARM64_ARGV)])
def test_golden(spec: MachineSpec, golden: str) -> None:
    assert lines(argv(spec)) == golden


def test_secure_boot_needs_smm() -> None:
    flash = Flash(Path("/c"), Path("/v"), smm=True)
    text = lines(argv(replace(INSTALL, firmware=flash)))
    assert "-machine q35,pflash0=code,pflash1=variables,smm=on\n" in text
    assert "-global driver=cfi.pflash01,property=secure,value=on\n" in text


def test_windows_keeps_its_interrupt_controller_out() -> None:
    text = lines(argv(replace(INSTALL, accel="whpx")))
    assert "-accel whpx,kernel-irqchip=off\n-cpu qemu64\n" in text


@pytest.mark.parametrize(
    ("nic", "device"),
    [
        (Nic("e1000", "00:1b:21:5a:7a:03", slot=19), "e1000,netdev=net0,mac=00:1b:21:5a:7a:03,addr=0x13,romfile="),
        (Nic("vmxnet3", "00:50:56:1e:55:04", slot=22), "vmxnet3,netdev=net0,mac=00:50:56:1e:55:04,addr=0x16,romfile="),
        (Nic(slot=10), "virtio-net-pci,netdev=net0,addr=0xa,romfile="),
    ],
)
def test_a_card_of_another_model_in_another_slot(nic: Nic, device: str) -> None:
    text = lines(argv(replace(INSTALL, nic=nic)))
    assert f"-netdev user,id=net0,restrict=on\n-device {device}\n" in text


@pytest.mark.parametrize(
    ("arch", "accel", "model"),
    [("amd64", "tcg", "qemu64"), ("amd64", "hvf", "host"), ("arm64", "kvm", "host"), ("arm64", "tcg", "cortex-a57")],
)
def test_cpu(arch: str, accel: str, model: str) -> None:
    assert cpu(arch, accel) == model


@pytest.mark.parametrize(
    "spec",
    [
        replace(INSTALL, arch="riscv64"),
        replace(INSTALL, accel="xen"),
        replace(INSTALL, disks=(Disk(Path("/d"), bus="nvme", role="cdrom"),)),
    ],
)
def test_what_cannot_be(spec: MachineSpec) -> None:
    with pytest.raises(UsageError):
        argv(spec)


def test_nothing_listens_on_the_network_and_no_user_configuration_is_read() -> None:
    arguments = argv(INSTALL)
    assert not any(word in argument for argument in arguments for word in ("tcp:", "hostfwd", "vnc", "spice", "-gdb"))
    assert arguments[1:3] == ("-nodefaults", "-no-user-config")


def test_blockdevs_are_json_with_the_path_as_it_is() -> None:
    path = Path('/odd/"quotes", commas,=; 100% \\ü\n')
    arguments = argv(replace(INSTALL, disks=(Disk(path),)))
    node = json.loads(arguments[arguments.index("-blockdev") + 1])
    assert node["file"]["filename"] == str(path)


def test_escape() -> None:
    assert escape("a,b,,c") == "a,,b,,,,c"


BUSES: list[Bus] = ["virtio", "sata", "scsi", "usb", "nvme"]


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
@pytest.mark.parametrize("bus", BUSES)
def test_a_guest_boots_from_each_bus(tmp_path: Path, bus: Bus) -> None:
    path = tmp_path / "boot.raw"
    path.write_bytes(boot_sector(RESET).ljust(4 << 20, b"\0"))
    blank, second = tmp_path / "blank.qcow2", tmp_path / "second.qcow2"
    for image in (blank, second):
        disk.create(image, 1 << 20)
    disks = (Disk(blank, bus=bus, serial="blank"), Disk(path, "raw", bus=bus, boot=0), Disk(second, bus="virtio"))
    with Machine(MachineSpec("t", "amd64", "tcg", 1, 64, disks=disks, display=False)) as guest:
        assert read(guest.serial, len(TEXT)) == TEXT
        assert guest.wait_shutdown(60).reason == "guest-reset"


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_qemu_takes_every_strangers_machine(tmp_path: Path) -> None:
    """SeaBIOS starts the boot sector from each of their disks, the card in its slot."""
    path = tmp_path / "boot.raw"
    path.write_bytes(boot_sector(RESET).ljust(4 << 20, b"\0"))
    for stranger in (one for group in GROUPS for one in group):
        disks = (Disk(path, "raw", bus=stranger.bus, boot=1, read_only=stranger.bus != "sata"),)
        spec = MachineSpec("t", "amd64", "tcg", 1, 64, disks=disks, nic=stranger.card, display=False)
        with Machine(spec) as guest:
            assert read(guest.serial, len(TEXT)) == TEXT
            assert guest.wait_shutdown(60).reason == "guest-reset"


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_qemu_takes_an_optical_drive_on_each_bus(tmp_path: Path, arch: str) -> None:
    image = tmp_path / "medium.iso"
    image.write_bytes(bytes(1 << 20))
    buses: list[Bus] = ["virtio", "sata", "scsi", "usb"]
    disks = tuple(Disk(image, "raw", bus=bus, role="cdrom", boot=place) for place, bus in enumerate(buses))
    nic = Nic(model="e1000e", mac="52:54:00:00:00:01")
    with Machine(MachineSpec("t", arch, "tcg", 1, 64, disks=disks, nic=nic)) as guest:
        assert guest.poll().running
        assert guest.screendump(tmp_path / "screen.png").stat().st_size > 0


@pytest.mark.boot
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_uefi_firmware_starts_and_keeps_its_variables(tmp_path: Path, arch: str) -> None:
    """About five seconds: the firmware finds nothing to boot and says so on the serial line."""
    if shutil.which({"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}[arch]) is None:
        pytest.skip("needs QEMU")
    flash = firmware.find(arch).fresh(tmp_path / "variables, 1.fd")
    before = flash.variables.read_bytes()
    spec = MachineSpec("t", arch, "tcg", 2, 512, firmware=flash)
    with Machine(spec) as guest:
        text = b""
        guest.serial.settimeout(100)
        while b"BdsDxe" not in text and b"Shell" not in text:
            text += guest.serial.recv(4096)
        guest.quit()
    assert flash.variables.read_bytes() != before
