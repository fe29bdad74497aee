"""Reads class files: one, and those it extends; every mistake with its place; and makes a machine of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from builder.autoinstall.located import Document, read
from builder.autoinstall.model import ClassFile
from builder.autoinstall.problems import Path, Place, Problem, advice, dotted, nearest, refuse, shown
from builder.autoinstall.shapes import kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

ADDED = ("packages", "snaps", "files", "run")
"""Lists that a class adds to those of the class it extends."""
TYPED = ("autoinstall", "network")
"""What is passed through as YAML has it."""
DEEPEST = 8
OPTIONS = {"user.name": "--user", "user.full-name": "--full-name", "keyboard.layout": "--keyboard"}
"""The command line's options for keys that stand within others."""
LARGEST_FILE = 1 << 30
"""Bytes of one file for the target."""
KINDS = {
    "string_type": "text",
    "list_type": "a list, as in `[one, two]`",
    "dict_type": "keys with values below it",
    "model_type": "keys with values below it",
    "model_attributes_type": "keys with values below it",
    "bool_parsing": "`true` or `false`",
    "bool_type": "`true` or `false`",
}
"""What was expected, by pydantic's kind of error."""


@dataclass(frozen=True)
class Class:
    """A class: what it says, and the documents it stands in, the class itself first, then what it extends."""

    path: FilePath
    model: ClassFile
    documents: tuple[Document, ...]

    @property
    def name(self) -> str:
        """What its image is called."""
        return self.model.name or self.path.stem

    def located(self, problem: Problem) -> Problem:
        """Return a problem of the machine or of its answers with its place: in the class, or in what it extends."""
        passed = ("autoinstall", *problem.path)
        for path in (passed, problem.path):
            for document in self.documents:
                if path in document.places:
                    return replace(problem, path=path, place=document.place(path, key=problem.key))
        return replace(problem, place=self.documents[0].place(problem.path))


def load(path: FilePath, overrides: Mapping[str, Any] | None = None) -> Class:
    """Read the class file at ``path`` with all it extends.

    ``overrides`` are values from the command line, by the class file's keys, which take the place of what is
    written. Raises AnswersError that lists every problem with file, line and column.
    """
    documents: list[Document] = []
    merged = _collect(path, documents, ())
    given = _overlaid(merged, overrides or {})
    model, problems = _validated(given)
    if model is None:
        refuse([_placed(one, documents, overrides or {}) for one in problems], f"`{path}`")
        raise AssertionError(problems)
    found = Class(path, model, tuple(documents))
    if model.name is None:
        _check_stem(found)
    return found


def plain(overrides: Mapping[str, Any]) -> ClassFile:
    """Return the class of the lesson with what the command line says. Raises AnswersError that names the option."""
    model, problems = _validated(overrides)
    if model is None:
        refuse([_placed(one, [], overrides) for one in problems], "The command line")
        raise AssertionError(problems)
    return model


def _check_stem(found: Class) -> None:
    try:
        ClassFile(name=found.path.stem)
    except ValidationError:
        place = Place(str(found.path), 1, 1)
        problem = Problem(
            ("name",), f"The file's name {shown(found.path.stem)} cannot name an image.", "Give a `name`.", place=place
        )
        refuse([problem], f"`{found.path}`")


def _collect(path: FilePath, documents: list[Document], chain: tuple[str, ...]) -> dict[str, Any]:
    """Read a class file and what it extends; return the merged values. Every file is checked by itself."""
    document = read(path)
    documents.append(document)
    written = document.written if document.written is not None else {}
    if not isinstance(written, dict):
        problem = Problem(
            (), f"A class file holds keys with values, as in `release: 24.04`; here stands {kind(written)}."
        )
        refuse([document.located(problem)], f"`{path}`")
    values: dict[str, Any] = dict(written)
    for key in TYPED:
        if isinstance(values.get(key), dict):
            values[key] = document.data[key]
    values = {key: value for key, value in values.items() if value is not None}
    problems = [document.located(one) for one in _validated(_alone(values))[1]]
    problems += [document.located(one) for one in _sources(values, path.parent)]
    refuse(problems, f"`{path}`")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    there = FilePath(os.path.normpath(path.parent / str(parent)))
    here = (*chain, os.path.realpath(path))
    trouble = hint = ""
    if "\0" in str(there) or not _is_file(there):
        trouble = f"There is no class file {shown(parent)} beside this one."
        hint = _beside(there)
    elif os.path.realpath(there) in here:
        trouble = f"The classes extend each other in a circle: {shown(parent)} leads back here."
    elif len(here) > DEEPEST:
        trouble = f"More than {DEEPEST} classes extend each other."
    if trouble:
        refuse([document.located(Problem(("extends",), trouble, hint))], f"`{path}`")
    base = _collect(there, documents, here)
    base.pop("name", None)
    return _merged(base, values)


def _alone(values: dict[str, Any]) -> dict[str, Any]:
    """Return what of a file can be checked by itself: a keyboard's variant may belong to the layout it inherits."""
    keyboard = values.get("keyboard")
    if "extends" not in values or not isinstance(keyboard, dict) or "layout" in keyboard:
        return values
    return {**values, "keyboard": {key: value for key, value in keyboard.items() if key != "variant"}}


