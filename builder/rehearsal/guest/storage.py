"""Carries the storage actions out on the real disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .events import step
from .layout import Action, StorageError, check, guided, partition_script, size_of
from .run import run

if TYPE_CHECKING:
    from .answers import Answers

TARGET = Path("/target")
UEFI = Path("/sys/firmware/efi").exists()
SWAP_LIMIT = 1 << 30

Disk = dict[str, Any]


def disks() -> list[Disk]:
    """List the disks that can be installed to: not the medium, not CD-ROM drives, not loop devices."""
    tree = json.loads(run(["lsblk", "--json", "--bytes", "-o", "PATH,TYPE,SIZE,SERIAL,RO,MOUNTPOINTS"]))
    found = []
    for node in tree["blockdevices"]:
        mounted = str(node) + str(node.get("children", ""))
        if node["type"] == "disk" and not node["ro"] and "/cdrom" not in mounted and node["size"] > 0:
            found.append(node)
    return found


def pick(match: Disk) -> Disk:
    """Choose the disk a `match:` asks for."""
    known = disks()
    for key in ("path", "serial"):
        if key in match:
            known = [disk for disk in known if disk.get(key) == match[key]]
    known.sort(key=lambda disk: int(disk["size"]), reverse=match.get("size") != "smallest")
    if not known:
        raise StorageError(f"Failed to find matching device for {match}")
    return known[0]


def plan(answers: Answers) -> tuple[list[Action], dict[str, Disk]]:
    """Return the actions and, for each disk action's id, the disk it is about."""
    storage = answers.get("storage", {"layout": {"name": "lvm"}})
    if "layout" in storage:
        layout = storage["layout"]
        disk = pick(layout.get("match", {"size": "largest"}))
        actions = guided(layout, disk["path"], disk["size"], uefi=UEFI)
        chosen = {"disk-0": disk}
    else:
        actions = storage.get("config", [])
        chosen = {a["id"]: pick(_match_of(a)) for a in actions if a["type"] == "disk"}
    check(actions, uefi=UEFI)
    return actions, chosen


def _match_of(action: Action) -> Disk:
    named: Disk = {key: action[key] for key in ("path", "serial") if key in action}
    return named or dict(action.get("match", {"size": "largest"}))


class Executor:
    """Runs the actions in order and remembers which device each one became."""

    def __init__(self, actions: list[Action], chosen: dict[str, Disk], path: str) -> None:
        self.actions = actions
        self.chosen = chosen
        self.path = path
        self.devices: dict[str, str] = {}

    def run(self) -> None:
        """Partition, make file systems, mount; announce each action as curtin does."""
        with step(f"{self.path}/clear-holders", "removing previous storage devices"):
            for disk in self.chosen.values():
                run(["wipefs", "--all", "--force", disk["path"]])
        for action in self.actions:
            kind = action["type"]
            name = self.path if kind != "disk" else f"{self.path}/"
            with step(name, f"configuring {kind}: {action['id']}"):
                getattr(self, f"_{kind}")(action)

    def mounts(self) -> list[tuple[str, str, str]]:
        """Return (device, mount point, file system) in the order to mount them."""
        formats = {action["id"]: action for action in self.actions if action["type"] == "format"}
        rows = [
            (self.devices[formats[a["device"]]["volume"]], a["path"], formats[a["device"]]["fstype"])
            for a in self.actions
            if a["type"] == "mount"
        ]
        return sorted(rows, key=lambda row: row[1].count("/") + len(row[1]))

    def _disk(self, action: Action) -> None:
        disk = self.chosen[action["id"]]
        parts = [a for a in self.actions if a["type"] == "partition" and a["device"] == action["id"]]
        run(
            ["sfdisk", "--wipe=always", "--wipe-partitions=always", disk["path"]],
            partition_script(parts, int(disk["size"])),
        )
        run(["udevadm", "settle"])
        glue = "p" if disk["path"][-1].isdigit() else ""
        self.devices[action["id"]] = disk["path"]
        for number, part in enumerate(parts, 1):
            self.devices[part["id"]] = f"{disk['path']}{glue}{part.get('number', number)}"

    def _partition(self, action: Action) -> None:
        if not Path(self.devices[action["id"]]).exists():
            raise StorageError(f"partition {action['id']} did not appear")

    def _lvm_volgroup(self, action: Action) -> None:
        run(["vgcreate", "-y", action["name"], *(self.devices[name] for name in action["devices"])])
        self.devices[action["id"]] = action["name"]

    def _lvm_partition(self, action: Action) -> None:
        group = self.devices[action["volgroup"]]
        size = size_of(action.get("size", -1), 0)
        extent = ["-l", "100%FREE"] if size < 0 else ["-L", f"{size}b"]
        run(["lvcreate", "-y", "-W", "n", *extent, "-n", action["name"], group])
        self.devices[action["id"]] = f"/dev/{group}/{action['name']}"

    def _format(self, action: Action) -> None:
        device, kind = self.devices[action["volume"]], action["fstype"]
        label = str(action.get("label", ""))
        if kind in {"fat32", "vfat"}:
            run(["mkfs.vfat", "-F", "32", *(["-n", label] if label else []), device])
        else:
            run([f"mkfs.{kind}", "-q", "-F", *(["-L", label] if label else []), device])

    def _mount(self, action: Action) -> None:
        if action is not [each for each in self.actions if each["type"] == "mount"][-1]:
            return
        # All at once, the root first, whatever the order of the answers.
        for device, path, _kind in self.mounts():
            place = TARGET / path.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            run(["mount", device, str(place)])


def fstab(mounts: list[tuple[str, str, str]]) -> str:
    """Return /etc/fstab with file systems named by what stays the same on another bus."""
    lines = ["# /etc/fstab: static file system information."]
    for device, path, kind in mounts:
        if device.startswith("/dev/ubuntu-vg"):
            dm = run(["dmsetup", "info", "-c", "--noheadings", "-o", "uuid", device]).strip()
            name = f"/dev/disk/by-id/dm-uuid-{dm}"
        else:
            name = "/dev/disk/by-uuid/" + run(["blkid", "-s", "UUID", "-o", "value", device]).strip()
        vfat = kind in {"fat32", "vfat"}
        lines.append(f"{name} {path} {'vfat' if vfat else kind} defaults 0 1")
    return "\n".join(lines) + "\n"


def make_swap(answers: Answers) -> bool:
    """Make the default swap file unless the answers say `swap: {size: 0}`; return whether there is one."""
    wanted = answers.get("storage", {}).get("swap", {}).get("size")
    size = size_of(wanted, 0) if wanted is not None else SWAP_LIMIT // 4
    if size <= 0:
        return False
    path = TARGET / "swap.img"
    run(["fallocate", "-l", str(min(size, SWAP_LIMIT)), str(path)])
    path.chmod(0o600)
    run(["mkswap", str(path)])
    return True
