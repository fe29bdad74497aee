"""An ISO that somebody has, and whether it is what it should be, as far as anything beside it says."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import MediumError, UsageError
from builder.events import Note
from builder.media.source.download import ChecksumError
from builder.media.source.origin import Origin
from builder.media.source.shelf import SIGNATURE, SUMS, digest_of
from builder.media.source.web import Web, open_client

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Reporter
    from builder.media.source.trust import Trust

HEX = re.compile(r"[0-9a-fA-F]{64}")
LINE = re.compile(r"^([0-9a-f]{64}) [ *](.+?)\r?$", re.MULTILINE | re.IGNORECASE)
LARGEST = 16 << 20


def check_digest(text: str) -> str:
    """Return a SHA-256 in small hexadecimal digits. Raises UsageError if ``text`` is none."""
    if not HEX.fullmatch(text):
        raise UsageError(f"{text!r} is no SHA-256.", hint="It has 64 hexadecimal digits, as in Ubuntu's SHA256SUMS.")
    return text.lower()


def examine(path: Path, trust: Trust, report: Reporter, *, sha256: str | None = None) -> Origin:
    """Return what is known of the ISO at ``path``.

    With ``sha256`` it has to have that digest. Else, if a SHA256SUMS lies beside it and lists it, it has to have
    the digest listed, and if a SHA256SUMS.gpg lies beside that, the list has to carry Ubuntu's signature. A file
    that was renamed is looked for by its digest: what is listed under another name is the same ISO. With nothing
    of the kind it is taken as it is.

    Raises ChecksumError or SignatureError, and MediumError if it cannot be read.
    """
    try:
        _check_regular(path)
        if sha256 is not None:
            found = digest_of(path, report, f"Checking {path.name}")
            _compare(path, found, sha256, "--sha256 says")
            return Origin("checksum", found)
        sums = _read(path.with_name(SUMS))
        if sums is None:
            return Origin()
        listed = {name: digest.lower() for digest, name in LINE.findall(sums.decode("utf-8", "replace"))}
        if path.name in listed:  # a list that is not Ubuntu's is refused before the ISO is read
            origin = _signed(path, sums, trust, report)
            found = digest_of(path, report, f"Checking {path.name}")
            _compare(path, found, listed[path.name], f"{path.with_name(SUMS)} says")
            return replace(origin, sha256=found)
        found = digest_of(path, report, f"Checking {path.name}")
        name = next((name for name, digest in listed.items() if digest == found), None)
        if name is None:
            report(Note(f"{path.with_name(SUMS)} does not list {path.name}, so it says nothing of it.", "warning"))
            return Origin(sha256=found)
        report(Note(f"{path.name} is {name}, by its SHA-256 in {path.with_name(SUMS)}."))
        return replace(_signed(path, sums, trust, report), sha256=found)
    except OSError as error:
        raise MediumError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error


def _check_regular(path: Path) -> None:
    """Refuse a device or a pipe: reading it may have no end, or never begin."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise MediumError(f"`{path}` is not a regular file.", hint="Copy the medium to an ISO file first.")


def _signed(path: Path, sums: bytes, trust: Trust, report: Reporter) -> Origin:
    proof = _read(path.with_name(SIGNATURE))
    if proof is None:
        return Origin("checksum")
    if trust.skip:
        report(Note(f"The signature {path.with_name(SIGNATURE)} is not checked.", "warning"))
        return Origin("skipped")
    with open_client() as client:
        signature = trust.proven(sums, proof, Web(client, report), report)
    if signature is None:
        return Origin("skipped")
    return Origin("verified", None, None, signature.fingerprint, signature.made.isoformat())


def _compare(path: Path, found: str, expected: str, who: str) -> None:
    if found != expected:
        raise ChecksumError(
            f"{path} is not what it should be: its SHA-256 is {found}, {who} {expected}.",
            hint="Fetch it again; it may have been cut off or changed.",
        )


def _read(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MediumError(
                f"{path} cannot be read: it is no regular file.", hint="Remove it, or write the list anew."
            )
        with path.open("rb") as stream:
            return stream.read(LARGEST)
    except FileNotFoundError:
        return None
