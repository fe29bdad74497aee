"""What this host can do, and what would mend what it cannot."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from builder import command, host, servers
from builder.errors import HostError
from builder.vm import accel, features, firmware, qemu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.vm.kvm import Trouble

IMAGE = ("qemu-img", "qemu-io")
REHEARSAL = ("mmdebstrap", "tar2sqfs", "xorriso", "mkfs.vfat", "mcopy")
MIB, GIB = 1 << 20, 1 << 30
NAMES = {
    "version": "version",
    "machine": "machine",
    "devices": "devices",
    "network": "user-mode network",
    "zstd": "zstd in qcow2",
    "png": "pictures as PNG",
}
"""What a person reads for the features of QEMU."""
NAME_WIDTH = 32
WIDTH = 110
"""Columns of the report for a person, except where a command would be torn apart."""
COMMAND = re.compile(r"`[^`]*`")

Row = dict[str, Any]


def examine(arch: str, output: Path, *, mirrors: Sequence[str] = (), offline: bool = False) -> dict[str, Any]:
    """Look at this host: accelerators for ``arch`` guests, QEMU, programs, firmware, memory, disks, servers.

    Images are to be made in ``output``. ``mirrors`` are asked instead of Ubuntu's servers of ISOs; ``offline`` asks
    none. Returns values that JSON has. "able" says whether an image can be made here. What is not usable has a
    reason and, where one is known, a fix; "needed" tells whether no image can be made without it.
    """
    emulator = qemu.program(arch)
    programs = _programs(arch)
    there = bool(programs[emulator]["usable"])
    accelerators = _accelerators(arch, programs[emulator])
    best = next((name for name, found in accelerators.items() if found["usable"]), None)
    found = {
        "arch": arch,
        "accel": best,
        "accelerators": accelerators,
        "qemu": _qemu(arch) if there else {},
        "programs": programs,
        "firmware": {"uefi": _firmware(arch)},
        "cpus": os.cpu_count(),
        "memory": _memory(),
        **_disks(output),
        "network": {} if offline else _network(arch, mirrors),
    }
    needed = [row for _, _, row in _rows(found) if row["needed"]]
    return {"able": best is not None and all(row["usable"] for row in needed), **found}


def _row(trouble: Trouble | None, *, needed: bool, **more: object) -> Row:
    reason, fix = (None, None) if trouble is None else (trouble.reason, trouble.fix)
    return {"usable": trouble is None, "reason": reason, "fix": fix, "needed": needed, **more}


def _accelerators(arch: str, emulator: Row) -> dict[str, Row]:
    here = accel.Host.here()
    if not emulator["usable"]:
        names = [*(name for name, system in accel.SYSTEMS.items() if system == here.system), "tcg"]
        lacking = {"usable": False, "reason": emulator["reason"], "fix": emulator["fix"], "needed": False}
        return {name: dict(lacking) for name in names}
    probes = accel.probe_all(arch, here)
    return {
        name: {**probe.as_json(), "needed": False, "minutes": list(probe.minutes) if probe.usable else None}
        for name, probe in probes.items()
    }


def _qemu(arch: str) -> dict[str, Row]:
    found = {
        name: _row(trouble, needed=name not in features.OPTIONAL) for name, trouble in features.troubles(arch).items()
    }
    if found["version"]["usable"]:
        found["version"]["number"] = "{}.{}".format(*(features.version(arch) or ("?", "?")))
    return found


def _programs(arch: str) -> dict[str, Row]:
    wanted = {
        **dict.fromkeys((qemu.program(arch), *IMAGE), (True, None)),
        **({"setpriv": (False, "ends QEMU if prebake is killed")} if sys.platform == "linux" else {}),
        **dict.fromkeys(REHEARSAL, (False, "only for the rehearsal medium")),
    }
    return {name: _program(name, needed=needed, purpose=purpose) for name, (needed, purpose) in wanted.items()}


def _program(name: str, *, needed: bool, purpose: str | None) -> Row:
    row = {"usable": True, "reason": None, "fix": None, "needed": needed, "path": None, "purpose": purpose}
    try:
        return {**row, "path": command.find(name)}
    except HostError as error:
        return {**row, "usable": False, "reason": error.message, "fix": error.hint}


def _firmware(arch: str) -> Row:
    row = {"usable": True, "reason": None, "fix": None, "needed": True, "path": None, "purpose": None}
    try:
        return {**row, "path": str(firmware.find(arch).executable)}
    except HostError as error:
        without = " For images that start under BIOS alone nothing is missing: --firmware bios." * (arch == "amd64")
        return {**row, "usable": False, "reason": error.message, "fix": f"{error.hint}{without}"}


def _memory() -> Row:
    found = host.memory()
    return _row(found.trouble, needed=False, available=found.free)


def _disks(output: Path) -> dict[str, Any]:
    rows = {
        name: _row(room.trouble, needed=False, free=room.free, path=str(room.folder))
        for name, room in host.rooms(output).items()
    }
    return {"disk": rows.pop("output"), "other_disks": rows}


def _network(arch: str, mirrors: Sequence[str]) -> dict[str, Row]:
    """Ask the servers; none of them is needed, for an ISO may be at hand."""
    return {one.server: _row(one.trouble, needed=False, purpose=one.purpose) for one in servers.look(arch, mirrors)}


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Row]]:
    """Yield every row of a report with its group's title and its name."""
    for title, group in (
        ("Accelerators", found["accelerators"]),
        ("QEMU", {NAMES[name]: row for name, row in found["qemu"].items()}),
        ("Programs", found["programs"]),
        ("Firmware", {f"{name.upper()}": row for name, row in found["firmware"].items()}),
        ("Memory and disks", {"memory": found["memory"], "output": found["disk"], **found["other_disks"]}),
        ("Servers", found["network"]),
    ):
        for name, row in group.items():
            yield title, name, row


