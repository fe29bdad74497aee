"""Shapes that values can have, and what to say of one that has another. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from builder.autoinstall.problems import Path, Problem, advice, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Shape(Protocol):
    """Something that a value can be."""

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong with the value at ``path``."""


def kind(value: object) -> str:
    """Return what a value is, in a word or two."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else shown(value)


def other(value: object, path: Path, expected: str, hint: str = "") -> Problem:
    """Return the problem of a value that has another shape than the ``expected`` one."""
    return Problem(path, f"`{dotted(path)}` is {kind(value)}; expected {expected}.", hint)


@dataclass(frozen=True)
class Anything:
    """Whatever it is, the installer passes it on."""

    def check(self, value: object, path: Path) -> Iterator[Problem]:  # noqa: ARG002 - a Shape
        """Yield nothing."""
        yield from ()


@dataclass(frozen=True)
class Text:
    """A text; one of ``choices``, if there are any. ``secret`` ones are not shown."""

    choices: tuple[str, ...] = ()
    secret: bool = False
    empty: bool = False

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong."""
        if value is None and self.empty:
            return
        if not isinstance(value, str):
            words = "not text" if self.secret else kind(value)
            hint = "Put it in quotes." if isinstance(value, (bool, int, float)) or value is None else ""
            yield Problem(path, f"`{dotted(path)}` is {words}; expected text.", hint)
        elif self.choices and value not in self.choices:
            yield Problem(path, f"{shown(value)} is no choice of `{dotted(path)}`.", advice(value, self.choices))


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong."""
        if not isinstance(value, bool):
            yield other(value, path, "`true` or `false`")


@dataclass(frozen=True)
class Items:
    """A list, all of one shape."""

    of: Shape
    noun: str = "a list, each item behind a `- `"

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong."""
        if not isinstance(value, list):
            yield other(value, path, self.noun)
            return
        for number, item in enumerate(value):
            yield from self.of.check(item, (*path, number))


@dataclass(frozen=True)
class Command:
    """One of the user's commands: a line of shell, or a list of words."""

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong."""
        words = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
        if not (isinstance(value, str) and value.strip()) and not words:
            hint = "Put a command that holds `: ` in quotes." if isinstance(value, dict) else ""
            yield other(value, path, "a command: text, or a list of words", hint)


@dataclass(frozen=True)
class Keys:
    """A mapping with ``known`` keys, of which some are ``required``; an ``open`` one may have others too.

    What stands where a ``secret`` one should be is not shown.
    """

    known: Mapping[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    open: bool = False
    secret: bool = False

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong."""
        if not isinstance(value, dict):
            shown_as = "no mapping" if self.secret else kind(value)
            yield Problem(path, f"`{dotted(path)}` is {shown_as}; expected keys with values below it.")
            return
        for key in self.required:
            if key not in value:
                yield Problem(path, f"`{dotted(path)}` has no `{key}`.")
        for key, inner in value.items():
            if key in self.known:
                yield from self.known[key].check(inner, (*path, key))
            elif not self.open:
                yield Problem(
                    (*path, key),
                    f"{shown(key)} is no key of `{dotted(path)}`; the installer would ignore it or fail.",
                    advice(key, self.known),
                    key=True,
                )


@dataclass(frozen=True)
class Either:
    """One of several shapes; ``noun`` says which."""

    shapes: tuple[Shape, ...]
    noun: str

    def check(self, value: object, path: Path) -> Iterator[Problem]:
        """Yield what is wrong."""
        found = [list(shape.check(value, path)) for shape in self.shapes]
        if all(found):
            like = [one for one in found if all(problem.path != path for problem in one)]
            if isinstance(value, dict) and any(isinstance(shape, Keys) for shape in self.shapes):
                like = like or [one for one, shape in zip(found, self.shapes, strict=True) if isinstance(shape, Keys)]
            yield from like[-1] if like else [other(value, path, self.noun)]
