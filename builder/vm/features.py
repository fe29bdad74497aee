"""Whether the installed QEMU can do what a build asks of it; what it lacks is found before anything is fetched.

Distributions leave parts out or put them into packages of their own, and a QEMU built by hand has what its libraries
allowed. So QEMU is asked for what it has, and the qcow2 that a build ends with is really made.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder import command
from builder.errors import HostError
from builder.vm import qemu
from builder.vm.kvm import Trouble
from builder.vm.qemu import Disk, MachineSpec, Nic, Port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.vm.disk import Compression

OLDEST = (6, 0)
"""The oldest QEMU that takes the arguments of `qemu.argv`: the first with ``-action``."""
PICTURES = (7, 1)
"""The first QEMU whose ``screendump`` writes PNG (its change log); older ones write PPM."""
SECONDS = 20.0
"""How long QEMU may take to list what it has; a tenth of a second on a quiet host."""
OPTIONAL = frozenset({"png"})
"""What a build does without."""
LISTED = re.compile(r'\b(?:name|alias) "([^"]+)"')
NUMBER = re.compile(r"version (\d+)\.(\d+)")

UPGRADE: Mapping[str, str] = {
    "apt": "sudo apt-get install --only-upgrade {package} (in Debian 12, Ubuntu 22.04 and newer)",
    "dnf": "sudo dnf upgrade {package}",
    "pacman": "sudo pacman -Syu",
    "zypper": "sudo zypper update {package}",
    "apk": "sudo apk add --upgrade {package}",
    "brew": "brew upgrade {package}",
}
"""How to get a newer QEMU, by package manager."""

MODULES: Mapping[str, Mapping[str, str]] = {
    "virtio-gpu-pci": {
        "dnf": "qemu-device-display-virtio-gpu-pci",
        "pacman": "qemu-hw-display-virtio-gpu-pci",
        "zypper": "qemu-hw-display-virtio-gpu-pci",
        "apk": "qemu-hw-display-virtio-gpu-pci",
    },
}
"""Devices that some distributions have in packages of their own."""


def troubles(arch: str) -> dict[str, Trouble | None]:
    """Ask the QEMU for guests of ``arch``; return by feature why it cannot be used, or None where it can.

    The features are "version", "machine", "devices", "network" (user-mode), "zstd" (in qcow2) and "png" (of the
    screen); all but OPTIONAL are needed. Raises HostError if the emulator is not installed and UsageError if the
    architecture is unknown.
    """
    program = qemu.program(arch)
    command.find(program)
    questions: Mapping[str, Callable[[str], Trouble | None]] = {
        "version": _version,
        "machine": _machine,
        "devices": _devices,
        "network": _network,
        "zstd": _zstd,
        "png": _png,
    }
    return {name: _asked(question, arch) for name, question in questions.items()}


def version(arch: str) -> tuple[int, int] | None:
    """Return major and minor number of the QEMU for guests of ``arch``, or None if it does not tell.

    Raises HostError if it is not installed and CommandError if it does not run.
    """
    match = NUMBER.search(_told(arch, "--version"))
    return (int(match[1]), int(match[2])) if match else None


def check_compression(compression: Compression) -> None:
    """Make sure that this host's qemu-img can pack a qcow2 in that way. Raises HostError, also if it is missing."""
    trouble = _zstd("") if compression == "zstd" else None
    if trouble is not None:
        raise HostError(f"This host's {trouble.reason}.", hint=trouble.fix)


def devices(arch: str) -> tuple[str, ...]:
    """Return the devices of the machines a build makes, as `qemu.argv` asks for them."""
    spec = MachineSpec(
        name="all",
        arch=arch,
        accel="tcg",
        cpus=1,
        memory_mib=512,
        disks=(Disk(Path("medium"), bus="sata", role="cdrom"), Disk(Path("disk"))),
        nic=Nic(),
        ports=(Port("port", Path("port")),),
    )
    words = qemu.argv(spec)
    named = [words[place + 1].split(",")[0] for place, word in enumerate(words) if word == "-device"]
    return tuple(dict.fromkeys(named))


def _asked(question: Callable[[str], Trouble | None], arch: str) -> Trouble | None:
    try:
        return question(arch)
    except command.CommandError as error:
        words = error.message.splitlines()
        return Trouble(f"{words[0].rstrip('.:')}: {words[-1].strip()}", _reinstall(qemu.program(arch)))
    except HostError as error:
        return Trouble(error.message.rstrip("."), error.hint)


def _told(arch: str, *words: str) -> str:
    return command.run((qemu.program(arch), *words), timeout=SECONDS).stdout.decode("utf-8", "replace")


def _version(arch: str) -> Trouble | None:
    found = version(arch)
    if found is None:
        return Trouble("QEMU does not say which version it is", _reinstall(qemu.program(arch)))
    if found < OLDEST:
        return Trouble(f"QEMU {_dotted(found)} is too old: {_dotted(OLDEST)} or newer is needed", _upgrade(arch))
    return None


def _machine(arch: str) -> Trouble | None:
    name = qemu.MACHINES[arch].split(",")[0]
    if re.search(rf"^{re.escape(name)}\s", _told(arch, "-machine", "help"), re.MULTILINE):
        return None
    return Trouble(f"this build of QEMU has no machine `{name}`", _reinstall(qemu.program(arch)))


def _devices(arch: str) -> Trouble | None:
    known = set(LISTED.findall(_told(arch, "-machine", "none", "-device", "help")))
    missing = [name for name in devices(arch) if name not in known]
    if not missing:
        return None
    apart = [MODULES[name] for name in missing if name in MODULES]
    ways = [command.how_to_install(names) for names in apart if command.managers(names, only_here=True)]
    named = ", ".join(f"`{name}`" for name in missing)
    return Trouble(f"this build of QEMU lacks {named}", "; or ".join(ways) or _reinstall(qemu.program(arch)))


def _network(arch: str) -> Trouble | None:
    if "user" in _told(arch, "-machine", "none", "-netdev", "help").split():
        return None
    return Trouble(
        "this build of QEMU has no user-mode network (`-netdev user`)",
        _reinstall(qemu.program(arch), "--enable-slirp, with libslirp"),
    )


def _zstd(_arch: str) -> Trouble | None:
    with tempfile.TemporaryDirectory(prefix="prebake-") as folder:
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", f"{folder}/try.qcow2", "1M"]
        done = command.run(argv, timeout=SECONDS, ok=tuple(range(256)))
    if done.returncode == 0:
        return None
    words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    return Trouble(
        f"qemu-img makes no qcow2 with zstd compression (it says: {words[-1].rstrip('.')})",
        f"{_reinstall('qemu-img', '--enable-zstd, with libzstd')}; or pack with zlib: --compression zlib",
    )


def _png(arch: str) -> Trouble | None:
    found = version(arch)
    if found is None or found >= PICTURES:
        return None
    return Trouble(
        f"QEMU {_dotted(found)} has none: {_dotted(PICTURES)} is the first with it; pictures of a failed guest's "
        "screen are PPM here",
        _upgrade(arch),
    )


def _dotted(number: tuple[int, int]) -> str:
    return ".".join(str(part) for part in number)


def _upgrade(arch: str) -> str:
    package = command.PACKAGES[qemu.program(arch)]
    return " · ".join(UPGRADE[name].format(package=package[name]) for name in command.managers(package))


def _reinstall(program: str, options: str = "") -> str:
    """Return how to get the program from the system's own packages, and what one built by hand has to have."""
    by_hand = f"; one built by yourself needs {options}" if options else ""
    return f"{command.install_hint(program)}{by_hand}"
