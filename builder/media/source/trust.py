"""Where the pinned key comes from, and what a list of checksums is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.events import Note
from builder.media.source.signature import PIN, SKIP, SignatureError, check, check_issuer, pinned, spaced
from builder.media.source.web import NotThere, Unreachable
from builder.store import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysequoia import Cert

    from builder.events import Reporter
    from builder.media.source.signature import Signature
    from builder.media.source.web import Web

KEYRINGS = (
    Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
    Path("/usr/share/keyrings/ubuntu-keyring.gpg"),
    Path("/etc/apt/trusted.gpg.d/ubuntu-keyring-2012-cdimage.gpg"),
)
"""Where the package ubuntu-keyring keeps the key, on Ubuntu and on Debian."""
KEY_SERVERS = (
    "https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x{fingerprint}",
    "https://keys.openpgp.org/vks/v1/by-fingerprint/{fingerprint}",
)
"""Who is asked for the key; what they answer counts only if it has the pinned fingerprint."""


@dataclass(frozen=True)
class Trust:
    """What is believed: the fingerprint ``pin``, where its key is looked for, or nothing is asked at all (``skip``).

    A copy of the key that was stripped of what it needs to verify anything counts as none; the next place is asked.
    ``key_file`` is a key or keyring of the user's; ``keyrings`` are the host's; ``servers`` are asked last, and
    their answer is kept in ``cache``.
    """

    cache: Path
    key_file: Path | None = None
    skip: bool = False
    pin: str = PIN
    keyrings: Sequence[Path] = KEYRINGS
    servers: Sequence[str] = KEY_SERVERS

    def proven(self, sums: bytes, signature: bytes | None, web: Web | None, report: Reporter) -> Signature | None:
        """Return the pinned key's signature of ``sums``; None if signatures are skipped.

        ``web`` is asked for the key if it is nowhere else. Raises SignatureError.
        """
        if self.skip:
            return None
        if signature is None:
            raise SignatureError(
                "SHA256SUMS is not signed: there is no SHA256SUMS.gpg beside it.",
                hint=f"Ubuntu signs every release; use another mirror. {SKIP}",
            )
        try:
            key = self.key(web, report)
        except SignatureError:
            if self.key_file is None:
                check_issuer(signature, self.pin)
            raise
        return check(sums, signature, key)

    def key(self, web: Web | None, report: Reporter) -> Cert:
        """Return the pinned key. Raises SignatureError if it is nowhere, or the user's file holds another."""
        if self.key_file is not None:
            found = _in(self.key_file, self.pin)
            if found is None:
                raise SignatureError(
                    f"{self.key_file} does not hold the key {spaced(self.pin)}, or not all of it.",
                    hint="Give the file of Ubuntu's CD image signing key, or none: the host's keyring is looked at.",
                )
            return found
        kept = self.cache / "keys" / f"{self.pin}.asc"
        for place in (*self.keyrings, kept):
            try:
                found = _in(place, self.pin)
            except SignatureError as error:
                report(Note(f"{place}: {error.message}", "debug"))
                continue
            if found is not None:
                report(Note(f"The signing key is in {place}", "debug"))
                return found
        return self._fetched(kept, web, report)

    def _fetched(self, kept: Path, web: Web | None, report: Reporter) -> Cert:
        tried = []
        for template in self.servers if web else ():
            url = template.replace("{fingerprint}", self.pin)
            try:
                found = pinned(web.get(url) if web else b"", self.pin)
            except (SignatureError, NotThere, Unreachable) as error:
                tried.append(error.message)
                continue
            if found is not None:
                write_whole(kept, str(found).encode())
                report(Note(f"The signing key came from {url} and has the pinned fingerprint."))
                return found
            tried.append(f"{url} answers with another key, or not with all of it.")
        raise SignatureError(
            f"The key {spaced(self.pin)} that proves SHA256SUMS is not on this host. {' '.join(tried)}".rstrip(),
            hint=f"Install the package ubuntu-keyring, or give the key: --signing-key FILE. {SKIP}",
        )


def _in(path: Path, pin: str) -> Cert | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(f"{path} cannot be read: {error.strerror or error}.") from error
    return pinned(data, pin)
