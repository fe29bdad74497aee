"""What Ubuntu's installer takes as answers: its sections, their keys, and since which version it knows them.

Sources: the autoinstall reference manual, and the schema in the repository of each version of subiquity; a test
compares this table with those schemas. Versions are subiquity's; `installer_of` tells which one a medium has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.autoinstall.shapes import Anything, Command, Either, Flag, Items, Keys, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.autoinstall.shapes import Shape

Version = tuple[int, ...]

INSTALLERS: Mapping[str, str] = {
    "22.04": "22.04.2",
    "22.04.1": "22.07.2",
    "22.04.2": "23.02.1",
    "22.04.3": "23.08.1",
    "22.04.4": "24.02.1",
    "22.04.5": "24.08.1",
    "24.04": "24.04.1",
    "24.04.1": "24.08.1",
}
"""The media whose installer is not named like the release. By the dates of its tags and of the media."""
CODE_NAMES: Mapping[str, str] = {
    "jammy": "22.04",
    "kinetic": "22.10",
    "lunar": "23.04",
    "mantic": "23.10",
    "noble": "24.04",
    "oracular": "24.10",
    "plucky": "25.04",
    "questing": "25.10",
}
"""Series that are older than the newest one with long-term support; others count as the newest."""
SERIES: Mapping[str, str] = {"22.04": "24.08.1"}
"""The installer on the last medium of a series that gets no more point releases."""
LAST = 99
NEWEST: Version = (9999,)

TEXTS = Items(Text())
COMMANDS = Items(Command(), "a list of commands, each behind a `- `")
NAMED = Keys(open=True)
NETPLAN = Keys(
    {
        "version": Anything(),
        "renderer": Text(("networkd", "NetworkManager")),
        **dict.fromkeys(
            ("ethernets", "wifis", "bonds", "bridges", "vlans", "tunnels", "vrfs", "modems", "nm-devices"), NAMED
        ),
        "dummy-devices": NAMED,
        "virtual-ethernets": NAMED,
        "openvswitch": NAMED,
    },
    required=("version",),
)
MIRROR = Either((Text(("country-mirror",)), Keys({"uri": Text(), "arches": TEXTS}, ("uri",))), "a mirror's `uri`")
APT = Keys(
    {
        "preserve_sources_list": Flag(),
        "primary": Items(Anything()),
        "security": Items(Anything()),
        "mirror-selection": Keys({"primary": Items(MIRROR)}),
        "geoip": Flag(),
        "fallback": Text(("abort", "continue-anyway", "offline-install")),
        "sources": NAMED,
        "sources_list": Text(),
        "disable_components": Items(Text(("universe", "multiverse", "restricted", "contrib", "non-free"))),
        "disable_suites": TEXTS,
        "preferences": Items(
            Keys({"package": Text(), "pin": Text(), "pin-priority": Anything()}, ("package", "pin", "pin-priority"))
        ),
        **{key: Text() for key in ("conf", "proxy", "http_proxy", "https_proxy", "ftp_proxy", "add_apt_repo_match")},
        "debconf_selections": Anything(),
    }
)
MATCH = Keys(
    {
        **{key: Anything() for key in ("model", "vendor", "path", "id_path", "devpath", "serial", "ssd")},
        "size": Anything(),
        "install-media": Flag(),
    }
)
STORAGE = Keys(
    {
        "version": Anything(),
        "layout": Keys(
            {
                "name": Text(("direct", "lvm", "zfs", "hybrid")),
                "match": Either((MATCH, Items(MATCH)), "what the disk has to be, as in `{size: largest}`"),
                "ptable": Text(("gpt", "msdos")),
                "mode": Text(("reformat_disk", "use_gap")),
                "password": Text(secret=True),
                "sizing-policy": Text(("scaled", "all")),
                "reset-partition": Anything(),
                "reset-partition-only": Flag(),
                "encrypted": Flag(),
                "pass": Text(secret=True),
            },
            ("name",),
        ),
        "config": Items(Keys({"id": Text(), "type": Text()}, ("id", "type"), open=True)),
        "swap": Keys({"size": Anything(), "filename": Text(), "maxsize": Anything(), "force": Flag()}),
        "grub": NAMED,
    }
)
SECTIONS: Mapping[str, Shape] = {
    "version": Anything(),
    "interactive-sections": TEXTS,
    "early-commands": COMMANDS,
    "late-commands": COMMANDS,
    "error-commands": COMMANDS,
    "locale": Text(),
    "refresh-installer": Keys({"update": Flag(), "channel": Text()}),
    "keyboard": Keys({"layout": Text(), "variant": Text(), "toggle": Text(empty=True)}, ("layout",)),
    "source": Keys({"id": Text(), "search_drivers": Flag()}),
    "network": Either((Keys({"network": NETPLAN}, ("network",)), NETPLAN), "a netplan configuration"),
    "proxy": Text(empty=True),
    "apt": APT,
    "storage": STORAGE,
    "identity": Keys(
        {
            "realname": Text(),
            "username": Text(),
            "hostname": Text(),
            "password": Text(secret=True),
            "groups": Either((TEXTS, Keys({"override": TEXTS, "append": TEXTS})), "a list of groups"),
        },
        ("username", "hostname", "password"),
        secret=True,
    ),
    "active-directory": Keys({"admin-name": Text(), "domain-name": Text()}),
    "ubuntu-pro": Keys({"token": Text(secret=True)}, secret=True),
    "ubuntu-advantage": Keys({"token": Text(secret=True)}, secret=True),
    "ssh": Keys({"install-server": Flag(), "authorized-keys": TEXTS, "allow-pw": Flag()}),
    "codecs": Keys({"install": Flag()}),
    "drivers": Keys({"install": Flag()}),
    "oem": Keys({"install": Either((Flag(), Text(("auto",))), "`true`, `false` or `auto`")}, ("install",)),
    "snaps": Items(Keys({"name": Text(), "channel": Text(), "classic": Flag()}, ("name",))),
    "debconf-selections": Text(),
    "packages": TEXTS,
    "kernel": Keys({"package": Text(), "flavor": Text()}),
    "kernel-crash-dumps": Keys({"enabled": Either((Flag(), Text(empty=True)), "`true` or `false`")}, ("enabled",)),
    "timezone": Text(),
    "updates": Text(("security", "all")),
    "shutdown": Text(("reboot", "poweroff")),
    "reporting": Keys(open=True),
    "user-data": Keys(open=True),
    "zdevs": Items(Keys({"id": Text(), "enabled": Flag()})),
}
SINCE: Mapping[tuple[str, ...], str] = {
    ("source",): "22.10.1",
    ("ubuntu-pro",): "22.10.1",
    ("codecs",): "23.04",
    ("active-directory",): "23.04",
    ("apt", "mirror-selection"): "23.04",
    ("apt", "fallback"): "23.04",
    ("storage", "layout", "sizing-policy"): "23.04",
    ("storage", "layout", "reset-partition"): "23.10",
    ("oem",): "23.10",
    ("kernel-crash-dumps",): "24.10",
    ("zdevs",): "25.04",
    ("identity", "groups"): "26.04",
}
"""Keys that older installers ignore without a word, or fail at."""


def installer_of(release: str | None) -> Version | None:
    """Return the version of the installer on the medium of a release ("24.04.3"), None if that is unknown.

    A release that is not known by heart has the installer of its own name.
    """
    if release is None:
        return None
    return version(INSTALLERS.get(release, release))


def requested(release: str) -> Version | None:
    """Return the version of the installer on the newest medium that a request ("24.04", "24.04.3", "noble") may get.

    None, for the newest of all, if the words do not tell.
    """
    release = CODE_NAMES.get(release, release)
    if release.count(".") > 1:
        return installer_of(release)
    if release in SERIES:
        return version(SERIES[release])
    return (*version(release), LAST) if release[:1].isdigit() else None


def version(text: str) -> Version:
    """Return a version's numbers: what is no number counts as zero."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))
