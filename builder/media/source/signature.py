"""Whether the list of checksums is Ubuntu's own, asked of its signature by a key that is pinned.

The OpenPGP is Sequoia's (pysequoia); what is decided here is which key counts, and what is said when it does not
fit. Sources: ubuntu.com/tutorials/how-to-verify-ubuntu for the fingerprint; RFC 9580, 5.2 for signatures.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from pysequoia import Cert, Sig, verify
from pysequoia.packet import PacketPile, SignatureType, Tag

from builder.errors import MediumError

if TYPE_CHECKING:
    from collections.abc import Sequence

PIN = "843938DF228D22F7B3742BC0D94AA3F0EFE21092"
"""The fingerprint of the "Ubuntu CD Image Automatic Signing Key (2012)", which signs all releases' SHA256SUMS."""
TOMORROW = timedelta(days=1)
OVER_DATA = (SignatureType.Binary, SignatureType.Text)
KEYS = (Tag.PublicKey, Tag.PublicSubkey)
SKIP = "--insecure-skip-signature goes on without this proof; --iso FILE --sha256 HEX takes an ISO you trust."


class SignatureError(MediumError):
    """The list of checksums is not proven to be Ubuntu's."""


@dataclass(frozen=True)
class Signature:
    """A good signature: the full fingerprint of the pinned key, and when it was made."""

    fingerprint: str
    made: datetime


def certificates(data: bytes) -> list[Cert]:
    """Return the certificates in a keyring or key file, armored or not; those Sequoia refuses are left out.

    Raises SignatureError if it is no OpenPGP data at all.
    """
    try:
        packets = list(PacketPile.from_bytes(data))
    except Exception as error:
        raise SignatureError(f"That is no OpenPGP key: {_first_line(error)}.") from error
    starts = [index for index, packet in enumerate(packets) if packet.tag == Tag.PublicKey]
    found = []
    for start, stop in itertools.pairwise([*starts, len(packets)]):
        try:
            found.append(Cert.from_packets(packets[start:stop]))
        except Exception:  # noqa: BLE001, S112, PERF203 - an old key beside the one that is wanted
            continue
    return found


def pinned(data: bytes, pin: str = PIN) -> Cert | None:
    """Return the certificate with the fingerprint ``pin`` among those in ``data``, None if it is not there whole."""
    return next((one for one in certificates(data) if one.fingerprint.upper() == pin.upper() and _whole(one)), None)


def _whole(cert: Cert) -> bool:
    """Say whether a certificate has what binds it together, and a key that signs; servers strip keys of both."""
    try:
        _ = cert.is_revoked, cert.expiration
        flags = [packet.key_flags for packet in PacketPile.from_bytes(bytes(cert)) if packet.tag == Tag.Signature]
    except Exception:  # noqa: BLE001 - Sequoia's errors have no common class; whatever it is, it proves nothing
        return False
    return any(one is not None and one.signing for one in flags)


def check(sums: bytes, signature: bytes, cert: Cert, *, now: datetime | None = None) -> Signature:
    """Return the signature that ``cert`` made over ``sums``.

    ``signature`` is what SHA256SUMS.gpg holds: one or several detached signatures, of which one by this key has
    to be good. ``now`` is the time it is judged by. Raises SignatureError that says which of the many ways it is
    not: no signature, another key's, a revoked or expired key, an expired signature, or changed contents.
    """
    now = now or datetime.now(timezone.utc)
    found = _signatures(signature)
    ours = _of(found, cert)
    if not ours:
        raise _by_another(found, cert.fingerprint)
    if cert.is_revoked:
        raise SignatureError(
            f"The key {spaced(cert.fingerprint)} that signed SHA256SUMS has been revoked.",
            hint=f"Look at ubuntu.com what replaces it. {SKIP}",
        )
    if cert.expiration is not None and cert.expiration <= now:
        raise SignatureError(
            f"The key {spaced(cert.fingerprint)} that signed SHA256SUMS expired on {cert.expiration:%Y-%m-%d}.",
            hint=f"A newer copy of the key may be valid longer: --signing-key FILE. {SKIP}",
        )
    good = [one for one in ours if _fits(sums, one, cert)]
    if not good:
        expired = [one.expiration for one in ours if one.expiration is not None and one.expiration <= now]
        if expired:
            raise SignatureError(
                f"The signature of SHA256SUMS expired on {max(expired):%Y-%m-%d}.",
                hint=f"Another mirror may have a newer one: --mirror URL. {SKIP}",
            )
        raise SignatureError(
            "SHA256SUMS does not fit its signature: it was changed after it was signed, or is only half there.",
            hint=f"A mirror in the middle of an update mends itself within the hour; else do not use it. {SKIP}",
        )
    made = max(one.created for one in good if one.created is not None)
    if made > now + TOMORROW:
        raise SignatureError(
            f"SHA256SUMS was signed on {made:%Y-%m-%d}, which is still to come by this host's clock ({now:%Y-%m-%d}).",
            hint="Set the clock right.",
        )
    return Signature(cert.fingerprint.upper(), made)


def check_issuer(signature: bytes, pin: str) -> None:
    """Say what can be said of SHA256SUMS.gpg without the pinned key at hand.

    Raises SignatureError if it holds no signature, or none that names the key ``pin``.
    """
    found = _signatures(signature)
    names = {pin.lower(), pin.lower()[-16:]}
    if not any({one.issuer_fingerprint, one.issuer_key_id} & names for one in found):
        raise _by_another(found, pin)


def _by_another(found: Sequence[Sig], pin: str) -> SignatureError:
    others = ", ".join(sorted({_issuer(one) for one in found}))
    return SignatureError(
        f"SHA256SUMS is signed by another key ({others}), not by {spaced(pin)}.",
        hint=f"Do not use what this server offers. {SKIP}",
    )


def spaced(fingerprint: str) -> str:
    """Return a fingerprint in groups of four, as people compare it."""
    text = fingerprint.upper()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def _signatures(data: bytes) -> list[Sig]:
    try:
        packets = [packet for packet in PacketPile.from_bytes(data) if packet.tag == Tag.Signature]
        found = [Sig.from_bytes(bytes(packet)) for packet in packets if packet.signature_type in OVER_DATA]
    except Exception as error:
        raise SignatureError(
            f"SHA256SUMS is not signed: SHA256SUMS.gpg holds no OpenPGP signature ({_first_line(error)}).",
            hint=f"A proxy may have answered with a page of its own. {SKIP}",
        ) from error
    if not found:
        raise SignatureError("SHA256SUMS is not signed: SHA256SUMS.gpg holds no signature.", hint=SKIP)
    return found


def _of(found: Sequence[Sig], cert: Cert) -> list[Sig]:
    """Return the signatures that say they are by a key of ``cert``."""
    keys = [packet for packet in PacketPile.from_bytes(bytes(cert)) if packet.tag in KEYS]
    names = {str(key.fingerprint).lower() for key in keys} | {str(key.key_id).lower() for key in keys}
    return [one for one in found if {(one.issuer_fingerprint or "").lower(), (one.issuer_key_id or "").lower()} & names]


def _issuer(one: Sig) -> str:
    return spaced(one.issuer_fingerprint or one.issuer_key_id or "unknown")


def _fits(sums: bytes, one: Sig, cert: Cert) -> bool:
    try:
        result = verify(bytes=sums, store=lambda _ids: [cert], signature=one)
    except Exception:  # noqa: BLE001 - Sequoia's errors have no common class; whatever it is, it does not fit
        return False
    return any(str(valid.certificate).lower() == cert.fingerprint.lower() for valid in result.valid_sigs)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
