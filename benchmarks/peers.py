"""The others' ways to a remastered medium. Each is called with the ISO and a folder for results.

What they put on the medium lies ready in SEED beside that folder: the same menus and answers prebake puts there. They
need not do what they do not do: none of them keeps md5sum.txt right.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from benchmarks.cost import main

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SEED = "seed"


def _run(argv: Sequence[str]) -> bytes:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def _copy(iso: Path, folder: Path) -> Path:
    out = folder / "out.iso"
    _run(["cp", str(iso), str(out)])
    return out


def copy(iso: Path, folder: Path) -> None:
    """Copy the ISO, and leave when it is on the disk."""
    with _copy(iso, folder).open("rb") as file:
        os.fsync(file.fileno())


def copy_unsynced(iso: Path, folder: Path) -> None:
    """Copy the ISO as far as into memory."""
    _copy(iso, folder)


def replay(iso: Path, folder: Path) -> None:
    """Let xorriso load the ISO and write it anew with its boot equipment (it syncs every 16 MiB and at the end)."""
    # fmt: off
    _run([
        "xorriso", "-indev", str(iso), "-outdev", str(folder / "out.iso"), "-boot_image", "any", "replay",
        "-joliet", "on", "-compliance", "joliet_long_paths:joliet_long_names",
        "-map", str(folder.parent / SEED), "/",
    ])
    # fmt: on


def extract(iso: Path, folder: Path) -> None:
    """Extract all files, change them, and make an ISO of them as xorriso reports to do it: livefs-editor's way."""
    tree = folder / "tree"
    _run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/", str(tree)])
    _run(["chmod", "-R", "u+w", str(tree)])
    shutil.copytree(folder.parent / SEED, tree, dirs_exist_ok=True)
    reported = _run(["xorriso", "-indev", str(iso), "-report_el_torito", "as_mkisofs"]).decode()
    argv = ["xorriso", "-as", "mkisofs", "-r", "-J", "-joliet-long", *shlex.split(reported)]
    _run([*argv, "-o", str(folder / "out.iso"), str(tree)])


if __name__ == "__main__":
    main({"copy": copy, "copy-unsynced": copy_unsynced, "replay": replay, "extract": extract})
