"""Puts a class's content on a running system: packages, snaps, files, commands, one step after the other."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import InstallError, PrebakeError, StalledError
from builder.events import Phase
from builder.image.facts import MIB, Check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.events import Reporter
    from builder.image.session import Session
    from builder.image.shell import Outcome
    from builder.spec import Content

FOLDER = "class"
"""The folder in the payload that holds a class's files and commands."""
PACKAGES = "packages.txt"
PLACE = "/var/tmp/prebake-class"  # noqa: S108 - root's own, mode 0700, on the guest
TAIL = 20
SHOWN = 60
MEND = "Mend the class file; the words above are the step's own. Everything before it went well."
WAITS = (
    "Does a command of the class's wait for input, of which it gets none, or for the network? If it only takes its "
    "time, give a step more: --step-timeout SECONDS."
)
LARGER = "Make the disk larger: `disk:` in the class file, or --disk."
DF = re.compile(r"^\S+\s+(\d+)\s+\d+\s+(\d+)\s+\S+\s+/$", re.ASCII | re.MULTILINE)
"""A row of ``df -P -k``: what the root file system has, and what is left of it for ordinary programs, in KiB."""
FULL = 16 * MIB
"""With less than so much left the disk is full."""
NO_ROOM = re.compile(r"No space left on device|have enough free space")
TAKEN_BACK = 1024 * MIB
"""How much a program that said so may have given back: dpkg removes what it could not unpack as a whole."""


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

    Raises InstallError that names the step that failed, its exit code and its last words, and says so if the disk is
    full; StalledError that names the one that did not end in time; MachineError if the machine ends.
    """
    system.shell.must(["mkdir", "-m", "0700", "-p", PLACE], seconds=system.limits.answer)
    if content.files or content.commands:
        argv = ("tar", "-xf", device, "-C", PLACE, FOLDER)
        outcome = system.shell.run(shlex.join(argv), seconds=system.limits.boot)
        if outcome.code:
            raise _failed(system, "The class's files and commands could not be unpacked.", None, outcome)
    todo = list(steps(content, system.scripts))
    for number, step in enumerate(todo):
        report(Phase(f"class-{number + 1}", step.title, 0.65 + 0.15 * number / len(todo)))
        which = f"The class's step {number + 1} of {len(todo)}"
        outcome = _carried_out(system, step, which)
        if outcome.code:
            raise _failed(system, f"{which} failed with exit code {outcome.code}: {step.title}.", MEND, outcome)
    system.shell.must(["rm", "-rf", PLACE], seconds=system.limits.answer)


def _carried_out(system: Session, step: Step, which: str) -> Outcome:
    try:
        return system.shell.run(shlex.join(step.argv), seconds=system.limits.step)
    except StalledError as error:
        message = f"{which} has not ended after {system.limits.step:.0f} s: {step.title}."
        if not error.console:
            message += " It has said nothing."
        raise StalledError(message, hint=WAITS, console=error.console) from error


def _failed(system: Session, message: str, hint: str | None, outcome: Outcome) -> InstallError:
    """Return the error for what went wrong on a system, which may no longer answer why."""
    with contextlib.suppress(PrebakeError):
        told = system.shell.run("df -P -k /", seconds=system.limits.answer).output
        if full := full_disk(told, outcome.output):
            message, hint = f"{message} {full}", LARGER
    return InstallError(message, hint=hint, console=outcome.output.splitlines()[-TAIL:])


def full_disk(told: str, words: str) -> str:
    """Return what is to be said of the root file system if it is full, or was when ``words`` were said; else nothing.

    ``told`` is what ``df -P -k /`` says.
    """
    row = DF.search(told)
    if row is None:
        return ""
    size, left = int(row[1]) << 10, int(row[2]) << 10
    if left >= (TAKEN_BACK if NO_ROOM.search(words) else FULL):
        return ""
    return f"The disk is full: {left // MIB} MiB of {size / (1 << 30):.1f} GiB are left."


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
