"""Where a medium came from, and what proves it: what the manifest says of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """The provenance of an ISO.

    ``signature`` is "verified" (the list its SHA-256 is in carries Ubuntu's signature), "skipped" (on demand),
    "checksum" (it is what an unsigned SHA-256 says) or "none". ``sha256`` is None if nobody has counted it;
    ``key`` is the fingerprint of the key that signed, and ``signed`` when, in ISO 8601.
    """

    signature: str = "none"
    sha256: str | None = None
    url: str | None = None
    key: str | None = None
    signed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the manifest has it."""
        return asdict(self)
