"""What a class adds, said as answers: for an ISO whose machine nobody finishes over a console. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.spec import Content, File


def sections_for(content: Content) -> dict[str, Any]:
    """Return the sections of autoinstall that install a class's content.

    The installer takes packages and snaps; files and commands go to cloud-init, which puts them there at the first
    boot, when the user exists. Raises OSError if a file cannot be read.
    """
    found: dict[str, Any] = {}
    if content.packages:
        found["packages"] = list(content.packages)
    if content.snaps:
        found["snaps"] = [
            {"name": one.name, "classic": one.classic, **({"channel": one.channel} if one.channel else {})}
            for one in content.snaps
        ]
    later: dict[str, Any] = {}
    if content.files:
        later["write_files"] = [_written(one) for one in content.files]
    if content.commands:
        later["runcmd"] = [["bash", "-ec", one] for one in content.commands]
    if later:
        found["user-data"] = later
    return found


def _written(file: File) -> dict[str, Any]:
    """Return one entry of cloud-init's write_files; `defer` makes it wait for the user."""
    data = file.source.read_bytes() if file.source else file.content.encode()
    return {
        "path": file.path,
        "encoding": "b64",
        "content": base64.b64encode(data).decode(),
        "owner": f"{file.owner}:{file.group or file.owner}",
        "permissions": f"0{file.mode:o}",
        "defer": True,
    }