def lines(found: dict[str, Any]) -> list[str]:
    """Return what `examine` found as lines for a person, with the verdict at the end."""
    out: list[str] = []
    last, told = "", ""
    for title, name, row in _rows(found):
        if title != last:
            out += [*([""] if out else []), title]
            last, told = title, ""
        out += _lines(name.partition("://")[2] or name, row)
        if row["fix"] and not row["usable"]:
            fix = "as above" if row["fix"] == told else row["fix"]
            out += _wrapped(f"{' ' * 8}-> ", fix)
            told = row["fix"]
    return [*out, "", *textwrap.wrap(_verdict(found), WIDTH)]


def _lines(name: str, row: Row) -> list[str]:
    mark = "ok" if row["usable"] else "NO" if row["needed"] else "warn"
    detail, purpose = row["reason"] or _detail(row), row.get("purpose")
    if purpose and (not detail or not row["usable"]):
        detail = f"{detail} ({purpose})" if detail else purpose
    return _wrapped(f"  {mark:5} {name:{NAME_WIDTH}} ", detail)


def _wrapped(head: str, text: str) -> list[str]:
    """Return ``head`` and beside it the text in lines, its commands whole, so that they can be copied."""
    whole = COMMAND.sub(lambda match: match[0].replace(" ", "\0"), text)
    rows = textwrap.wrap(whole, WIDTH - len(head), break_long_words=False, break_on_hyphens=False) or [""]
    rows = [row.replace("\0", " ") for row in rows]
    return [f"{head}{rows[0]}".rstrip(), *(f"{' ' * len(head)}{row}" for row in rows[1:])]


def _detail(row: Row) -> str:
    """Return what is worth knowing of what is usable."""
    if "speed" in row:
        least, most = row["minutes"]
        speed = f"speed {row['speed']} (1 is emulation on a plain cloud machine), " if row["speed"] is not None else ""
        return f"{speed}about {least} to {most} minutes for an image"
    if "available" in row:
        known = row["available"] is not None
        return f"{row['available'] // MIB} MiB available" if known else "how much is available is not known here"
    if "free" in row:
        return f"{row['free'] / GIB:.1f} GiB free in {row['path']}"
    return str(row.get("path") or row.get("number") or "")


def _verdict(found: dict[str, Any]) -> str:
    if not found["able"]:
        lacking = [f"{title}, {name}" for title, name, row in _rows(found) if row["needed"] and not row["usable"]]
        if found["accel"] is None:
            lacking.append("no accelerator works")
        return f"No image can be made here: {'; '.join(lacking)}."
    least, most = found["accelerators"][found["accel"]]["minutes"]
    how = "emulated (tcg), slowly" if found["accel"] == "tcg" else f"with {found['accel']}"
    low, high = accel.HARDWARE_MINUTES
    compared = f"; with hardware it would be {low} to {high}" if found["accel"] == "tcg" else ""
    return (
        f"Images can be made here, {how}: one of Ubuntu Server takes about {least} to {most} minutes, by an "
        f"estimate{compared}."
    )
