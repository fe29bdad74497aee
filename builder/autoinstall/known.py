"""Names that a target knows: keyboard layouts, locales, time zones, users that are there before anybody logs in.

Layouts and locales are those of xkeyboard-config and glibc as `scripts/known-values` found them, and what this
host's own packages know beyond; zones are tzdata's.
"""

from __future__ import annotations

import functools
import json
import zoneinfo
from pathlib import Path

from builder.resources import PACKAGE

TABLE = PACKAGE / "autoinstall/known.json"
HOSTS_LAYOUTS = Path("/usr/share/X11/xkb/rules/evdev.lst")
NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})
_PRESENT = """
root admin daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody adm tty disk kmem
dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff users nogroup input
systemd-network systemd-resolve systemd-timesync systemd-journal messagebus syslog kvm render crontab lxd sgx tss uuidd
tcpdump landscape pollinate sshd polkitd usbmux netdev _apt
"""
RESERVED = frozenset(_PRESENT.split())
"""Users and groups that a server has before anybody logs in."""


@functools.cache
def keyboards() -> dict[str, frozenset[str]]:
    """Return the variants by keyboard layout."""
    table: dict[str, list[str]] = json.loads(TABLE.read_text())["keyboards"]
    found = {layout: set(variants) for layout, variants in table.items()}
    section = ""
    for line in HOSTS_LAYOUTS.read_text().splitlines() if HOSTS_LAYOUTS.exists() else ():
        words = line.split(maxsplit=2)
        if words[:1] == ["!"]:
            section = words[1]
        elif section == "layout" and words and words[0] != "custom":
            found.setdefault(words[0], set())
        elif section == "variant" and len(words) > 1:
            found.setdefault(words[1].rstrip(":"), set()).add(words[0])
    return {layout: frozenset(variants) for layout, variants in found.items()}


@functools.cache
def locales() -> frozenset[str]:
    """Return the locales in UTF-8, by the names that locale-gen takes."""
    return frozenset(json.loads(TABLE.read_text())["locales"])


@functools.cache
def zones() -> frozenset[str]:
    """Return the time zones."""
    return frozenset(zoneinfo.available_timezones()) - NO_ZONES
