"""Starts programs inside the guest, and keeps what they say in the installer's log."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

LOG = Path("/var/log/installer/curtin-install.log")


FAILED = """Unexpected error while running command.
Command: {argv}
Exit code: {code}
Reason: -
Stdout: {out}
Stderr: {err}
"""


class ProgramError(Exception):
    """A program failed; the text is what Python's subprocess module says of it."""

    def __init__(self, argv: list[str], code: int) -> None:
        super().__init__(f"Command '{argv}' returned non-zero exit status {code}.")
        self.argv = argv
        self.code = code


def run(argv: list[str], stdin: str | None = None) -> str:
    """Run a program to its end, log it, return its output; raise ProgramError if it fails."""
    begun = time.monotonic()
    done = subprocess.run(
        argv,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.monotonic() - begun
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"Running command {argv} with allowed return codes [0] (capture=both)\n")
        log.write(f"{argv} -> {done.returncode} in {seconds:.2f} s\n{done.stdout}{done.stderr}")
        if done.returncode:
            out, err = (_indented(text) for text in (done.stdout, done.stderr))
            log.write(FAILED.format(argv=argv, code=done.returncode, out=out, err=err))
    if done.returncode:
        raise ProgramError(argv, done.returncode)
    return done.stdout


def _indented(text: str) -> str:
    """Return what a program said as the real installer's log has it: further lines stand eight blanks in."""
    return text.rstrip("\n").replace("\n", f"\n{' ' * 8}") or "''"


def in_target(argv: list[str], stdin: str | None = None) -> str:
    """Run a program inside the system being installed."""
    return run(["curtin", "in-target", "--target=/target", "--", *argv], stdin)
