"""How soon each failure is known: `python -m benchmarks.verdicts [NAME...]` provokes them one by one.

Prints a table: from the start of the machine to the first sign of the failure, from there to the verdict, and to the
end of the command, which includes getting the guest's logs and writing the evidence. Seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.figures import say
from builder.events import silent
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder
from tests.provoke import FAILURES, fail


def main(names: list[str]) -> None:
    """Provoke the failures of these names, or all, and print a row for each."""
    iso = rehearsal_iso(cache_folder(), silent)
    say("| failure | exit code | cause | first sign, s | verdict, s later | end, s later |")
    say("|---|---|---|---|---|---|")
    for name in names or FAILURES:
        failure = FAILURES[name]
        with tempfile.TemporaryDirectory(prefix="prebake-verdicts-") as folder:
            seen = fail(name, iso, Path(folder))
            cause = f"`{failure.slug}`" if failure.slug else "-"
            times = f"{seen.sign:.0f} | {seen.verdict - seen.sign:.1f} | {seen.exit - seen.sign:.1f}"
            known = times if seen.verdict else "- | - | -"  # the disk with the record is no more
            say(f"| {failure.what} | {seen.code} | {cause} | {known} |")


if __name__ == "__main__":
    main(sys.argv[1:])
