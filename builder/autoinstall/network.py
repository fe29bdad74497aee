"""What addresses and netplan configurations have to be; rules as in `builder.autoinstall.values`. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.autoinstall.problems import advice, nearest
from builder.autoinstall.values import refused

if TYPE_CHECKING:
    from collections.abc import Mapping

BEFORE_HOST = re.compile(r"[^/]*@")
CREDENTIALS = re.compile(r"//[^/@\s:]*(:(?P<password>[^/@\s]*))?@")
NETPLAN_DEVICES = frozenset(
    {"ethernets", "wifis", "bonds", "bridges", "vlans", "tunnels", "modems", "vrfs", "nm-devices", "dummy-devices"}
    | {"virtual-ethernets"}
)
ETHERNET = frozenset(
    [
        "accept-ra",
        "activation-mode",
        "addresses",
        "auth",
        "critical",
        "dhcp-identifier",
        "dhcp4",
        "dhcp4-overrides",
        "dhcp6",
        "dhcp6-overrides",
        "embedded-switch-mode",
        "emit-lldp",
        "gateway4",
        "gateway6",
        "ignore-carrier",
        "infiniband-mode",
        "ipv6-address-generation",
        "ipv6-address-token",
        "ipv6-mtu",
        "ipv6-privacy",
        "link-local",
        "macaddress",
        "match",
        "mtu",
        "nameservers",
        "networkmanager",
        "openvswitch",
        "optional",
        "optional-addresses",
        "ra-overrides",
        "renderer",
        "routes",
        "routing-policy",
        "set-name",
        "virtual-function-count",
        "wakeonlan",
    ]
)
"""Keys of a wired card. Source: netplan's YAML reference."""
NETPLAN = frozenset({"version", "renderer", "openvswitch"}) | NETPLAN_DEVICES
"""Top-level keys. Source: netplan's YAML reference."""


def url(value: str) -> str:
    """Check the address of a proxy or of a mirror."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        told = BEFORE_HOST.sub("", value)  # a name and a password may stand there
        raise refused(told, "is no address of a server", "Expected something like http://mirror.example:3142/ubuntu.")
    return value


def without_credentials(text: str) -> str:
    """Return a text without the names and passwords that addresses in it hold."""
    return CREDENTIALS.sub("//", text)


def credentials_in(text: str) -> list[str]:
    """Return the passwords that addresses in a text hold."""
    return [match["password"] for match in CREDENTIALS.finditer(text) if match["password"]]


def netplan(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check a netplan configuration's outline, and return it without a `network:` around it."""
    inner = value["network"] if set(value) == {"network"} else value
    if not isinstance(inner, dict):
        raise refused(inner, "is no netplan configuration", "Expected a mapping with `version: 2`.")
    wrong = next((key for key in inner if key not in NETPLAN), None)
    if wrong is not None:
        raise refused(wrong, "is no part of a netplan configuration", advice(wrong, NETPLAN))
    if inner.get("version") != 2:  # noqa: PLR2004 - netplan's own number
        raise ValueError("The netplan configuration needs `version: 2`.")
    for kind in NETPLAN_DEVICES & inner.keys():
        if not isinstance(inner[kind], dict) or not all(isinstance(one, dict) for one in inner[kind].values()):
            raise ValueError(f"`{kind}` has to hold names with mappings below them, as in `any: {{dhcp4: true}}`.")
    for card, said in inner.get("ethernets", {}).items():
        for key in said:
            near = nearest(key, ETHERNET) if key not in ETHERNET else ""
            if near:  # a key that netplan has learned since is no typo
                raise refused(key, f"is no key of netplan's for `{card}`", near)
    return inner
