"""What is wanted: one machine, as an instructor would describe it. Values only; `builder.autoinstall` checks them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GIB = 1 << 30
PROXIES = ("proxy", "http_proxy", "https_proxy", "ftp_proxy")
"""Keys of autoinstall's `apt` that name a proxy."""


@dataclass(frozen=True)
class User:
    """Who can log in. Neither the password nor its hash is ever shown; an empty hash is made from the password."""

    name: str = "ubuntu"
    full_name: str = "Ubuntu"
    password: str = field(default="powercoders", repr=False)
    password_hash: str = field(default="", repr=False)


@dataclass(frozen=True)
class Snap:
    """A snap to install; an empty channel is the snap's default."""

    name: str
    channel: str = ""
    classic: bool = False


@dataclass(frozen=True)
class File:
    """A file to put on the target: from ``source`` on this host, or ``content`` if there is none.

    ``mode`` is the permission bits; an empty ``group`` is the owner's own.
    """

    path: str
    source: Path | None = None
    content: str = ""
    owner: str = "root"
    group: str = ""
    mode: int = 0o644


@dataclass(frozen=True)
class Content:
    """What a class adds to the installed system, in this order: packages, snaps, files, commands of root's."""

    packages: tuple[str, ...] = ()
    snaps: tuple[Snap, ...] = ()
    files: tuple[File, ...] = ()
    commands: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Say whether there is anything."""
        return bool(self.packages or self.snaps or self.files or self.commands)

    @property
    def fetches(self) -> bool:
        """Whether it takes the Internet."""
        return bool(self.packages or self.snaps)


@dataclass(frozen=True)
class Spec:
    """One machine. The defaults are the lesson's: user ubuntu, entire disk, English, no SSH server.

    ``disk`` and ``swap`` (0: none; None: not known) are in bytes, ``memory`` in MiB; ``source`` is "server" or
    "minimal"; ``storage`` is "direct" or "lvm"; ``firmware`` is what the machine is installed under, "bios" or "uefi",
    and with ``both`` it starts under the other as well, where the architecture has two;
    an empty ``timezone`` is the installer's own, UTC; ``updates`` is "security", "all" or "none".

    ``network`` says whether the installer reaches the Internet: "nat" (it must), "offline" (it gets an address, but
    no way out) or "auto" (if this host does). ``netplan`` is the target's network, by default DHCP on any ``e*``
    card; ``autoinstall`` holds further sections of the answers. ``whole_disk`` and ``ssh_server`` tell what the
    finished system has to be like. ``boots_online`` says that answers of the user's may fetch at the first boot.

    ``cloud_init`` is the finished system's policy, "off" or "nocloud" (it is on where there is a seed), or empty if it
    is not known; ``firmware_budget`` is how many bytes linux-firmware may take before its files are removed, None: any;
    ``may_fail`` are units that may fail.
    """

    name: str
    disk: int = 10 * GIB
    memory: int = 4096
    cpus: int = 2
    user: User = User()
    hostname: str = "ubuntu"
    locale: str = "en_US.UTF-8"
    keyboard: str = "us"
    keyboard_variant: str = ""
    timezone: str = ""
    source: str = "server"
    storage: str = "direct"
    swap: int | None = 0
    firmware: str = "bios"
    both: bool = True
    network: str = "nat"
    netplan: Mapping[str, Any] | None = None
    proxy: str = ""
    mirror: str = ""
    updates: str = "security"
    content: Content = Content()
    cloud_init: str = "off"
    firmware_budget: int | None = 256 << 20
    may_fail: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    autoinstall: Mapping[str, Any] = field(default_factory=dict)
    whole_disk: bool = True
    ssh_server: bool = False
    boots_online: bool = False

    @property
    def proxied(self) -> bool:
        """Whether a proxy is asked for, so that apt keeps it."""
        apt = self.autoinstall.get("apt")
        return bool(self.proxy) or (isinstance(apt, dict) and any(apt.get(key) for key in PROXIES))
