"""Runs the prebake command as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from builder.cli import cli

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN = ("CI", "GITHUB_ACTIONS", "PREBAKE_PASSWORD")
"""What changes the tool's words."""
PREBAKE = str(Path(sys.executable).with_name("prebake"))


@dataclass(frozen=True)
class Result:
    """How it ended, and what it said to programs and to people."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without what changes the tool's words, and with ``extra``."""
    known = {key: value for key, value in os.environ.items() if key not in PLAIN}
    return {**known, **(extra or {})}


def inside(*arguments: object, env: Mapping[str, str] | None = None) -> Result:
    """Run it to its end in this process: a second faster, for what asks neither for a terminal nor for a folder."""
    known: dict[str, str | None] = {**dict.fromkeys(PLAIN), **(env or {})}
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], env=known)
    return Result(done.exit_code, done.stdout, done.stderr)


def prebake(*arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Result:
    """Run it to its end."""
    done = subprocess.run(
        [PREBAKE, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    return Result(done.returncode, done.stdout, done.stderr)
