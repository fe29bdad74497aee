"""Finding UEFI firmware by the descriptors that QEMU's packages install.

Source: QEMU's docs/interop/firmware.json, which says what a descriptor holds, in which folders they lie and
which of them wins.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from builder import command
from builder.errors import HostError
from builder.vm.qemu import Flash, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TARGETS: Mapping[str, tuple[str, str]] = {"amd64": ("x86_64", "pc-q35-10.0"), "arm64": ("aarch64", "virt-10.0")}
"""QEMU's name of the guest's architecture and a machine type that a descriptor's patterns are tried on."""

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "amd64": {
        "apt": "ovmf",
        "dnf": "edk2-ovmf",
        "pacman": "edk2-ovmf",
        "zypper": "qemu-ovmf-x86_64",
        "apk": "ovmf",
        "brew": "qemu",
    },
    "arm64": {
        "apt": "qemu-efi-aarch64",
        "dnf": "edk2-aarch64",
        "pacman": "edk2-aarch64",
        "zypper": "qemu-uefi-aarch64",
        "apk": "aavmf",
        "brew": "qemu",
    },
}
"""Which package holds the firmware, by package manager."""


@dataclass(frozen=True)
class Firmware:
    """UEFI firmware in two files: the code, and the template of its variables.

    ``features`` are the descriptor's, such as "secure-boot", "enrolled-keys" and "requires-smm";
    ``targets`` are pairs of an architecture and a machine pattern; ``descriptor`` is where all this stands.
    """

    executable: Path
    executable_format: str
    nvram_template: Path
    nvram_format: str
    features: frozenset[str]
    targets: frozenset[tuple[str, str]]
    descriptor: Path

    def suits(self, arch: str) -> bool:
        """Tell whether it is made for the machine that guests of ``arch`` get."""
        architecture, machine = TARGETS[arch]
        return any(theirs == architecture and fnmatchcase(machine, pattern) for theirs, pattern in self.targets)

    def fresh(self, variables: Path) -> Flash:
        """Copy the template to ``variables`` and return the flash chips of a machine never booted before."""
        shutil.copyfile(self.nvram_template, variables)
        return Flash(
            code=self.executable,
            variables=variables,
            code_format=self.executable_format,
            variables_format=self.nvram_format,
            smm="requires-smm" in self.features,
        )


def parse(text: str, descriptor: Path) -> Firmware | None:
    """Return what the descriptor's ``text`` describes, or None if that is not UEFI in two flash files.

    Raises ValueError if it is not JSON, or not a descriptor.
    """
    try:
        root = json.loads(text)
        mapping = root["mapping"]
        if "uefi" not in root["interface-types"] or mapping["device"] != "flash":
            return None
        if mapping.get("mode", "split") != "split":
            return None
        return Firmware(
            executable=Path(mapping["executable"]["filename"]),
            executable_format=mapping["executable"]["format"],
            nvram_template=Path(mapping["nvram-template"]["filename"]),
            nvram_format=mapping["nvram-template"]["format"],
            features=frozenset(root["features"]),
            targets=frozenset(
                (target["architecture"], pattern) for target in root["targets"] for pattern in target["machines"]
            ),
            descriptor=descriptor,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{descriptor} is not a firmware descriptor: {error!r}") from error


def folders(emulator: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the folders of descriptors, the least specific first: distribution, administrator, user.

    ``emulator`` is the path of a QEMU program, whose prefix tells where its own descriptors are.
    """
    home = environment.get("HOME", "/")
    config = environment.get("XDG_CONFIG_HOME") or str(Path(home, ".config"))
    prefixes = dict.fromkeys((emulator.resolve().parent.parent, emulator.parent.parent))
    return (
        *(prefix / "share/qemu/firmware" for prefix in prefixes),
        Path("/etc/qemu/firmware"),
        Path(config, "qemu/firmware"),
    )


def descriptors(search: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each descriptor in force, sorted by file name.

    ``search`` lists folders, the least specific first. A file hides those of its name in less specific
    folders; an empty one hides them and is nothing itself.
    """
    by_name: dict[str, Path] = {}
    for folder in search:
        if folder.is_dir():
            by_name |= {path.name: path for path in folder.glob("*.json")}
    for _, path in sorted(by_name.items()):
        text = path.read_text("utf-8")
        if text:
            yield path, text


def select(found: Sequence[Firmware], arch: str, *, secure_boot: bool = False) -> Firmware | None:
    """Return the firmware to use for guests of ``arch``, or None. ``found`` is in order of precedence.

    With ``secure_boot`` it is one that enforces Secure Boot with keys enrolled. Without, it is one that has
    no Secure Boot, else one where no keys are enrolled, which therefore enforces nothing.
    """
    suited = [firmware for firmware in found if firmware.suits(arch)]
    enforcing = {"secure-boot", "enrolled-keys"}
    if secure_boot:
        return next((firmware for firmware in suited if enforcing <= firmware.features), None)
    lax = [firmware for firmware in suited if "enrolled-keys" not in firmware.features]
    return next((firmware for firmware in lax if "secure-boot" not in firmware.features), next(iter(lax), None))


def find(arch: str, *, secure_boot: bool = False, search: Sequence[Path] | None = None) -> Firmware:
    """Return the UEFI firmware installed here for guests of ``arch``, "amd64" or "arm64".

    ``search`` replaces the usual folders. Descriptors that cannot be read, or whose files are missing, are
    passed over.

    Raises HostError, with the packages that have it, if there is none; UsageError if ``arch`` is unknown.
    """
    if search is None:
        search = folders(Path(command.find(program(arch))), os.environ)
    found: list[Firmware] = []
    faults: list[str] = []
    for path, text in descriptors(search):
        try:
            firmware = parse(text, path)
        except ValueError as error:
            faults.append(str(error))
            continue
        if firmware is None or not firmware.suits(arch):
            continue
        missing = [file for file in (firmware.executable, firmware.nvram_template) if not file.is_file()]
        if missing:
            faults.append(f"{path} names {missing[0]}, which does not exist")
            continue
        found.append(firmware)
    chosen = select(found, arch, secure_boot=secure_boot)
    if chosen is not None:
        return chosen
    kind = "UEFI firmware with Secure Boot and enrolled keys" if secure_boot else "UEFI firmware"
    looked = ", ".join(str(folder) for folder in search)
    raise HostError(
        f"There is no {kind} for {arch} guests: no descriptor in {looked} names one that is installed."
        + "".join(f" {fault}." for fault in faults),
        hint=install_hint(arch),
    )


def install_hint(arch: str) -> str:
    """Return how to install UEFI firmware for guests of ``arch`` with this host's package managers."""
    return command.how_to_install(PACKAGES[arch])
