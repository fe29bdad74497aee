"""Makes the running system one of many: lean, ready for any machine, without identity, secrets and logs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.errors import InstallError
from builder.events import Note, Phase
from builder.image.facts import MIB, RUNNING, Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.events import Reporter
    from builder.image.session import Session
    from builder.spec import Spec
    from builder.vm.disk import Info

PLACED = "placed.txt"
"""The file beside our scripts that lists what a class has placed, which nothing takes away."""
LEVELS = {"note": "info", "warning": "warning"}
TAIL = 20
SLACK = 512 * MIB
"""Bytes that an image may take beyond what its root file system holds: other partitions, the format's tables."""


def beside(spec: Spec) -> Iterator[tuple[str, Path | bytes]]:
    """Yield what the seal needs beside our scripts."""
    if spec.content.files:
        yield PLACED, "".join(f"{one.path}\n" for one in spec.content.files).encode()


def trouble(facts: Mapping[str, str], report: Reporter) -> None:
    """Name what did not start on the first boot."""
    for unit in facts.get("failed-units", "").split():
        report(Note(f"A unit failed on the first boot: {unit}", "warning"))
    if facts.get("state") not in RUNNING:
        words = f"The first boot is not over: {facts.get('state') or 'unknown'}, waits for {facts.get('jobs') or '?'}."
        report(Note(words, "warning"))


def tidy(system: Session, report: Reporter, budget: int | None = None) -> None:
    """Make the system lean and one that boots anywhere; what is right already costs little.

    ``budget`` is how many bytes firmware packages may take, None: any. Raises InstallError if the script fails.
    """
    report(Phase("tidy", "Removing what no copy needs", 0.8))
    kept = "keep" if budget is None else str(budget // MIB)
    argv = ["sh", f"{system.scripts}/tidy.sh", str(int(system.limits.answer)), kept]
    outcome = system.shell.run(shlex.join(argv), seconds=system.limits.boot + system.limits.answer * 3)
    for note in notes(outcome.output):
        report(note)
    if outcome.code:
        raise InstallError("The system could not be tidied up.", console=outcome.output.splitlines()[-TAIL:])


def seal(system: Session, spec: Spec, report: Reporter) -> None:
    """Tidy the system up and seal it; nothing but a power-off may follow.

    Raises InstallError if a script of ours fails.
    """
    tidy(system, report, spec.firmware_budget)
    report(Phase("seal", "Removing identity, secrets and logs", 0.85))
    words = [spec.cloud_init or "off", spec.user.name, *(["proxy"] if spec.proxied else [])]
    system.shell.must(["sh", f"{system.scripts}/seal.sh", *words], seconds=system.limits.boot)


def notes(output: str) -> Iterator[Note]:
    """Yield what ``tidy.sh`` has to say to people, among all that the programs say that it starts."""
    for line in output.splitlines():
        word, _, text = line.strip().partition(": ")
        if word in LEVELS and text:
            yield Note(f"{text[0].upper()}{text[1:]}.", LEVELS[word])


def freed(facts: Mapping[str, str], info: Info) -> Check:
    """Look whether what was deleted takes no room in the image; a format that keeps all room cannot tell."""
    used = int(facts.get("root-used") or 0)
    good = info.format != "qcow2" or info.allocated <= used + SLACK
    return Check("what was deleted takes no room", good, f"{info.allocated / MIB:.0f} of {used / MIB:.0f} MiB used")
