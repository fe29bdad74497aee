"""What single values have to be. Each rule returns the value, or raises ValueError that says what was expected. Pure.

The class file's model, the command line and the check of answer files all use these.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.autoinstall import known
from builder.autoinstall.problems import advice, nearest, shown
from builder.errors import UsageError
from builder.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable

GIB = 1 << 30
SMALLEST_DISK = 4 * GIB
LARGEST_DISK = 64 << 40
SMALLEST_SWAP = 16 << 20
BARE = 10_000
"""Below it a number without a unit is meant in GiB, whatever it says."""
LONGEST_PASSWORD = 128
USERNAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
HOSTNAME = re.compile(r"(?=.{1,63}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RELEASE = re.compile(r"\d\d\.(04|10)(\.\d{1,2})?|[a-z]{3,20}")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(\^|(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+|/[a-z0-9-]+)?)")
"""Debian policy 5.6.1; apt's ways to name a task, an architecture, a version or a suite."""
LONGEST_PATH = 1000
OLDEST = (22, 4)
"""The first series whose media prebake can change."""
SNAP = re.compile(r"(?=.{2,40}$)(?!-)(?!.*--)[a-z0-9-]*[a-z][a-z0-9-]*(?<!-)(_[a-z0-9]{1,10})?")
CHANNEL = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}")
MODE = re.compile(r"0?[0-7]{3,4}")
OWNER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}|\d{1,10}")
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,200}")
HASHES = {
    "yescrypt": re.compile(r"\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{0,86}\$[./A-Za-z0-9]{43}"),
    "gost-yescrypt": re.compile(r"\$gy\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{0,86}\$[./A-Za-z0-9]{43}"),
    "scrypt": re.compile(r"\$7\$[./A-Za-z0-9]{11,97}\$[./A-Za-z0-9]{43}"),
    "bcrypt": re.compile(r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}"),
    "sha512crypt": re.compile(r"\$6\$(rounds=[1-9][0-9]+\$)?[^$:\n]{1,16}\$[./0-9A-Za-z]{86}"),
    "sha256crypt": re.compile(r"\$5\$(rounds=[1-9][0-9]+\$)?[^$:\n]{1,16}\$[./0-9A-Za-z]{43}"),
    "sha1crypt": re.compile(r"\$sha1\$[1-9][0-9]+\$[./0-9A-Za-z]{1,64}\$[./0-9A-Za-z]{8,64}[./0-9A-Za-z]{32}"),
    "SunMD5": re.compile(r"\$md5(,rounds=[1-9][0-9]+)?\$[./0-9A-Za-z]{8}\${1,2}[./0-9A-Za-z]{22}"),
    "md5crypt": re.compile(r"\$1\$[^$:\n]{1,8}\$[./0-9A-Za-z]{22}"),
}
"""What Ubuntu's crypt(3) takes, but for forms that cannot be told from plain text. Source: crypt(5) of libxcrypt."""


def refused(value: object, what: str, hint: str) -> ValueError:
    """Return the error for a value: what it is not, and what was expected."""
    return ValueError(f"{shown(value)} {what}. {hint}".rstrip())


def name(value: str) -> str:
    """Check the image's name, which names files."""
    if not NAME.fullmatch(value):
        raise refused(value, "cannot name an image", "Expected: letters, digits, dots, dashes and underscores.")
    return value


def release(value: str) -> str:
    """Check the words that name a release; which ones there are only the servers know."""
    if re.fullmatch(r"\d\d\.\d", value):
        raise refused(value, "is no Ubuntu release", f"Did you mean `{value}0` or `{value[:-1]}04`?")
    if not RELEASE.fullmatch(value):
        raise refused(value, "is no Ubuntu release", "Expected: 24.04, 24.04.3, noble, lts or latest.")
    if value[0].isdigit() and tuple(int(part) for part in value.split(".")[:2]) < OLDEST:
        raise refused(value, "is a release too old for prebake", "Expected: 22.04 or newer.")
    return value


