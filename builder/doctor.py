"""What this host can do, and what would mend what it cannot."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from builder import command
from builder.errors import HostError
from builder.vm import accel, firmware, qemu

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = ("qemu-img", "qemu-io")
REHEARSAL = ("mmdebstrap", "tar2sqfs", "xorriso", "mkfs.vfat", "mcopy")
NEEDED_GIB = 12
"""Room that an image of the real server takes while it is made."""


def examine(arch: str, output: Path) -> dict[str, Any]:
    """Look at this host: accelerators for ``arch`` guests, programs, firmware, processors, memory, disk.

    Returns values that JSON has. "able" says whether an image can be made here; each part that is not usable
    has a reason and, where one is known, a fix.
    """
    programs = {name: _program(name) for name in (qemu.program(arch), *IMAGE, *REHEARSAL)}
    needed = (qemu.program(arch), *IMAGE)
    able = all(programs[name]["usable"] for name in needed)
    emulator = programs[qemu.program(arch)]
    here = accel.Host.here()
    names = [*(name for name, system in accel.SYSTEMS.items() if system == here.system), "tcg"]
    accelerators = {name: {"usable": False, "reason": emulator["reason"], "fix": emulator["fix"]} for name in names}
    if programs[qemu.program(arch)]["usable"]:
        accelerators = {name: probe.as_json() for name, probe in accel.probe_all(arch).items()}
    uefi = _firmware(arch)
    free = shutil.disk_usage(output).free
    return {
        "able": able and any(found["usable"] for found in accelerators.values()),
        "arch": arch,
        "accelerators": accelerators,
        "programs": programs,
        "firmware": {"uefi": uefi},
        "cpus": os.cpu_count(),
        "disk": {
            "usable": free >= NEEDED_GIB << 30,
            "reason": None if free >= NEEDED_GIB << 30 else f"{free >> 30} GiB free, {NEEDED_GIB} wanted",
            "fix": None,
            "free": free,
        },
    }


def _program(name: str) -> dict[str, Any]:
    try:
        return {"usable": True, "reason": None, "fix": None, "path": command.find(name)}
    except HostError as error:
        return {"usable": False, "reason": error.message, "fix": error.hint, "path": None}


def _firmware(arch: str) -> dict[str, Any]:
    try:
        found = firmware.find(arch)
    except HostError as error:
        return {"usable": False, "reason": error.message, "fix": error.hint, "path": None}
    return {"usable": True, "reason": None, "fix": None, "path": str(found.executable)}


def lines(found: dict[str, Any]) -> list[str]:
    """Return what `examine` found as lines for a person."""
    out = []
    parts = {
        **{f"accelerator {name}": row for name, row in found["accelerators"].items()},
        **{f"program {name}": row for name, row in found["programs"].items()},
        "firmware uefi": found["firmware"]["uefi"],
        "disk": found["disk"],
    }
    for name, row in parts.items():
        detail = row["reason"] or row.get("path") or ""
        if row.get("speed"):
            detail = f"speed {row['speed']} (1 is emulation on a plain cloud machine)"
        out.append(f"{'ok' if row['usable'] else 'NO':3} {name:28} {detail}".rstrip())
        if row["fix"] and not row["usable"]:
            out.append(f"    {'':28} -> {row['fix']}")
    return out
