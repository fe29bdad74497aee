"""`prebake verify`: parses and prints."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.cli_class import FILE, FOLDER, PASSWORDS, password_of
from builder.errors import UsageError, VerificationError
from builder.spec import User
from builder.talk import talking
from builder.verify import Asked, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.ui import Ui
    from builder.verify import Verdict

ACCEL = click.option(
    "--accel", type=click.Choice(["auto", "kvm", "hvf", "whpx", "tcg"]), default="auto", show_default=True
)
MEMORY = click.option("--memory", type=click.IntRange(512), default=4096, show_default=True, help="MiB for the guest.")
CPUS = click.option("--cpus", type=click.IntRange(1), default=2, show_default=True, help="The guest's processors.")


@click.command("verify")
@click.argument("image", type=FILE)
@click.option("--quick/--full", "quick", default=True, help="One boot per firmware, or every disk and card.  [quick]")
@click.option("--user", default="", help="Who logs in.  [default: the manifest's user, or ubuntu]")
@PASSWORDS
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), default="amd64", show_default=True)
@click.option(
    "--firmware",
    type=click.Choice(["auto", "bios", "uefi"]),
    default="auto",
    show_default=True,
    help="auto: what the image claims to start under.",
)
@ACCEL
@MEMORY
@CPUS
@click.option("--strict", is_flag=True, help="Hold an image that was not made here to prebake's own rules.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Longest wait for a login prompt.")
@click.option("--evidence", type=FOLDER, help="Consoles of a bad proof.  [default: output/NAME.verify.failed]")
@click.option("--console", is_flag=True, help="Show the guest's serial console as it comes.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@talking
def verify_command(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Boot throw-away overlays of any image and check it; exit 11 if it is not what it should be."""
    path: Path = given["image"]
    if not path.is_file():
        raise UsageError(f"{path} is not there.", hint="Name a disk image, such as a qcow2.")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} cannot be read by this user.", hint="Look at its owner and mode.")
    asked = Asked(
        image=path,
        evidence=given["evidence"] or Path("output") / f"{path.stem}.verify.failed",
        user=given["user"],
        password=password_of(given) or User.password,
        level="quick" if given["quick"] else "full",
        seconds=given["timeout"],
        **{key: given[key] for key in ("arch", "firmware", "accel", "memory", "cpus", "strict")},
    )
    verdict = verify(asked, ui)
    for error in verdict.errors:
        ui.error(error)
    for line in [json.dumps(as_rows(verdict), indent=2)] if given["as_json"] else lines(verdict):
        ui.result(line)
    if not verdict.good:
        sys.exit(VerificationError.exit_code)


def as_rows(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for programs."""
    return {
        "good": verdict.good,
        "evidence": str(verdict.evidence) if verdict.evidence else None,
        "boots": dict(verdict.machines or {}),
        "checks": [
            {
                "boot": one.boot or None,
                "check": one.name,
                "good": one.good,
                "required": one.required,
                "found": one.found,
            }
            for one in verdict.checks
        ],
    }


def lines(verdict: Verdict) -> Iterator[str]:
    """Yield a verdict for people, grouped by boot."""
    machines = verdict.machines or {}
    last = ""
    for one in verdict.checks:
        if one.boot != last:
            last = one.boot
            yield ": ".join(word for word in (last, machines.get(last, "")) if word)
        yield f"  {one}" if last else str(one)
    if verdict.evidence:
        yield f"The consoles are in {verdict.evidence}"