def username(value: str) -> str:
    """Check a login name."""
    if not USERNAME.fullmatch(value):
        raise refused(value, "is no user name", "Expected: lower-case letters, digits and dashes, a letter first.")
    if value in known.RESERVED:
        raise refused(value, "is a user name that the system reserves", "Choose another, such as `ubuntu`.")
    return value


def full_name(value: str) -> str:
    """Check a person's name, which goes into /etc/passwd."""
    if not value.isprintable() or ":" in value:
        raise refused(value, "cannot be a full name", "Expected: one line without a colon.")
    return value


def password(value: str) -> str:
    """Check a password, of which nothing is shown."""
    if not value:
        raise ValueError(
            "The password is empty: nobody could log in at the console. In YAML, one that holds `#`, `&`, `*` or `!` "
            "goes into quotes."
        )
    if not value.isprintable() or len(value) > LONGEST_PASSWORD:
        raise ValueError(
            f"The password cannot be typed at a console. Expected: printable characters on one line, "
            f"at most {LONGEST_PASSWORD}."
        )
    return value


def password_hash(value: str) -> str:
    """Check that a password is hashed, in a way the target takes; of what is none, nothing is shown."""
    if any(pattern.fullmatch(value) for pattern in HASHES.values()):
        return value
    hint = "Make one with `mkpasswd -m sha-512` or `openssl passwd -6`."
    if value.startswith("$"):
        raise ValueError(f"The password's hash is incomplete or of an unknown kind. {hint}")
    raise ValueError(f"This is no password hash but plain text, and nobody could log in with it. {hint}")


def hostname(value: str) -> str:
    """Check the machine's name."""
    if not HOSTNAME.fullmatch(value):
        raise refused(value, "is no host name", "Expected: letters, digits and dashes, at most 63.")
    return value


def locale(value: str) -> str:
    """Check a locale."""
    if value not in known.locales():
        full = f"{value.partition('.')[0]}.UTF-8"
        hint = f"Did you mean `{full}`?" if full in known.locales() else _like(value, known.locales(), "en_US.UTF-8")
        raise refused(value, "is no locale that Ubuntu has in UTF-8", hint)
    return value


def keyboard(value: str) -> str:
    """Check a keyboard layout, or several with commas between, as X has them."""
    for one in value.split(","):
        if one not in known.keyboards():
            raise refused(one, "is no keyboard layout", _like(one, known.keyboards(), "us, gb, de, ch or fr"))
    return value


def variant(layout: str, value: str) -> str:
    """Check a variant of a keyboard layout, or one for each of several; an empty one is the layout itself."""
    for layout_, one in zip(layout.split(","), value.split(","), strict=False):
        variants = known.keyboards().get(layout_, frozenset())
        if one and one not in variants:
            hint = advice(one, variants) if variants else "It has none."
            raise refused(one, f"is no variant of the keyboard layout `{layout_}`", hint)
    if value.count(",") > layout.count(","):
        raise refused(value, f"has more variants than `{layout}` has layouts", "Expected one for each, or none.")
    return value


def timezone(value: str) -> str:
    """Check a time zone."""
    if value not in known.zones():
        raise refused(value, "is no time zone", _zone_hint(value))
    return value


def _like(value: str, words: Iterable[str], examples: str) -> str:
    return nearest(value, words) or f"Expected something like {examples}."


def _zone_hint(value: str) -> str:
    cities = {zone.rpartition("/")[2]: zone for zone in known.zones()}
    wanted = value.rpartition("/")[2].replace(" ", "_")
    for city, zone in cities.items():
        if city.lower() == wanted.lower():
            return f"Did you mean `{zone}`?"
    near = nearest(wanted, cities)
    if near and not nearest(value, known.zones()):
        return f"Did you mean `{cities[near.split('`')[1]]}`?"
    return _like(value, known.zones(), "Europe/Zurich")