def _sources(values: dict[str, Any], folder: FilePath) -> list[Problem]:
    """Make the sources of files absolute, and return what is wrong with them."""
    problems = []
    for number, one in enumerate(values.get("files") or [] if isinstance(values.get("files"), list) else []):
        if not isinstance(one, dict) or not isinstance(one.get("source"), str):
            continue
        path = folder / one["source"]
        where: Path = ("files", number, "source")
        if not _is_file(path):
            folder_ = os.path.isdir(path)  # noqa: PTH112 - takes any text
            what = "is a folder, not a file" if folder_ else "is not there"
            problems.append(
                Problem(where, f"The file {shown(one['source'])} {what}.", "" if folder_ else _beside(path))
            )
        elif not os.access(path, os.R_OK):
            problems.append(Problem(where, f"The file {shown(one['source'])} cannot be read.", "Look at its owner."))
        elif path.stat().st_size > LARGEST_FILE:
            problems.append(Problem(where, f"The file {shown(one['source'])} has more than {LARGEST_FILE >> 20} MiB."))
        one["source"] = str(path.absolute())
    return problems


def _is_file(path: FilePath) -> bool:
    """Say whether there is a file; no text is too long or too odd to ask."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _beside(path: FilePath) -> str:
    """Return the nearest name of what is there instead of a file."""
    try:
        return nearest(path.name, (each.name for each in path.parent.iterdir()))
    except (OSError, ValueError):
        return ""


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in more.items():
        old = found.get(key)
        if key in ADDED and isinstance(old, list) and isinstance(value, list):
            found[key] = old + [one for one in value if one not in old or key == "run"]
        elif isinstance(old, (dict, str)) and isinstance(value, dict) and key == "keyboard":
            found[key] = {**({"layout": old} if isinstance(old, str) else old), **value}
            if "layout" in value and "variant" not in value:
                found[key].pop("variant", None)
        elif isinstance(old, dict) and isinstance(value, dict) and key != "network":
            found[key] = {**old, **value}
            for one, other in (("password", "password-hash"), ("password-hash", "password")):
                if key == "user" and one in value and other not in value:
                    found[key].pop(other, None)  # one of the class's own goes before an inherited other
        else:
            found[key] = value
    return found


def _overlaid(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the command line over a class; a mapping's keys one by one."""
    found = dict(values)
    for key, value in overrides.items():
        old = found.get(key)
        old = {"layout": old} if key == "keyboard" and isinstance(old, str) and isinstance(value, dict) else old
        found[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def _validated(values: Mapping[str, Any]) -> tuple[ClassFile | None, list[Problem]]:
    try:
        return ClassFile.model_validate(values), []
    except ValidationError as error:
        return None, [_problem(one) for one in error.errors(include_url=False, include_context=True)]


def _problem(error: ErrorDetails) -> Problem:
    """Say one of pydantic's errors in our words; a secret's value is never said."""
    sort, path = error["type"], tuple(error["loc"])
    value = error["input"]
    secret = bool({"password", "password-hash"} & {str(part) for part in path})
    if sort == "extra_forbidden":
        known = _keys_at(path[:-1])
        return Problem(path, f"{shown(path[-1])} is no key of a class file.", advice(path[-1], known), key=True)
    if sort == "missing":
        return Problem(path[:-1], f"`{path[-1]}` is missing in `{dotted(path[:-1])}`.")
    if sort == "value_error":
        return Problem(path, str(error["ctx"]["error"]))
    if sort == "literal_error":
        known = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return Problem(path, f"{shown(value)} is no {_noun(path)}.", advice(value, known))
    if sort in KINDS:
        seen = "something else" if secret else kind(value)
        return Problem(path, f"`{dotted(path)}` is {seen}; expected {KINDS[sort]}.")
    return Problem(path, f"`{dotted(path)}`: {error['msg']}.")


def _noun(path: Path) -> str:
    words = {"arch": "architecture prebake builds for", "updates": "choice of updates", "exports": "format to export"}
    key = str(next(part for part in reversed(path) if isinstance(part, str)))
    return words.get(key, f"choice of `{key}`")


def _keys_at(path: Path) -> list[str]:
    """Return the keys that may stand at a place in a class file."""
    model: Any = ClassFile
    for part in path:
        if isinstance(part, int):
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        model = _model_in(fields[part].annotation)
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: Any) -> Any:  # noqa: ANN401 - what typing makes of it
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(one) for one in getattr(annotation, "__args__", ())]
    return next((one for one in inner if one is not None), None)


def _placed(problem: Problem, documents: list[Document], overrides: Mapping[str, Any]) -> Problem:
    """Give a problem of merged values its place: the option on the command line, or the file it stands in."""
    option = _option(problem.path, overrides)
    if option:
        return replace(problem, place=Place(option))
    for document in documents:
        if problem.path in document.places:
            return document.located(problem)
    return documents[0].located(problem) if documents else problem


def _option(path: Path, overrides: Mapping[str, Any]) -> str:
    """Return the option that brought the value at ``path``, if one did."""
    here: Any = overrides
    for part in path:
        if not isinstance(here, dict) or part not in here:
            break
        here = here[part]
    else:
        return OPTIONS.get(dotted(path), f"--{dotted(path)}") if path else ""
    first = str(path[0]) if path else ""
    return f"--{first}" if first in overrides and not isinstance(overrides[first], dict) else ""
