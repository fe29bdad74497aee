"""What lies beside the image: what it was made of, and the checksums."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def manifest(
    name: str,
    files: Sequence[Path],
    *,
    built: int,
    arch: str,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest: Packer's shape, so that scripts that read Packer's go on working, and our details.

    ``built`` is in seconds since 1970. Source of the shape: Packer, post-processor/manifest/artifact.go.
    """
    run = str(uuid.uuid4())
    build = {
        "name": name,
        "builder_type": "prebake",
        "build_time": built,
        "files": [{"name": path.name, "size": path.stat().st_size, "sha256": sha256(path)} for path in files],
        "artifact_id": f"{name}-{arch}",
        "packer_run_uuid": run,
        "custom_data": None,
    }
    return {"builds": [build], "last_run_uuid": run, "prebake": dict(details)}


def write_manifest(path: Path, value: Mapping[str, Any]) -> None:
    """Write a manifest as JSON for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256sums(files: Sequence[Path]) -> str:
    """Return what `sha256sum -c` reads, binary mode, one line a file."""
    return "".join(f"{sha256(path)} *{path.name}\n" for path in files)
