"""What has come of a file so far: its bytes, the digest of them, and which version of which address they are of."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.events import Progress

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from builder.events import Reporter

CHUNK = 1 << 20
ETAG = re.compile(r'"[\x21\x23-\x7e]{0,254}"')
DATE = re.compile(r"[\x20-\x7e]{1,64}")
"""What may be sent back in a header: a strong entity tag, or a date; nothing that cannot be encoded."""


@dataclass
class Piece:
    """The part of a file at ``path``.

    ``done`` bytes are there; ``resumed`` says that they may not all be of one file; ``drops`` counts how often
    they were thrown away.
    """

    path: Path
    done: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    resumed: bool = False
    drops: int = 0

    @property
    def note(self) -> Path:
        """Where it is written which version of which address this is a part of."""
        return self.path.with_name(f"{self.path.name}.json")

    def drop(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.done, self.digest, self.resumed = 0, hashlib.sha256(), False
        self.drops += 1

    def remember(self, url: str, answer: httpx.Response) -> None:
        """Write down which version of which file this is a part of, before its first byte."""
        aside = self.note.with_name(f"{self.note.name}.new")
        etag, date = answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
        # A weak tag says nothing of bytes (RFC 9110, 8.8.1).
        known = etag if ETAG.fullmatch(etag) else date if DATE.fullmatch(date) else None
        aside.write_text(json.dumps({"url": url, "validator": known}))
        aside.replace(self.note)

    def validator(self, url: str) -> str | None:
        """Return what tells the version that this is a part of, None if it is not known or of another address."""
        try:
            told = json.loads(self.note.read_text())
            known = told["validator"] if told["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return known if isinstance(known, str) and (ETAG.fullmatch(known) or DATE.fullmatch(known)) else None

    def finished(self) -> str:
        """Bring it to the disk and return its SHA-256."""
        with self.path.open("ab") as out:
            os.fsync(out.fileno())
        return self.digest.hexdigest()


def taken_up(path: Path, report: Reporter) -> Piece:
    """Return what an earlier run has left, with its digest so far."""
    piece = Piece(path)
    if not path.exists():
        return piece
    size = path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            piece.digest.update(chunk)
            piece.done += len(chunk)
            report(Progress("Reading what is there already", piece.done, size))
    return piece