def size(value: str) -> int:
    """Return a size in bytes: "10G" is 10 GiB, a number alone is bytes."""
    try:
        return parse_size(value)
    except UsageError as error:
        raise ValueError(f"{error.message} {error.hint}") from None


def disk(value: str) -> int:
    """Return a disk's size in bytes."""
    bare = value.strip().isdigit() and int(value) < BARE
    found = int(value) if bare else size(value)
    if found < SMALLEST_DISK:
        unit = f" Did you mean `{value.strip()}G`?" if bare else ""
        raise ValueError(
            f"A disk of {_gib(found)} is too small for the server. Expected: at least {_gib(SMALLEST_DISK)}, "
            f"better 10G.{unit}"
        )
    if found > LARGEST_DISK or found % 512:
        raise refused(value, "cannot be a disk's size", "Expected: whole blocks of 512 bytes, at most 64T.")
    return found


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB // 16 else f"{count} bytes"


def swap(value: str) -> int:
    """Return the size of a swap file in bytes, 0 for none."""
    if value.strip().lower() in {"none", "no", "off", "false", "0"}:
        return 0
    found = int(value) if value.strip().isdigit() else size(value)
    if found < SMALLEST_SWAP:
        unit = f" Did you mean `{value.strip()}M`?" if value.strip().isdigit() else ""
        raise ValueError(f"A swap file of {found} bytes is too small. Expected: a size such as `2G`, or `none`.{unit}")
    return found


def firmware_budget(value: str) -> int | None:
    """Return how many bytes of firmware may stay: None for any, 0 for none."""
    if value.strip().lower() in {"keep", "remove"}:
        return None if value.strip().lower() == "keep" else 0
    try:
        return size(value)
    except ValueError:
        raise refused(value, "says nothing of firmware", "Expected: `keep`, `remove`, or a size as `256M`.") from None


def unit(value: str) -> str:
    """Check the name of a systemd unit."""
    if not UNIT.fullmatch(value):
        raise refused(value, "is no name of a unit", "Expected something like `nginx.service`.")
    return value


def package(value: str) -> str:
    """Check the name of a Debian package, which may name an architecture, a version or a suite."""
    if not PACKAGE.fullmatch(value):
        raise refused(
            value, "is no name of a package", "Expected: one name in lower case, such as `git` or `nginx=1.24.0-2`."
        )
    return value


def snap(value: str) -> str:
    """Check the name of a snap."""
    if not SNAP.fullmatch(value):
        raise refused(value, "is no name of a snap", "Expected: lower-case letters, digits and dashes.")
    return value


def channel(value: str) -> str:
    """Check a snap's channel."""
    if not CHANNEL.fullmatch(value):
        raise refused(value, "is no snap channel", "Expected something like `latest/stable` or `8.0/edge`.")
    return value


def guest_path(value: str) -> str:
    """Check where a file goes on the target."""
    parts = value.split("/")[1:]
    if (
        len(value) > LONGEST_PATH
        or not value.startswith("/")
        or any(part in {"", ".", ".."} or not part.isprintable() for part in parts)
    ):
        raise refused(value, "is no place for a file", "Expected an absolute path such as `/home/ubuntu/notes.txt`.")
    return value


def mode(value: str) -> int:
    """Return a file's mode, written in octal digits."""
    if not MODE.fullmatch(value):
        raise refused(value, "is no file mode", "Expected three or four octal digits, as in `0644`.")
    return int(value, 8)


def owner(value: str) -> str:
    """Check a user or a group that is to own a file."""
    if not OWNER.fullmatch(value):
        raise refused(value, "is no user and no group", "Expected something like `ubuntu` or `root`.")
    return value


def command(value: str) -> str:
    """Check a command, which is a line or a script of shell."""
    if not value.strip() or "\0" in value:
        raise ValueError("The command is empty. Expected a line of shell.")
    return value
