"""The catalogue: which series there are, and the newest point release of each.

It comes from the simplestreams of a server, or from the listing of its folders and their SHA256SUMS where there
are none. It only says what to ask for: what is fetched is proven by its signature, whatever the catalogue says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import MediumError
from builder.events import Note
from builder.media.source.releases import Listed, folders, newest, read_streams, streams_in, version_key
from builder.media.source.web import NotThere, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.media.source.web import Web

INDEX = "streams/v1/index.json"
RELEASES = {"amd64": "https://releases.ubuntu.com"}
OTHERS = "https://cdimage.ubuntu.com/releases"
OLD = "https://old-releases.ubuntu.com/releases"


def servers(arch: str, mirrors: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses to ask, best first: the mirrors if any are given, else Ubuntu's own."""
    if mirrors:
        return tuple(mirror.rstrip("/") for mirror in mirrors)
    return (RELEASES.get(arch, OTHERS), OLD)


def places(server: str, arch: str, release: str) -> list[str]:
    """Return where a server may have ``release``, a series or point release: folders, likeliest first.

    A mirror's address may name the place itself with `{release}`, or be that of the folder with SHA256SUMS.
    """
    if "{release}" in server:
        return [server.replace("{release}", release)]
    plain, deep = f"{server}/{release}", f"{server}/{release}/release"
    near = [plain, deep] if arch == "amd64" else [deep, plain]
    if server in {*RELEASES.values(), OTHERS, OLD}:
        return near
    return [*near, f"{server}/releases/{release}", f"{server}/releases/{release}/release", server]


def catalogue(server: str, arch: str, web: Web) -> list[Listed]:
    """Return the newest live-server ISO of each series that a server has for ``arch``, oldest series first.

    Raises Unreachable if it does not answer and NotThere if it shows neither streams nor folders.
    """
    root = server.split("{release}", maxsplit=1)[0].rstrip("/")
    try:
        found = _streams(root, arch, web)
    except NotThere as error:
        web.report(Note(f"{error.message} Looking at the folders instead.", "debug"))
        found = []
    return found or _listing(server, root, arch, web)


def _streams(root: str, arch: str, web: Web) -> list[Listed]:
    try:
        index = web.get(f"{root}/{INDEX}")
    except NotThere:
        if not root.endswith("/releases"):
            raise
        root = root.removesuffix("/releases")
        index = web.get(f"{root}/{INDEX}")
    best: dict[str, Listed] = {}
    try:
        for path in streams_in(index):
            for one in read_streams(web.get(f"{root}/{path}")):
                old = best.get(one.series)
                if one.arch == arch and (not old or version_key(one.version) > version_key(old.version)):
                    best[one.series] = one
    except (NotThere, Unreachable):
        raise
    except MediumError as error:
        raise NotThere(f"{root}: {error.message}") from error
    return sorted(best.values(), key=lambda one: version_key(one.series))


def _listing(server: str, root: str, arch: str, web: Web) -> list[Listed]:
    page = web.get(f"{root}/").decode("utf-8", "replace")
    found = []
    for series in folders(page):
        for place in places(server, arch, series)[:2]:
            try:
                one = newest(web.get(f"{place}/SHA256SUMS").decode("utf-8", "replace"), series, arch)
            except Unreachable:
                raise
            except MediumError:
                continue
            size = web.size(f"{place}/{one.name}")
            found.append(Listed(series, one.version, arch, one.name, "", size, one.sha256))
            break
    if not found:
        raise NotThere(
            f"{root} shows no live-server ISOs for {arch}.", hint="Is it a mirror of releases.ubuntu.com (--mirror)?"
        )
    return found
