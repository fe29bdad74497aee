"""QEMU's argument list, made from a description of a machine. Everything here is pure.

Sources: QEMU's invocation manual (https://www.qemu.org/docs/master/system/invocation.html) and, for
``-blockdev``, its QMP reference, type BlockdevOptions. The oldest QEMU these arguments suit is 6.0, the first
with ``-action``.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from builder.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Bus = Literal["virtio", "sata", "nvme", "scsi", "usb"]

PROGRAMS: Mapping[str, str] = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
"""The emulator of each guest architecture."""

MACHINES: Mapping[str, str] = {"amd64": "q35", "arm64": "virt,gic-version=max"}
"""The board of each guest architecture; "max" is the newest interrupt controller the accelerator has."""

ACCELERATORS: Mapping[str, str] = {
    "kvm": "kvm",
    "hvf": "hvf",
    "whpx": "whpx,kernel-irqchip=off",
    "tcg": "tcg",
}
"""The argument of ``-accel``. Windows' in-kernel interrupt controller hangs many guests: it stays off."""

EMULATED_CPUS: Mapping[str, str] = {"amd64": "qemu64", "arm64": "cortex-a57"}
"""The CPU model without hardware help. Richer models are slower to emulate: "max" by a quarter on amd64."""


@dataclass(frozen=True)
class Flash:
    """UEFI firmware as two flash chips: the code, never written, and the variables, a copy of one's own.

    ``smm`` is for firmware that needs system management mode to guard its variables.
    """

    code: Path
    variables: Path
    code_format: str = "raw"
    variables_format: str = "raw"
    smm: bool = False


@dataclass(frozen=True)
class Disk:
    """A disk or an optical drive.

    ``boot`` is its place in the boot order, the lowest first; None is never booted from, unless no disk of
    the machine has a place. The BIOS hides a disk without a place
    even from boot loaders. ``cache`` "unsafe" ignores the guest's flushes: for disks nobody keeps.
    """

    path: Path
    format: str = "qcow2"
    bus: Bus = "virtio"
    role: Literal["disk", "cdrom"] = "disk"
    serial: str | None = None
    read_only: bool = False
    cache: Literal["writeback", "unsafe"] = "writeback"
    boot: int | None = None


@dataclass(frozen=True)
class Nic:
    """A network card on QEMU's user-mode network; ``restrict`` keeps the guest from everything but DHCP.

    ``model`` is QEMU's name of it, such as "e1000" or "vmxnet3"; ``slot`` is its place on the PCI bus, 1 to 30, from
    which a guest makes the card's name; None leaves it to QEMU.
    """

    model: str = "virtio-net-pci"
    mac: str | None = None
    restrict: bool = True
    slot: int | None = None


@dataclass(frozen=True)
class Port:
    """A virtio-serial port: what a guest writes to ``/dev/virtio-ports/NAME`` lands in the file ``path``."""

    name: str
    path: Path


@dataclass(frozen=True)
class MachineSpec:
    """A virtual machine.

    ``arch`` is "amd64" or "arm64"; ``accel`` one of ACCELERATORS; ``firmware`` None is the board's own (the
    BIOS of a PC; ``virt`` has none); ``display`` gives it a screen that can be dumped and a keyboard;
    ``rtc`` is "utc", "localtime" or a date as YYYY-MM-DDThh:mm:ss; ``serial`` and ``qmp`` are paths of UNIX
    sockets that QEMU listens on, or None.
    """

    name: str
    arch: str
    accel: str
    cpus: int
    memory_mib: int
    firmware: Flash | None = None
    disks: tuple[Disk, ...] = ()
    nic: Nic | None = None
    ports: tuple[Port, ...] = ()
    display: bool = True
    rtc: str = "utc"
    serial: Path | None = None
    qmp: Path | None = None


def program(arch: str) -> str:
    """Return the name of the emulator for guests of ``arch``, or raise UsageError if there is none."""
    try:
        return PROGRAMS[arch]
    except KeyError:
        raise UsageError(
            f"No machine is known for the architecture `{arch}`.", hint=f"Use one of {', '.join(PROGRAMS)}."
        ) from None


def escape(text: object) -> str:
    """Return ``text`` as a value in a comma-separated QEMU option."""
    return str(text).replace(",", ",,")


def node_name(number: int) -> str:
    """Return what QEMU calls the block node of the disk that is ``number`` in ``MachineSpec.disks``."""
    return f"disk{number}"


def cpu(arch: str, accel: str) -> str:
    """Return the CPU model: the host's own where hardware runs it, else a plain one.

    WHPX takes named models only; the plainest suits every host.
    """
    return "host" if accel in {"kvm", "hvf"} else EMULATED_CPUS[arch]


def argv(spec: MachineSpec) -> tuple[str, ...]:
    """Return the command line that starts ``spec`` stopped (``-S``), headless, reachable only by its sockets.

    A guest that resets, powers off or panics leaves QEMU paused, with the reason in a SHUTDOWN event. A disk
    that cannot be read or written on the host pauses the guest too (BLOCK_IO_ERROR).

    Raises UsageError if the architecture or the accelerator is unknown or a disk cannot sit on its bus.
    """
    if spec.accel not in ACCELERATORS:
        raise UsageError(f"No accelerator is called `{spec.accel}`.", hint=f"Use one of {', '.join(ACCELERATORS)}.")
    return (
        program(spec.arch),
        "-nodefaults",
        "-no-user-config",
        *("-name", f"guest={escape(spec.name)}"),
        *_board(spec),
        *("-accel", ACCELERATORS[spec.accel]),
        *("-cpu", cpu(spec.arch, spec.accel)),
        *("-smp", str(spec.cpus)),
        *("-m", str(spec.memory_mib)),
        *("-rtc", f"base={spec.rtc}"),
        *("-display", "none"),
        *_screen(spec),
        *("-device", "virtio-rng-pci"),
        *_network(spec.nic),
        *_disks(spec),
        *_ports(spec.ports),
        *_socket("serial", spec.serial, ("-serial", "chardev:serial")),
        *_socket("qmp", spec.qmp, ("-mon", "chardev=qmp,mode=control")),
        *("-action", "reboot=shutdown,shutdown=pause"),
        "-S",
    )


