"""Opens what somebody saved of a console."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.install.evidence import read_logs
from builder.install.explain import explain
from builder.install.guestlogs import GUEST, said
from builder.install.unwrap import NoConsoleError, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.install.verdict import Verdict

STDIN = Path("-")
_NAMES = ("console.log", "logs/console.log", "console.cast", "console.log.gz", "console.log.xz")
_PIECE = 1 << 18


def explain_saved(place: Path) -> Verdict:
    """Return the verdict on the console saved at ``place``: a file, a folder with a ``console.log``, or ``-``.

    The guest's own logs in such a folder say why, where the console does not.

    Raises UsageError if there is nothing to read, or what is there is no console.
    """
    name = "What came" if place == STDIN else str(place)
    try:
        words = said(read_logs(place / GUEST)) if place.is_dir() else []
        return explain(unwrap(_read(place)), words=words)
    except NoConsoleError as error:
        raise UsageError(f"{name} {error.what}.", hint=error.hint) from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}.") from error


def _read(place: Path) -> Iterator[bytes]:
    if place == STDIN:
        while piece := sys.stdin.buffer.read(_PIECE):
            yield piece
        return
    if place.is_dir():
        found = next((place / name for name in _NAMES if (place / name).is_file()), None)
        if found is None:
            raise NoConsoleError("holds no console.log", "Name the file, or a folder such as output/NAME.failed.")
        place = found
    with place.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
