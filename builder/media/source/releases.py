"""What Ubuntu publishes, read from its own lists: nothing here knows a release by heart.

Sources: SHA256SUMS as `sha256sum` writes it; simplestreams products:1.0, as releases.ubuntu.com has it below
streams/v1/; the listing of a folder that a web server makes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.errors import MediumError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = re.compile(r"\d{1,4}\.\d{1,4}(?:\.\d{1,4})?", re.ASCII)
"""A version that `version_key` understands, and no number that is longer than any real one."""
LINE = re.compile(
    r"^(?P<sha256>[0-9a-f]{64}) [ *]"
    rf"(?P<name>ubuntu-(?P<version>{VERSION.pattern})-live-server-(?P<arch>\w+)\.iso)\r?$",
    re.MULTILINE | re.ASCII,
)
RELEASE = re.compile(r"\d\d\.\d\d(\.\d{1,4})?", re.ASCII)
WORDS = ("lts", "latest")
"""What may stand for a series: the newest with long-term support, and the newest of all."""
PLAIN = re.compile(r"[\x21-\x7e]{1,1000}")
"""A path that can be part of an address and of a message."""
LARGEST = 1 << 40
"""More bytes than any ISO has."""
DIGEST = re.compile(r"[0-9a-f]{64}")
FOLDER = re.compile(r"""href=["']?(?:[^"'>]*/)?(\d\d\.\d\d)(?:\.\d+)?/["']?""", re.IGNORECASE | re.ASCII)
DAILY = "daily"


@dataclass(frozen=True)
class Published:
    """One live-server ISO: ``version`` is like "24.04.3", ``sha256`` in hexadecimal digits."""

    version: str
    arch: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Listed:
    """The newest live-server ISO of a series, as a catalogue lists it; ``size`` in bytes, None if it is not told."""

    series: str
    version: str
    arch: str
    name: str
    codename: str = ""
    size: int | None = None
    sha256: str | None = None

    @property
    def title(self) -> str:
        """The version, and LTS if it is one."""
        return f"{self.version} LTS" if is_lts(self.series) else self.version


def version_key(version: str) -> tuple[int, ...]:
    """Return what orders versions by number: 24.04.10 comes after 24.04.9."""
    return tuple(int(part) for part in version.split("."))


def series_of(version: str) -> str:
    """Return the series of a point release: "24.04" of "24.04.3"."""
    return ".".join(version.split(".")[:2])


def is_pinned(release: str) -> bool:
    """Say whether ``release`` names one point release, as 24.04.3 does, and so means nothing newer."""
    return release.count(".") == 2  # noqa: PLR2004 - 24.04 has one, "lts" none


def is_lts(series: str) -> bool:
    """Say whether a series has long-term support: since 2006, those of April in even years."""
    year, month = version_key(series_of(series))
    return month == 4 and year % 2 == 0  # noqa: PLR2004 - April


def check_release(release: str) -> str:
    """Return ``release`` if it is a series, a point release, a code name or one of `WORDS`, else raise MediumError."""
    if RELEASE.fullmatch(release) or re.fullmatch(r"[a-z]+", release):
        return release
    raise MediumError(
        f"{release!r} is no release.", hint="Write 24.04 for its newest point release, 24.04.3, lts or latest."
    )


def published(sums: str) -> list[Published]:
    """Return the live-server ISOs that the text of a SHA256SUMS lists."""
    return [Published(one["version"], one["arch"], one["name"], one["sha256"]) for one in LINE.finditer(sums)]


def newest(sums: str, release: str, arch: str) -> Published:
    """Return the newest live-server ISO of ``release`` in the text of a SHA256SUMS.

    ``release`` is a series ("24.04") or a point release ("24.04.3"). Raises MediumError if there is none.
    """
    found = [
        one
        for one in published(sums)
        if one.arch == arch and (one.version == release or one.version.startswith(f"{release}."))
    ]
    if not found:
        raise MediumError(
            f"No live-server ISO of {release} for {arch} is published there.",
            hint="`prebake releases` shows what there is; --iso FILE takes an ISO you have.",
        )
    return max(found, key=lambda one: version_key(one.version))


def streams_in(index: bytes) -> list[str]:
    """Return the paths of the server products' files that a simplestreams index names, without daily builds.

    Raises MediumError if it is no index.
    """
    entries = _object(_object(_json(index, "index")).get("index"))
    named = [(name, _object(entry).get("path")) for name, entry in entries.items()]
    return [
        path
        for name, path in named
        if "ubuntu-server" in name and DAILY not in name and isinstance(path, str) and PLAIN.fullmatch(path)
    ]


def read_streams(data: bytes) -> list[Listed]:
    """Return the newest live-server ISO of each product in a simplestreams file.

    Raises MediumError if it is none.
    """
    products = _object(_object(_json(data, "products file")).get("products"))
    found = [listed for product in products.values() if (listed := _newest_of(_object(product)))]
    return sorted(found, key=lambda one: (version_key(one.series), one.arch))


def _newest_of(product: Mapping[str, Any]) -> Listed | None:
    best: Listed | None = None
    for items in _object(product.get("versions")).values():
        for item in _object(_object(items).get("items")).values():
            path, size, digest = (_object(item).get(key) for key in ("path", "size", "sha256"))
            match = LINE.match(f"{'0' * 64} *{str(path).rsplit('/', 1)[-1]}")
            if not match or (best and version_key(best.version) >= version_key(match["version"])):
                continue
            best = Listed(
                series=series_of(match["version"]),
                version=match["version"],
                arch=match["arch"],
                name=match["name"],
                codename=str(product.get("release", "")),
                size=size if isinstance(size, int) and 1 < size < LARGEST else None,  # `true` is 1
                sha256=digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else None,
            )
    return best


def folders(listing: str) -> list[str]:
    """Return the series that a web server's listing of a folder links to, oldest first."""
    return sorted(set(FOLDER.findall(listing)), key=version_key)


def choose(word: str, arch: str, listed: Iterable[Listed]) -> str:
    """Return the series that "lts", "latest" or a code name stands for. Raises MediumError if none does."""
    fitting = [
        one
        for one in listed
        if one.arch == arch and (word in {"latest", one.codename} or (word == "lts" and is_lts(one.series)))
    ]
    if not fitting:
        names = "series" if word in WORDS else "release"
        raise MediumError(
            f"No {names} called `{word}` is published for {arch}.", hint="`prebake releases` shows what there is."
        )
    return max(fitting, key=lambda one: version_key(one.series)).series


def _json(data: bytes, what: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MediumError(f"The catalogue's {what} is no JSON: {error}.") from error


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
