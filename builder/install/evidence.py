"""What a failed build leaves behind for whoever has to find out why."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import tarfile
import time
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from builder.install.guestlogs import CRASHES, READ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LARGEST = 64 << 20
"""Bytes of a guest's log that are kept; a crash file can be larger than anybody reads."""
MOST = 512 << 20
"""Bytes of all of them."""
LEAST = 512
"""Bytes that a file counts for however small it is."""
LOOKED_AT = 8 << 20
"""Bytes at a log's end that are searched for a reason."""


def unpack_guest_logs(archive: Path, folder: Path, secrets: Iterable[str]) -> list[str]:
    """Unpack the guest's logs from the evidence channel into ``folder``, with ``secrets`` masked.

    The archive comes from a machine that may have died while it wrote: what can be read is kept, and only
    ordinary files with ordinary names are. Returns the files' names. Removes the archive. Never raises.
    """
    names: list[str] = []
    trouble: Exception | None = None
    with contextlib.suppress(OSError):
        if archive.exists() and archive.stat().st_size:
            try:
                with tarfile.open(archive, "r:gz") as tar:
                    for name, data in _members(tar):
                        refused = _kept(folder, name, data, secrets)
                        trouble = refused or trouble
                        names += [] if refused else [name]
            except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
                trouble = error
        if trouble is not None:
            folder.mkdir(parents=True, exist_ok=True)
            words = f"The guest's archive could not be read as a whole: {trouble}\n"
            (folder / "INCOMPLETE.txt").write_text(words, encoding="utf-8")
        archive.unlink(missing_ok=True)
    return names


def _kept(folder: Path, name: str, data: bytes, secrets: Iterable[str]) -> OSError | None:
    """Keep a log, or return why that cannot be: a name too long, or in the place of a folder."""
    try:
        keep_log(folder, name, data, secrets)
    except OSError as error:
        return error
    return None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the ordinary files in an archive, up to what anybody would read."""
    left = MOST
    for member in tar:
        place = PurePosixPath(member.name)
        stream = tar.extractfile(member) if member.isfile() else None
        if stream is None or not place.parts or place.is_absolute() or ".." in place.parts or left <= 0:
            continue
        data = stream.read(min(LARGEST, left))
        left -= len(data) + LEAST
        yield place.as_posix(), data


def keep_log(folder: Path, name: str, data: bytes, secrets: Iterable[str]) -> None:
    """Write one log of the guest's, ``name`` as it is there, below ``folder``, with ``secrets`` masked."""
    target = folder.joinpath(*PurePosixPath(name).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(masked(data, secrets))


def read_logs(folder: Path) -> dict[str, str]:
    """Return the ends of the logs below ``folder`` that may tell a reason, by their path in the guest."""
    found = {}
    for path in [*(folder / name for name in READ), *sorted((folder / CRASHES).glob("*.crash"))]:
        if path.is_file():
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - LOOKED_AT))
                found[path.relative_to(folder).as_posix()] = stream.read().decode("utf-8", "replace")
    return found


def masked(data: bytes, secrets: Iterable[str]) -> bytes:
    """Return ``data`` with every secret replaced by asterisks, also where it stands as JSON or Python write it."""
    for form in _forms(secrets):
        data = data.replace(form, b"********")
    return data


def _forms(secrets: Iterable[str]) -> list[bytes]:
    """Return each secret as it may be written, the longest first."""
    found: set[bytes] = set()
    for secret in secrets:
        if secret:
            written = (
                secret,
                json.dumps(secret)[1:-1],
                json.dumps(secret, ensure_ascii=False)[1:-1],
                repr(secret)[1:-1],
            )
            found.update(each.encode("utf-8", "surrogateescape") for each in written)
    return sorted(found, key=len, reverse=True)


def masked_typed(data: bytes, password: str) -> bytes:
    """Return a console's ``data`` with ``password`` masked where a terminal echoed it: at a line's end, after a prompt.

    Elsewhere the same letters are no secret, for a password can be an ordinary word.
    """
    if not password:
        return data
    return _typed(password).sub(rb"\1********", data)


def blotted(data: bytes, secrets: Iterable[str], password: str) -> bytes:
    """Return ``data`` masked as by `masked` and `masked_typed`, but every byte where it was."""
    for form in _forms(secrets):
        data = data.replace(form, b"*" * len(form))
    if not password:
        return data
    return _typed(password).sub(lambda found: found[1] + b"*" * (len(found[0]) - len(found[1])), data)


def _typed(password: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?m)(^|[:$#>]\s?)" + re.escape(password.encode()) + rb"(?=\s*$)")


def write_report(
    folder: Path,
    summary: str,
    verdict: Mapping[str, object] | None,
    argv: Iterable[str],
    said: str,
    *,
    more: Mapping[str, object] | None = None,
) -> None:
    """Write what failed, the verdict on the console, QEMU's command line and words, and what this host is.

    ``more`` is what else is known of the host, such as the accelerator.
    """
    (folder / "error.txt").write_text(summary + "\n", encoding="utf-8")
    if verdict is not None:
        (folder / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    command = shlex.join(argv)
    if command:
        (folder / "qemu.txt").write_text(f"{command}\n\n{said}", encoding="utf-8", errors="replace")
    (folder / "host.json").write_text(
        json.dumps({**host_facts(folder), **(more or {})}, indent=2) + "\n", encoding="utf-8"
    )


def host_facts(folder: Path) -> dict[str, object]:
    """Return what this host is and how busy it is: sizes in bytes, the load of the last 1, 5 and 15 minutes."""
    facts: dict[str, object] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "disk_free": shutil.disk_usage(folder).free,
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = [round(one, 2) for one in os.getloadavg()]
    memory = Path("/proc/meminfo")
    if memory.exists():
        rows = dict(line.split(":", 1) for line in memory.read_text().splitlines() if ":" in line)
        for key, name in (("MemTotal", "memory"), ("MemAvailable", "memory_available")):
            if key in rows:
                facts[name] = int(rows[key].split()[0]) * 1024
    return facts
