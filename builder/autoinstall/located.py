"""Reads YAML that a person wrote, and remembers where everything stands.

What is wrong in it is told with line and column: bytes that are no text, tabs, a key given twice, an alias that
multiplies itself. The values are those that PyYAML's safe loader makes, for that is what Ubuntu's installer and
cloud-init use: YAML 1.1, in which `no` is false and 22.10 is 22.1. So what was written is kept beside what it means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from builder.autoinstall.problems import Path, Place, Problem, shown
from builder.errors import AnswersError

if TYPE_CHECKING:
    from pathlib import Path as FilePath

LARGEST = 1 << 20
"""Bytes of a class file or an answer file; they have one or two thousand."""
MOST_NODES = 20_000
"""Values in one file, each alias counted as all that it stands for."""
DEEPEST = 50
MERGE = "tag:yaml.org,2002:merge"
STRING = "tag:yaml.org,2002:str"
QUOTED = frozenset("*&!@`%")
"""What a plain value may not begin with."""
QUOTES = "Put the value in quotes."
NAMED = re.compile(r" '(?!<)[^']{2,}'")
"""What PyYAML quotes of the file, but for its own names of tokens."""
BOM = "\ufeff"


@dataclass(frozen=True)
class Document:
    """What a file says.

    ``data`` is the value as PyYAML's safe loader has it; ``written`` the same with every unquoted scalar as the
    text that stands there, except null; ``places`` tells where each value, and ``keys`` where each key, begins.
    """

    name: str
    text: str
    data: Any
    written: Any
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return where the value (or the key) at ``path`` stands, or the nearest thing around it."""
        while path:
            found = (self.keys.get(path) if key else None) or self.places.get(path) or self.keys.get(path)
            if found:
                return found
            path, key = path[:-1], False
        return self.places.get((), Place(self.name, 1, 1))

    def located(self, problem: Problem, below: Path = ()) -> Problem:
        """Return the problem with its place; its path is one ``below`` that path in the document."""
        return replace(problem, place=self.place((*below, *problem.path), key=problem.key))


def read(path: FilePath) -> Document:
    """Read the file at ``path``.

    Raises AnswersError if it cannot be read or is no YAML.
    """
    try:
        if path.is_dir():
            raise AnswersError(f"`{path}` is a folder, not a file.")
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise AnswersError(f"There is no file `{path}`.", hint="Look at the path.") from None
    except (OSError, ValueError) as error:
        raise AnswersError(f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(raw) > LARGEST:
        raise AnswersError(f"`{path}` has more than {LARGEST >> 10} KiB; that is no class file and no answer file.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _refusal(
            Place(str(path), line, column),
            f"The byte 0x{raw[error.start]:02x} is no UTF-8 text.",
            "Save the file as UTF-8.",
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """Parse YAML. Raises AnswersError with line and column if it is none, or goes beyond the limits."""
    if text.startswith(BOM):
        text = text[1:]
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
        raise _refusal(where, f"This is no YAML: {_words(error)}.", _remedy(text, mark)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        where = Place(name, line, error.position - text.rfind("\n", 0, error.position))
        raise _refusal(
            where, f"This is no YAML: the character {ord(text[error.position]):#06x} is not allowed.", ""
        ) from error
    except yaml.YAMLError as error:
        raise _refusal(Place(name), f"This is no YAML: {str(error).splitlines()[0]}.", "") from error
    except RecursionError as error:
        raise _refusal(Place(name), "The values are nested too deeply.", "") from error
    document = Document(name, text, None, None)
    if node is None:
        return document
    reader = _Reader(document)
    written = reader.value(node, (), 0)
    return Document(name, text, reader.typed(node), written, document.places, document.keys)


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0
        self.loader = yaml.SafeLoader("")

    def place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(self.document.name, mark.line + 1, mark.column + 1)

    def value(self, node: yaml.Node, path: Path, depth: int) -> Any:  # noqa: ANN401 - what YAML holds
        """Return what is written at a node, and note where it and all below it stand."""
        self.nodes += 1
        self.document.places.setdefault(path, self.place(node))
        if self.nodes > MOST_NODES:
            raise _refusal(
                self.place(node), f"The file holds more than {MOST_NODES} values, aliases counted in full.", ""
            )
        if depth > DEEPEST:
            raise _refusal(self.place(node), f"The values are nested more than {DEEPEST} deep.", "")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, number), depth + 1) for number, child in enumerate(node.value)]
        return None if node.tag == "tag:yaml.org,2002:null" else node.value

    def mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, child in node.value:
            if key.tag == MERGE:
                for one in child.value if isinstance(child, yaml.SequenceNode) else [child]:
                    if isinstance(one, yaml.MappingNode):
                        merged = {**self.mapping(one, path, depth + 1), **merged}
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(self.place(key), "A key has to be a word.", "Is a template's `{{ … }}` left over?")
            name = key.value
            inner = (*path, name)
            if name in found:
                first = self.document.keys[inner]
                raise _refusal(
                    self.place(key), f"The key {shown(name)} stands here twice; first in line {first.line}.", ""
                )
            self.document.keys[inner] = self.place(key)
            self.document.places[inner] = self.place(child)
            found[name] = self.value(child, inner, depth + 1)
        return {**merged, **found}

    def typed(self, node: yaml.Node) -> Any:  # noqa: ANN401 - what YAML holds
        """Return what the node means to PyYAML's safe loader."""
        try:
            return self.loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = Place(self.document.name, mark.line + 1, mark.column + 1) if mark else Place(self.document.name)
            raise _refusal(where, f"This is no YAML: {_words(error)}.", QUOTES) from error
        except (ValueError, OverflowError, AttributeError, TypeError, RecursionError) as error:
            raise _refusal(self.place(node), "A value does not fit the tag before it.", QUOTES) from error


def _words(error: yaml.MarkedYAMLError) -> str:
    said = (error.problem or error.context or str(error)).strip()
    if said == "found character '\\t' that cannot start any token":
        return "there is a tab, where only blanks may indent"
    said = f"{error.context}, {said}" if error.context and error.problem else said
    return NAMED.sub("", said)  # what is named may be a password that lacks its quotes


def _remedy(text: str, mark: yaml.Mark | None) -> str:
    """Return a hint for a mistake that its line shows."""
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line:
        return "Use blanks instead of the tab."
    if "{{" in line or "{%" in line:
        return "Is a template's `{{ … }}` left over?"
    if mark and line[mark.column : mark.column + 1] in QUOTED:
        return QUOTES
    before = lines[mark.line - 1] if mark and 0 < mark.line <= len(lines) else ""
    if line.count(": ") > 1 or before.count(": ") > 1:
        return "Put a value that holds `: ` in quotes."
    return ""


def _refusal(place: Place, message: str, hint: str) -> AnswersError:
    problem = Problem((), message, hint, place=place)
    return AnswersError(str(problem), problems=[problem])
