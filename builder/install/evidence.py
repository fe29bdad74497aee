"""What a failed build leaves behind for whoever has to find out why."""

from __future__ import annotations

import json
import platform
import re
import shlex
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LARGEST = 64 << 20
"""Bytes of a guest's log that are kept; a crash file can be larger than anybody reads."""


def unpack_guest_logs(archive: Path, folder: Path, secrets: Iterable[str]) -> list[str]:
    """Unpack the guest's logs from the evidence channel into ``folder``, with ``secrets`` masked.

    The archive comes from a machine that may have died while it wrote: what can be read is kept, and only
    ordinary files with ordinary names are. Returns the files' names. Removes the archive.
    """
    names: list[str] = []
    if archive.exists() and archive.stat().st_size:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    place = PurePosixPath(member.name)
                    if not member.isfile() or place.is_absolute() or ".." in place.parts:
                        continue
                    stream = tar.extractfile(member)
                    data = stream.read(LARGEST) if stream is not None else b""
                    target = folder.joinpath(*place.parts)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(masked(data, secrets))
                    names.append(place.as_posix())
        except (tarfile.TarError, EOFError, OSError) as error:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "INCOMPLETE.txt").write_text(f"The guest's archive could not be read to its end: {error}\n")
    archive.unlink(missing_ok=True)
    return names


def masked(data: bytes, secrets: Iterable[str]) -> bytes:
    """Return ``data`` with every secret replaced by asterisks."""
    for secret in secrets:
        if secret:
            data = data.replace(secret.encode(), b"********")
    return data


def masked_typed(data: bytes, password: str) -> bytes:
    """Return a console's ``data`` with ``password`` masked where a terminal echoed it: at a line's end, after a prompt.

    Elsewhere the same letters are no secret, for a password can be an ordinary word.
    """
    if not password:
        return data
    typed = rb"(?m)(^|[:$#>]\s?)" + re.escape(password.encode()) + rb"(?=\s*$)"
    return re.sub(typed, rb"\1********", data)


def write_report(
    folder: Path, summary: str, verdict: Mapping[str, object] | None, argv: Iterable[str], said: str
) -> None:
    """Write what failed, the verdict on the console, QEMU's command line and words, and what this host is."""
    (folder / "error.txt").write_text(summary + "\n")
    if verdict is not None:
        (folder / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n")
    command = shlex.join(argv)
    if command:
        (folder / "qemu.txt").write_text(f"{command}\n\n{said}")
    host = {"system": platform.platform(), "machine": platform.machine(), "python": platform.python_version()}
    (folder / "host.json").write_text(json.dumps(host, indent=2) + "\n")
