"""md5sum.txt, the list the medium checks itself against while it boots."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PATH = "/md5sum.txt"
LINE = re.compile(rb"(?P<sum>[0-9a-f]{32})(?P<gap> [ *])\.(?P<path>/.*)")


def updated(text: bytes, files: Mapping[str, bytes], added: Collection[str]) -> bytes:
    """Return md5sum.txt after files changed.

    ``text`` is what it was, lines ``md5␠␠./path``; ``files`` has the contents of what changed, by absolute path;
    ``added`` names those that are new. A listed file's line is changed where it stands, a new file's line is
    appended, and what was left out on purpose stays out.
    """
    sums = {path.encode(): _sum(data) for path, data in files.items()}
    lines = []
    listed = set()
    for line in text.removesuffix(b"\n").split(b"\n") if text else ():
        match = LINE.fullmatch(line)
        if match and match["path"] in sums:
            listed.add(match["path"])
            lines.append(sums[match["path"]] + match["gap"] + b"." + match["path"])
        else:
            lines.append(line)
    missing = sorted(path.encode() for path in added if path != PATH and path.encode() not in listed)
    lines += [sums[path] + b"  ." + path for path in missing]
    return b"".join(line + b"\n" for line in lines)


def followed(text: bytes, path: str, old: bytes, new: bytes) -> bytes:
    """Return md5sum.txt after the contents of ``path`` went from ``old`` to ``new``.

    Only a line that was right for ``old`` follows; one that was wrong before, and a list without one, stay.
    """
    line = b"^" + _sum(old) + rb"(?= [ *]\." + re.escape(path.encode()) + b"$)"
    return re.sub(line, _sum(new), text, flags=re.MULTILINE)


def _sum(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()
