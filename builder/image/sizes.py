"""What takes the room in an image, directory by directory."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.image.session import Session

MOST = 25
"""How many directories are told."""
DEPTH = 2
UNIT = re.compile(r"unit=(\d{1,5})", re.ASCII)
ROW = re.compile(r"(\d{1,18})\t(/.*)", re.ASCII)


def measured(system: Session) -> dict[str, int]:
    """Return what `parse` makes of a running system; nothing where its ``du`` is missing or too slow.

    Raises StalledError if the shell no longer answers, MachineError if the machine ends.
    """
    seconds = system.limits.answer
    argv = ["sh", f"{system.scripts}/sizes.sh", str(int(seconds))]
    return parse(system.shell.run(shlex.join(argv), seconds=2 * seconds).output)


def parse(output: str) -> dict[str, int]:
    """Return the bytes by directory of ``sizes.sh``'s output, the largest first: `/` itself, then at most `MOST`.

    Lines of anything else are passed over. Without one for `/` the count did not end, and nothing is returned.
    """
    found: dict[str, int] = {}
    unit = 1
    for line in output.split("\n"):
        if match := UNIT.fullmatch(line):
            unit = int(match[1])
        elif match := ROW.fullmatch(line):
            found[match[2]] = int(match[1]) * unit
    whole = found.pop("/", None)
    if whole is None:
        return {}
    below = {path: size for path, size in found.items() if size and path.count("/") <= DEPTH}
    largest = sorted(below, key=lambda path: (-below[path], path))[:MOST]
    return {"/": whole, **{path: below[path] for path in largest}}
