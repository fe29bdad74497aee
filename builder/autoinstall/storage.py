"""Traps in the `storage` section: what the installer accepts and then does otherwise, or fails at. Pure.

Sources: subiquity's models/storage.py and common/storage/sizes.py; curtin's storage configuration reference.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from builder.autoinstall.problems import Path, Problem, advice, shown
from builder.autoinstall.sections import Version, version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KINDS = (
    *("disk", "partition", "format", "mount", "lvm_volgroup", "lvm_partition", "raid", "bcache", "dm_crypt"),
    *("zpool", "zfs", "dasd", "nvme_controller", "device", "image"),
)
DISK = "/dev/vda"
"""The disk in the machine that prebake installs in."""
MATCHES = version("24.04.2")
NEWER_LAYOUTS = {"zfs": "23.10.1", "hybrid": "23.10.1"}
SIZE = re.compile(r"\d+(\.\d+)?\s*[BKMGT]?(iB|B)?|\d{1,3}%", re.IGNORECASE)
POINTS = ("device", "volume", "volgroup")
"""Keys of an action that name another action."""


def storage_traps(storage: object, installer: Version) -> Iterator[Problem]:
    """Yield what is wrong with a `storage` section whose shape is right."""
    if not isinstance(storage, dict):
        return
    layout, config = storage.get("layout"), storage.get("config")
    if layout is None and config is None:
        words = "`storage` has neither `layout` nor `config`: the installer would mount no root."
        yield Problem(("storage",), words, "Add `layout: {name: direct}`.")
    if layout is not None and config is not None:
        words = "`layout` and `config` exclude each other; the installer silently takes `layout`."
        yield Problem(("storage", "config"), words, "Keep one.", key=True)
    if layout is not None:
        yield from _layout(layout, installer)
    size = storage.get("swap", {}).get("size", 0)
    if not (isinstance(size, int) and size >= 0) and not (isinstance(size, str) and SIZE.fullmatch(size)):
        words = f"{shown(size)} is no size."
        yield Problem(("storage", "swap", "size"), words, "Expected bytes, a size such as `2G`, or 0 for none.")
    if config is not None:
        yield from _config(config)


def _layout(layout: Mapping[str, Any], installer: Version) -> Iterator[Problem]:
    name = layout["name"]
    path: Path = ("storage", "layout")
    if installer < version(NEWER_LAYOUTS.get(name, "0")):
        words = f"This release's installer does not know the layout {shown(name)} and would do something else."
        yield Problem((*path, "name"), words, "Use `direct` or `lvm`.")
    if name != "lvm" and "sizing-policy" in layout:
        yield Problem((*path, "sizing-policy"), "`sizing-policy` goes only with `lvm`.", "Leave it out.", key=True)
    if isinstance(layout.get("match"), list) and installer < MATCHES:
        words = "This release's installer takes one `match`, not a list of them."
        yield Problem((*path, "match"), words, "Write it without the `- `, or use a newer point release.")
    match = layout.get("match")
    if isinstance(match, dict):
        yield from _disk_path(match.get("path"), (*path, "match", "path"))
    if "password" in layout or "pass" in layout:
        words = "An encrypted disk asks for its password at every boot: no image can be finished and proven like that."
        yield Problem((*path, "password" if "password" in layout else "pass"), words, "Leave it out.", key=True)
    if name == "lvm" and layout.get("sizing-policy") != "all":
        words = "On a disk of more than 12 GiB the root volume gets only half of it."
        yield Problem(path, words, "Give `sizing-policy: all`.", severity="warning")


def _disk_path(value: object, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and value != DISK:
        words = f"The disk of the machine that prebake installs in is {DISK}, not {shown(value)}."
        yield Problem(path, words, "Use `match: {size: largest}`, or leave it out.", severity="warning")


def _config(config: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    for number, action in enumerate(config):
        path: Path = ("storage", "config", number)
        if action["type"] not in KINDS:
            words = f"{shown(action['type'])} is no type of storage action."
            yield Problem((*path, "type"), words, advice(action["type"], KINDS))
        if action["type"] == "disk":
            yield from _disk_path(action.get("path"), (*path, "path"))
        if action["id"] in ids:
            yield Problem((*path, "id"), f"Two actions have the id {shown(action['id'])}.")
        ids[action["id"]] = number
        for key in POINTS:
            if isinstance(action.get(key), str) and action[key] not in ids:
                words = f"There is no action {shown(action[key])} before this one."
                yield Problem((*path, key), words, advice(action[key], ids) if ids else "")
    mounts = [action.get("path") for action in config if action["type"] == "mount"]
    if "/" not in mounts and not any(action["type"] in {"zpool", "zfs"} for action in config):
        yield Problem(("storage", "config"), "Nothing is mounted at `/`.", "Add a `mount` action.", key=True)
    if not any(action.get("grub_device") is True for action in config):
        words = "Nothing says where the boot loader goes: `grub_device: true` is missing."
        hint = "Under BIOS it belongs to the disk, under UEFI to the EFI system partition."
        yield Problem(("storage", "config"), words, hint, key=True)
