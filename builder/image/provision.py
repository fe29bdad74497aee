"""Puts a class's content on a running system: packages, snaps, files, commands, one step after the other."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import InstallError
from builder.events import Phase
from builder.image.facts import Check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.events import Reporter
    from builder.image.session import Session
    from builder.spec import Content

FOLDER = "class"
"""The folder in the payload that holds a class's files and commands."""
PACKAGES = "packages.txt"
PLACE = "/var/tmp/prebake-class"  # noqa: S108 - root's own, mode 0700, on the guest
TAIL = 20
SHOWN = 60


@dataclass(frozen=True)
class Step:
    """One step: its title for people, and what runs as root."""

    title: str
    argv: tuple[str, ...]


def lists(content: Content) -> Iterator[tuple[str, bytes]]:
    """Yield what lies beside our scripts: a terminal takes no line of more than 4095 characters."""
    if content.packages:
        yield PACKAGES, "".join(f"{one}\n" for one in content.packages).encode()


def members(content: Content) -> Iterator[tuple[str, Path | bytes]]:
    """Yield what of a class travels to the guest: names in the payload, and a file of this host or bytes."""
    yield from lists(content)
    for number, file in enumerate(content.files):
        yield f"{FOLDER}/file-{number}", file.source or file.content.encode()
    for number, text in enumerate(content.commands):
        yield f"{FOLDER}/command-{number}", text.rstrip("\n").encode() + b"\n"


def steps(content: Content, scripts: str) -> Iterator[Step]:
    """Yield the steps in order; ``scripts`` is where our own scripts are on the guest."""
    if content.packages:
        title = f"Installing packages: {_short(' '.join(content.packages))}"
        yield Step(title, ("sh", f"{scripts}/packages.sh", f"{scripts}/{PACKAGES}"))
    for snap in content.snaps:
        words = [*([f"--channel={snap.channel}"] if snap.channel else []), *(["--classic"] if snap.classic else [])]
        yield Step(f"Installing the snap {snap.name}", ("sh", f"{scripts}/snap.sh", snap.name, *words))
    for number, file in enumerate(content.files):
        argv = ("sh", f"{scripts}/place.sh", f"{PLACE}/{FOLDER}/file-{number}", file.path, file.owner, file.group)
        yield Step(f"Placing {file.path}", (*argv, f"{file.mode:04o}"))
    for number, text in enumerate(content.commands):
        yield Step(f"Running {_short(text)}", ("sh", f"{scripts}/command.sh", f"{PLACE}/{FOLDER}/command-{number}"))


def provision(system: Session, content: Content, device: str, report: Reporter) -> None:
    """Carry out all steps on a running system; what they say is on the console.

    Raises InstallError that names the step that failed, its exit code and its last words.
    """
    system.shell.must(["mkdir", "-m", "0700", "-p", PLACE], seconds=system.limits.answer)
    if content.files or content.commands:
        system.shell.must(["tar", "-xf", device, "-C", PLACE, FOLDER], seconds=system.limits.boot)
    todo = list(steps(content, system.scripts))
    for number, step in enumerate(todo):
        report(Phase(f"class-{number + 1}", step.title, 0.65 + 0.15 * number / len(todo)))
        outcome = system.shell.run(shlex.join(step.argv), seconds=system.limits.install)
        if outcome.code:
            raise InstallError(
                f"The class's step {number + 1} of {len(todo)} failed with exit code {outcome.code}: {step.title}.",
                hint="Mend the class file; the words above are the step's own. Everything before it went well.",
                console=outcome.output.splitlines()[-TAIL:],
            )
    system.shell.must(["rm", "-rf", PLACE], seconds=system.limits.answer)


def proof(system: Session, content: Content) -> list[Check]:
    """Look whether packages and files of a class are there."""
    done = []
    if content.packages:
        argv = ["sh", f"{system.scripts}/installed.sh", f"{system.scripts}/{PACKAGES}"]
        outcome = system.shell.run(shlex.join(argv), seconds=system.limits.answer)
        said = outcome.output.strip() or f"{len(content.packages)} installed"
        done.append(Check("packages of the class", not outcome.code, said))
    last = {file.path: file for file in content.files}
    for file in last.values():
        outcome = system.shell.run(shlex.join(["stat", "-c", "%U:%G %04a", file.path]), seconds=system.limits.answer)
        wanted = f"{file.mode:04o}"
        owner, _, mode = outcome.output.strip().partition(" ")
        good = not outcome.code and mode == wanted and (owner.startswith(f"{file.owner}:") or file.owner.isdigit())
        done.append(Check(f"file {file.path}", good, outcome.output.strip()))
    return done


def _short(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= SHOWN and line == text.strip() else f"{line[:SHOWN]}…"