def _board(spec: MachineSpec) -> Iterator[str]:
    flash = spec.firmware
    board = MACHINES[spec.arch]
    if flash is not None:
        board += ",pflash0=code,pflash1=variables"
        yield from _blockdev(_node("code", flash.code_format, flash.code, read_only=True))
        yield from _blockdev(_node("variables", flash.variables_format, flash.variables, read_only=False))
        if flash.smm:
            board += ",smm=on"
            yield from ("-global", "driver=cfi.pflash01,property=secure,value=on")
            yield from ("-global", "ICH9-LPC.disable_s3=1")
    yield from ("-machine", board)


def _screen(spec: MachineSpec) -> Iterator[str]:
    if spec.arch == "amd64":
        yield from ("-device", "pvpanic")
        if spec.display:
            yield from ("-device", "VGA")
    else:
        yield from ("-device", "pvpanic-pci")
        if spec.display:
            yield from ("-device", "virtio-gpu-pci")
            yield from ("-device", "qemu-xhci,id=input")
            yield from ("-device", "usb-kbd,bus=input.0")


def _network(nic: Nic | None) -> Iterator[str]:
    if nic is None:
        yield from ("-nic", "none")
        return
    yield from ("-netdev", f"user,id=net0,restrict={'on' if nic.restrict else 'off'}")
    mac = f",mac={nic.mac}" if nic.mac else ""
    slot = "" if nic.slot is None else f",addr={nic.slot:#x}"
    yield from ("-device", f"{nic.model},netdev=net0{mac}{slot},romfile=")


def _node(name: str, form: str, path: Path, *, read_only: bool) -> dict[str, object]:
    return {
        "node-name": name,
        "driver": form,
        "read-only": read_only,
        "file": {"driver": "file", "filename": str(path)},
    }


def _blockdev(node: Mapping[str, object]) -> tuple[str, str]:
    """JSON, because a path may hold anything."""
    return "-blockdev", json.dumps(node, separators=(",", ":"))


def _disks(spec: MachineSpec) -> Iterator[str]:
    used: Counter[str] = Counter()
    for disk in spec.disks:
        if used[disk.bus] == 0:
            yield from _controller(disk.bus, spec.arch)
        name = node_name(used.total())
        read_only = disk.read_only or disk.role == "cdrom"
        node = _node(name, disk.format, disk.path, read_only=read_only)
        if not read_only:
            node |= {"discard": "unmap", "detect-zeroes": "unmap"}
        if disk.cache == "unsafe":
            node["cache"] = {"no-flush": True}
        yield from _blockdev(node)
        yield from _drive(disk, name, used[disk.bus], spec.arch)
        used[disk.bus] += 1
    if any(disk.boot is not None for disk in spec.disks):
        yield from ("-boot", "strict=on")


def _controller(bus: Bus, arch: str) -> tuple[str, ...]:
    if bus == "scsi":
        return ("-device", "virtio-scsi-pci,id=scsi")
    if bus == "usb":
        return ("-device", "qemu-xhci,id=usb")
    if bus == "sata" and arch != "amd64":
        return ("-device", "ahci,id=ide")
    return ()  # the q35 board has its own SATA controller, with the buses ide.0 to ide.5


def _drive(disk: Disk, name: str, slot: int, arch: str) -> Iterator[str]:
    """Yield the device on top of the block node ``name``, the ``slot``-th on its bus."""
    optical = disk.role == "cdrom"
    kind = {
        "virtio": "virtio-blk-pci",
        "sata": f"{'ide-cd' if optical else 'ide-hd'},bus=ide.{slot}",
        "nvme": "nvme",
        "scsi": f"{'scsi-cd' if optical else 'scsi-hd'},bus=scsi.0,scsi-id={slot}",
        "usb": f"scsi-cd,bus={name}-bridge.0" if optical else "usb-storage,bus=usb.0,removable=on",
    }[disk.bus]
    if disk.bus == "nvme" and optical:
        raise UsageError(f"There are no NVMe optical drives, so `{disk.path}` cannot be one on {arch}.")
    if disk.bus == "usb" and optical:
        yield from ("-device", f"usb-bot,bus=usb.0,id={name}-bridge")
    properties = [f"drive={name}", f"id={name}-device"]
    if disk.bus != "nvme":
        properties += ["werror=stop", "rerror=stop"]
    serial = disk.serial or (name if disk.bus == "nvme" else None)  # NVMe must have one
    if serial:
        properties.append(f"serial={escape(serial)}")
    if disk.boot is not None:
        properties.append(f"bootindex={disk.boot}")
    yield from ("-device", ",".join((kind, *properties)))


def _ports(ports: tuple[Port, ...]) -> Iterator[str]:
    if ports:
        yield from ("-device", "virtio-serial-pci,id=ports")
    for number, port in enumerate(ports):
        yield from ("-chardev", f"file,id=port{number},path={escape(port.path)}")
        yield from ("-device", f"virtserialport,bus=ports.0,chardev=port{number},name={escape(port.name)}")


def _socket(name: str, path: Path | None, user: tuple[str, str]) -> tuple[str, ...]:
    if path is None:
        return ()
    return ("-chardev", f"socket,id={name},path={escape(path)},server=on,wait=off", *user)
