"""What the installer says, in the lines of the real one, and the state its clients act on."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = Path("/run/rehearsal")
CONSOLE = RUN / "console"
STATE = RUN / "state"
ANSWER = RUN / "answer"

WAITING = "waiting for cloud-init"
RUNNING = "running"
CONFIRM = "needs confirmation"
INTERACTIVE = "interactive"
FAILED = "error"
DONE = "done"


class CurtinError(Exception):
    """A stage of the disk work failed. Its text is empty, as since 24.04: the console does not say why."""

    def __str__(self) -> str:
        """Return nothing."""
        return ""


def line(kind: str, path: str, text: str = "") -> str:
    """Render one event as the text client prints it since 24.04: one blank a level, colon always."""
    return f"{kind}: {' ' * max(0, path.count('/') - 2)}{path}: {text}"


def say(text: str) -> None:
    """Put one line where every client shows it."""
    RUN.mkdir(parents=True, exist_ok=True)
    with CONSOLE.open("a", encoding="utf-8") as console:
        console.write(text + "\n")


def set_state(state: str) -> None:
    """Tell the clients what the installer is at."""
    RUN.mkdir(parents=True, exist_ok=True)
    aside = STATE.with_suffix(".new")
    aside.write_text(state)
    os.replace(aside, STATE)  # noqa: PTH105 - the atomic one


@contextmanager
def step(path: str, text: str = "") -> Iterator[None]:
    """Print `start:` before and `finish:` after; on an error its text replaces the description."""
    say(line("start", path, text))
    try:
        yield
    except Exception as error:
        say(line("finish", path, str(error)))
        raise
    say(line("finish", path, text))
