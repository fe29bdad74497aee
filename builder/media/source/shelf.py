"""The shelf: ISOs kept by the SHA-256 of their contents, each beside what proves it.

iso/SHA256/NAME.iso          the medium, read-only
iso/SHA256/SHA256SUMS[.gpg]  the list it is in, and the list's signature
iso/SHA256/medium.json       what it is and where it came from
iso/SHA256/NAME.iso.part     what has come so far
iso/locks/SHA256.{fetch,use} who fetches it, and who is using it
iso/seen.json                the newest ever seen of each series, so that nobody can turn it back (`memory.py`)
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.events import Progress
from builder.media.source.memory import Memory
from builder.media.source.origin import Origin
from builder.media.source.releases import VERSION
from builder.store import locked, shared, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.events import Reporter

CHUNK = 4 << 20
RECORD, SUMS, SIGNATURE = "medium.json", "SHA256SUMS", "SHA256SUMS.gpg"


@dataclass(frozen=True)
class Kept:
    """An ISO on the shelf."""

    path: Path
    version: str
    arch: str
    sha256: str
    origin: Origin

    def proof(self) -> tuple[bytes, bytes | None]:
        """Return the list of checksums kept beside it, empty if there is none, and its signature."""
        sums, signature = self.path.with_name(SUMS), self.path.with_name(SIGNATURE)
        return (
            sums.read_bytes() if sums.is_file() else b"",
            signature.read_bytes() if signature.is_file() else None,
        )


class Shelf:
    """The ISOs below the cache folder ``cache``."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "iso"
        self.memory = Memory(cache)

    def place(self, sha256: str, name: str) -> Path:
        """Return where an ISO belongs."""
        return self.folder / sha256 / name

    @contextmanager
    def using(self, sha256: str) -> Iterator[None]:
        """Keep an ISO from being pruned while it is used."""
        with shared(self.folder / "locks" / f"{sha256}.use"):
            yield

    @contextmanager
    def fetching(self, sha256: str, report: Reporter) -> Iterator[None]:
        """Be the only one who fetches an ISO."""
        lock = self.folder / "locks" / f"{sha256}.fetch"
        with locked(lock, report, "Another prebake is fetching this ISO; waiting for it."):
            yield

    def put(self, kept: Kept, proof: tuple[bytes, bytes | None]) -> None:
        """Write down what the ISO at its place is; with that it counts as kept."""
        folder = kept.path.parent
        sums, signature = proof
        write_whole(folder / SUMS, sums)
        if signature is None:
            (folder / SIGNATURE).unlink(missing_ok=True)
        else:
            write_whole(folder / SIGNATURE, signature)
        told = {
            "name": kept.path.name,
            "version": kept.version,
            "arch": kept.arch,
            "sha256": kept.sha256,
            "origin": kept.origin.to_json(),
        }
        write_whole(folder / RECORD, (json.dumps(told, indent=2) + "\n").encode())
        kept.path.chmod(0o444)

    def get(self, sha256: str) -> Kept | None:
        """Return the ISO with this digest, None if it is not there or not whole."""
        try:
            told = json.loads((self.folder / sha256 / RECORD).read_text())
            path = self.place(sha256, told["name"])
            kept = Kept(path, told["version"], told["arch"], sha256, Origin(**told["origin"]))
            whole = VERSION.fullmatch(kept.version) and path.name == told["name"] and path.is_file()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return kept if whole else None

    def all(self) -> list[Kept]:
        """Return everything that is kept, in the order of digests."""
        names = sorted(path.parent.name for path in self.folder.glob(f"*/{RECORD}"))
        return [kept for name in names if (kept := self.get(name))]


def digest_of(path: Path, report: Reporter, what: str) -> str:
    """Return the SHA-256 of a file, and report how far it is."""
    digest = hashlib.sha256()
    size, done = path.stat().st_size, 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(Progress(what, done, size))
    return digest.hexdigest()
