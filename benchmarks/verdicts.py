"""How soon each failure is known: `python -m benchmarks.verdicts [NAME...]` provokes them one by one.

Prints a table: from the start of the machine to the first sign of the failure, from there to the verdict, and to the
end of the command, which includes getting the guest's logs and writing the evidence. Seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from builder.events import silent
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder
from tests.provoke import FAILURES, fail


def main(names: list[str]) -> None:
    """Provoke the failures of these names, or all, and print a row for each."""
    iso = rehearsal_iso(cache_folder(), silent)
    for name in names or FAILURES:
        FAILURES[name]
        with tempfile.TemporaryDirectory(prefix="prebake-verdicts-") as folder:
            seen = fail(name, iso, Path(folder))
            if not seen.verdict:
                continue
            _verdict, _end = seen.verdict - seen.sign, seen.exit - seen.sign


if __name__ == "__main__":
    main(sys.argv[1:])
