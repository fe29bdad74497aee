"""What is wanted: one machine, as an instructor would describe it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from builder.errors import AnswersError

GIB = 1 << 30
SMALLEST_DISK = 4 * GIB
USERNAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
HOSTNAME = re.compile(r"(?=.{1,63}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*")
LOCALE = re.compile(r"[A-Za-z]+(_[A-Z]+)?(\.[A-Za-z0-9-]+)?(@[a-z]+)?")
ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LONGEST_PASSWORD = 128
_PRESENT = """
root admin daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody adm tty disk kmem
dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff users nogroup input
systemd-network systemd-resolve systemd-timesync systemd-journal messagebus syslog kvm render crontab lxd sgx tss uuidd
tcpdump landscape pollinate sshd polkitd usbmux netdev _apt
"""
RESERVED = frozenset(_PRESENT.split())
"""Users and groups that a server has before anybody logs in."""


@dataclass(frozen=True)
class User:
    """Who can log in. The password is never shown."""

    name: str = "ubuntu"
    full_name: str = "Ubuntu"
    password: str = field(default="powercoders", repr=False)


@dataclass(frozen=True)
class Spec:
    """One machine. The defaults are the lesson's: user ubuntu, entire disk, English, no SSH server.

    ``disk`` is in bytes, ``memory`` in MiB; ``storage`` is "direct" or "lvm"; ``firmware`` is what the
    machine is installed under, "bios" or "uefi"; an empty ``timezone`` is the installer's own, UTC;
    ``network`` is "nat" (the installer reaches the Internet) or "offline" (an address, but no way out).
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
    source: str = "ubuntu-server"
    storage: str = "direct"
    firmware: str = "bios"
    network: str = "nat"


def check(spec: Spec) -> None:
    """Refuse a machine that cannot be, before anything starts.

    Raises AnswersError that names what is wrong and what was expected.
    """
    rules = (
        ("name", spec.name, NAME, "letters, digits, dots, dashes and underscores"),
        ("user name", spec.user.name, USERNAME, "lower-case letters, digits, dashes; a letter first; at most 32"),
        ("host name", spec.hostname, HOSTNAME, "letters, digits and dashes, at most 63"),
        ("locale", spec.locale, LOCALE, "something like en_US.UTF-8"),
        ("time zone", spec.timezone or "UTC", ZONE, "something like Europe/Zurich"),
    )
    for what, value, pattern, expected in rules:
        if not pattern.fullmatch(value):
            raise AnswersError(f"The {what} {value!r} cannot be used.", hint=f"Expected: {expected}.")
    if spec.user.name in RESERVED:
        raise AnswersError(
            f"The user name {spec.user.name!r} is reserved by the system.", hint="Choose another, such as ubuntu."
        )
    if not spec.user.full_name.isprintable() or ":" in spec.user.full_name:
        raise AnswersError(
            f"The full name {spec.user.full_name!r} cannot be used.", hint="Expected: one line without a colon."
        )
    if not spec.user.password.isprintable() or len(spec.user.password) > LONGEST_PASSWORD:
        raise AnswersError(
            "The password cannot be typed at a console.",
            hint=f"Expected: printable characters on one line, at most {LONGEST_PASSWORD}.",
        )
    if not spec.user.password:
        raise AnswersError("The password is empty.", hint="Nobody could log in at the console. Give one.")
    if spec.disk < SMALLEST_DISK:
        raise AnswersError(
            f"A disk of {spec.disk / GIB:.1f} GiB is too small for the server.",
            hint=f"Give at least {SMALLEST_DISK // GIB}G, better 10G.",
        )
    for what, value, known in (
        ("storage layout", spec.storage, ("direct", "lvm")),
        ("firmware", spec.firmware, ("bios", "uefi")),
        ("network", spec.network, ("nat", "offline")),
    ):
        if value not in known:
            raise AnswersError(f"The {what} {value!r} is not known.", hint=f"Expected: {' or '.join(known)}.")
