"""What is wrong with a class file or an answer file: where, what was expected, the nearest right word. Pure."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from builder.errors import AnswersError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Path = tuple[str | int, ...]
"""Where a value is in a document: keys and positions in lists, from the top."""
Severity = Literal["error", "warning"]
NEAR = 0.6
"""How alike two words have to be (difflib's ratio) for one to be offered for the other."""
MOST_SHOWN = 8


@dataclass(frozen=True)
class Place:
    """A place in a file, lines and columns from 1; a value that came from the command line has no line."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return it as compilers write it, which editors follow."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or (``severity`` "warning") one that will surprise.

    ``path`` is where in the document, ``key`` says that the key there is meant and not its value; ``place`` is where
    in a file, once that is known.
    """

    path: Path
    message: str
    hint: str = ""
    severity: Severity = "error"
    place: Place | None = None
    key: bool = False

    def __str__(self) -> str:
        """Return it on one line."""
        where = f"{self.place}: " if self.place else f"{dotted(self.path)}: " if self.path else ""
        return f"{where}{self.message}{' ' + self.hint if self.hint else ''}"

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        place = asdict(self.place) if self.place else None
        return {
            "path": dotted(self.path),
            "message": self.message,
            "hint": self.hint,
            "severity": self.severity,
            "place": place,
        }


def dotted(path: Sequence[str | int]) -> str:
    """Return a path as people write it: `files[1].owner`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(word: object, known: Iterable[str]) -> str:
    """Return a sentence that offers the nearest of the ``known`` words, or an empty one if none is near."""
    words = {one.lower(): one for one in known}
    found = difflib.get_close_matches(str(word).lower(), words, n=1, cutoff=NEAR)
    return f"Did you mean `{words[found[0]]}`?" if found else ""


def expected(known: Iterable[str]) -> str:
    """Return a sentence that lists what was expected, shortened if it is long."""
    words = sorted(known)
    listed = [f"`{word}`" for word in words[:MOST_SHOWN]]
    if len(words) > MOST_SHOWN:
        return f"Expected: {', '.join(listed)} or one of {len(words) - MOST_SHOWN} more."
    return f"Expected: {' or '.join([', '.join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)}."


def advice(word: object, known: Iterable[str]) -> str:
    """Return the nearest right word, or what was expected if none is near."""
    words = list(known)
    return nearest(word, words) or expected(words)


def shown(value: object, most: int = 60) -> str:
    """Return a value that a person wrote, on one short line."""
    text = value if isinstance(value, str) else repr(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return f"`{text if len(text) <= most else text[:most] + '…'}`"


def refuse(problems: Sequence[Problem], what: str) -> None:
    """Raise AnswersError that lists the errors among ``problems``, if there are any; ``what`` names the file."""
    errors = [one for one in problems if one.severity == "error"]
    if not errors:
        return
    if len(errors) == 1:
        raise AnswersError(str(errors[0]), problems=errors)
    errors.sort(key=lambda one: (one.place.file, one.place.line, one.place.column) if one.place else ("", 0, 0))
    listed = "\n".join(f"    {one}" for one in errors)
    raise AnswersError(f"{what} has {len(errors)} problems:\n{listed}", problems=errors)
