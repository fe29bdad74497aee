"""One console's view of the installer: shows its lines, asks its questions, opens its shell."""

from __future__ import annotations

import os
import sys
import time

from .events import ANSWER, CONFIRM, CONSOLE, FAILED, INTERACTIVE, STATE, WAITING

SPINNER = "-\\|/"
QUESTION = (
    "\n\nConfirmation is required to continue.\n"
    "Add 'autoinstall' to your kernel command line to avoid this\n\n\n\n"
    "Continue with autoinstall? (yes|no)"
)
WELCOME = (
    "\x1b[2J\x1b[H  Serial  \n\n"
    "  As the installer is running on a serial console, it has started in basic mode.\n\n"
    "  [ Continue in rich mode  > ]\n  [ Continue in basic mode > ]\n  [ View SSH instructions   ]\n"
)


def state() -> str:
    """Return what the installer is at; nothing before it has started."""
    return STATE.read_text() if STATE.exists() else ""


def put(text: str) -> None:
    """Write to the console at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def spin(text: str, until: str) -> None:
    """Show ``text`` with a turning bar as long as the state is ``until``."""
    put(f"{text}...  ")
    turn = 0
    while state() == until:
        put("\b" + SPINNER[turn % len(SPINNER)])
        turn += 1
        time.sleep(0.3)
    put("\b \n")


def shell() -> None:
    """Wait for a person, then become the root shell that the real installer opens."""
    put("An error occurred. Press enter to start a shell\n")
    sys.stdin.readline()
    os.execv("/bin/bash", ["bash"])  # noqa: S606 - no shell is asked: this is one


def main() -> None:
    """Follow the installer for as long as the machine runs."""
    spin("connecting", "")
    if state() == WAITING:
        spin("waiting for cloud-init", WAITING)
    shown = asked = 0
    if state() == FAILED:
        shell()  # the history is shown only when a further event comes, and none comes any more
    while True:
        if CONSOLE.exists():
            with CONSOLE.open(encoding="utf-8") as console:
                console.seek(shown)
                put(console.read())
                shown = console.tell()
        now = state()
        if now == CONFIRM:
            put(QUESTION + "\n")
            if sys.stdin.readline().strip() == "yes" and state() == CONFIRM:
                ANSWER.touch()
                while state() == CONFIRM:
                    time.sleep(0.1)
        elif now == FAILED:
            with CONSOLE.open(encoding="utf-8") as console:
                console.seek(shown)
                put(console.read())
            shell()
        elif now == INTERACTIVE and not asked:
            asked = 1
            put(WELCOME)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
