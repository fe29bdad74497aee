"""What is made of a fallback to emulation where nobody watches: a banner that stands out in a log, and CI's words."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.events import Fallback

WIDTH = 100
RULE = "!" * WIDTH
TITLE = "NO HARDWARE VIRTUALISATION: THE GUEST IS EMULATED"
SHORT = "No hardware virtualisation: the guest is emulated"


def on(name: str) -> bool:
    """Say whether a variable of the environment is set to something that does not mean no."""
    return os.environ.get(name, "").strip().lower() not in {"", "0", "false", "no", "off"}


def banner(event: Fallback) -> list[str]:
    """Return the lines that nobody overlooks; what would mend it stays in one line, so that it can be copied."""
    rows = [RULE, TITLE, ""]
    for head, text in (("Why:  ", event.why), ("Cost: ", event.cost)):
        rows += textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    if event.fix:
        rows.append(f"Fix:  {event.fix}")
    rows.append("`--accel kvm` (or hvf, whpx) makes this an error; `--accel tcg` says that emulation is meant.")
    return [*rows, RULE]


def reminder(event: Fallback) -> str:
    """Return what is said again when a build ends, for the banner is far up by then."""
    return f"{SHORT} ({event.accelerator}), many times slower. {event.why}"


def workflow_command(event: Fallback) -> str:
    """Return the line that makes GitHub Actions show a warning on the run's own page.

    Source: GitHub's "Workflow commands"; its toolkit escapes "%", CR and LF in the text, ":" and "," in the title too.
    """
    title = _escaped(SHORT).replace(":", "%3A").replace(",", "%2C")
    return f"::warning title={title}::{_escaped(event.text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
