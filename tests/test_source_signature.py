"""Every way in which a list of checksums can fail to be Ubuntu's is refused, each by its name."""

from __future__ import annotations

import functools
import shutil
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysequoia import ArmorKind, Cert, Sig, Tsk, armor
from pysequoia.packet import PacketPile, Tag

from builder.events import Event, Note, silent
from builder.media.source.signature import PIN, SignatureError, certificates, check, pinned, spaced
from builder.media.source.trust import Trust
from builder.media.source.web import Patience, Web, open_client
from tests.mirror import Mirror, key, serving, signed, sums, trust

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent / "data"
LIST = sums({"ubuntu-24.04.3-live-server-amd64.iso": b"an ISO"})
LATER = datetime.now(timezone.utc) + timedelta(days=3650)


@functools.cache
def other() -> Tsk:
    return Tsk.generate("Somebody Else <else@example.org>")


@functools.cache
def brief() -> tuple[Cert, bytes]:
    """Return a key that is valid for an hour, and what it signed."""
    made = Tsk.generate("For an hour <hour@example.org>", validity_seconds=3600)
    return made.extract_certificate(), signed(LIST, made)


def cert() -> Cert:
    return key().extract_certificate()


def test_ubuntus_key_is_pinned_by_its_full_fingerprint() -> None:
    assert spaced(PIN) == "8439 38DF 228D 22F7 B374 2BC0 D94A A3F0 EFE2 1092"
    assert len(PIN) == 40


def test_a_good_signature() -> None:
    found = check(LIST, signed(LIST), cert())
    assert found.fingerprint == cert().fingerprint.upper()
    assert abs(found.made - datetime.now(timezone.utc)) < timedelta(hours=1)


def test_ubuntus_own_key_and_signature() -> None:
    """A list that Ubuntu published and signed, with the key it is pinned by; and one digit of it changed."""
    public = pinned((DATA / "ubuntu-cd-image-signing-key-2012.asc").read_bytes())
    assert public is not None
    listed, proof = ((DATA / "lubuntu-18.04.5" / name).read_bytes() for name in ("SHA256SUMS", "SHA256SUMS.gpg"))
    found = check(listed, proof, public)
    assert found.fingerprint == PIN
    assert found.made.isoformat() == "2020-10-27T20:00:26+00:00"
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        check(listed.replace(b"aaa52d2c", b"aaa52d2d"), proof, public)
    with pytest.raises(SignatureError, match=r"signed by another key .8439 38DF"):
        check(listed, proof, cert())


def test_one_good_signature_of_several_is_enough() -> None:
    """Ubuntu signed with an old and a new key for years; a host may know only one of them."""
    packets = bytes(Sig.from_bytes(signed(LIST, other()))) + bytes(Sig.from_bytes(signed(LIST)))
    assert check(LIST, packets, cert()).fingerprint == cert().fingerprint.upper()
    armored = armor(packets, ArmorKind.Signature).encode()
    assert check(LIST, armored, cert()).fingerprint == cert().fingerprint.upper()


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        (b"", "is not signed"),
        (b"<html><body>Please log in to the hotel's network</body></html>", "holds no OpenPGP signature"),
        (b"-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n", "is not signed"),
        (str(key().extract_certificate()).encode(), "holds no signature"),
    ],
)
def test_unsigned(proof: bytes, said: str) -> None:
    with pytest.raises(SignatureError, match=said) as caught:
        check(LIST, proof, cert())
    assert "--insecure-skip-signature" in str(caught.value.hint)
    assert "\n" not in caught.value.message


def test_changed_after_it_was_signed() -> None:
    for changed in (LIST.replace(b"24.04.3", b"24.04.4"), LIST + b"\n", LIST[:-1], b""):
        with pytest.raises(SignatureError, match="was changed after it was signed"):
            check(changed, signed(LIST), cert())


def test_signed_by_another_key() -> None:
    with pytest.raises(SignatureError, match="signed by another key") as caught:
        check(LIST, signed(LIST, other()), cert())
    assert spaced(cert().fingerprint) in caught.value.message
    named = Sig.from_bytes(signed(LIST, other())).issuer_fingerprint
    assert spaced(str(named)) in caught.value.message


def test_another_key_that_says_it_is_the_pinned_one() -> None:
    """The issuer that a signature names is only its word."""
    forged = bytes(Sig.from_bytes(signed(LIST, other())))
    mine, theirs = (Sig.from_bytes(signed(LIST, one)).issuer_fingerprint or "" for one in (key(), other()))
    forged = forged.replace(bytes.fromhex(theirs), bytes.fromhex(mine))
    forged = forged.replace(bytes.fromhex(theirs)[-8:], bytes.fromhex(mine)[-8:])
    assert Sig.from_bytes(forged).issuer_fingerprint == mine
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        check(LIST, forged, cert())


def test_an_expired_key() -> None:
    public, proof = brief()
    assert check(LIST, proof, public).fingerprint == public.fingerprint.upper()
    with pytest.raises(SignatureError, match=r"key .* expired on \d{4}-\d\d-\d\d") as caught:
        check(LIST, proof, public, now=LATER)
    assert "--signing-key" in str(caught.value.hint)


def test_a_revoked_key() -> None:
    made = Tsk.generate("Lost <lost@example.org>")
    proof = signed(LIST, made)
    public = made.extract_certificate()
    revoked = Cert.from_bytes(bytes(public) + bytes(public.revoke(made.certifier())))
    with pytest.raises(SignatureError, match="has been revoked"):
        check(LIST, proof, revoked)


def test_a_signature_from_the_future() -> None:
    with pytest.raises(SignatureError, match="still to come by this host's clock"):
        check(LIST, signed(LIST), cert(), now=datetime.now(timezone.utc) - timedelta(days=400))


@pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed")
def test_an_expired_signature_by_gnupg(tmp_path: Path) -> None:
    """A signature with an end of its own, made by GnuPG; and GnuPG's ordinary one is good."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    (tmp_path / "list").write_bytes(LIST)

    def run(*words: str) -> bytes:
        return subprocess.run([*gpg, *words], check=True, capture_output=True).stdout

    try:
        run("--quick-generate-key", "Gnu <gnu@example.org>", "rsa3072", "sign", "never")
        public = certificates(run("--export"))[0]
        plain = run("--armor", "--output", "-", "--detach-sign", str(tmp_path / "list"))
        ended = run("--default-sig-expire", "seconds=1", "--output", "-", "--detach-sign", str(tmp_path / "list"))
    finally:
        subprocess.run([shutil.which("gpgconf") or "", "--homedir", str(home), "--kill", "all"], check=False)
    assert check(LIST, plain, public).fingerprint == public.fingerprint.upper()
    time.sleep(2.1)
    with pytest.raises(SignatureError, match=r"The signature of SHA256SUMS expired on"):
        check(LIST, ended, public)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_signature_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    good = bytes(Sig.from_bytes(SIGNED))
    place = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != good[place]))
    changed = good[:place] + bytes([value]) + good[place + 1 :]
    try:
        check(LIST, changed, cert())
    except SignatureError as error:
        assert "\n" not in error.message  # noqa: PT017 - both ends are looked at
    else:
        # What is not signed within a signature (its unhashed area) may change and it stays good.
        assert Sig.from_bytes(changed).created == Sig.from_bytes(good).created


SIGNED = signed(LIST)


@given(st.binary(max_size=300))
def test_rubbish_is_no_key_and_no_signature(data: bytes) -> None:
    with pytest.raises(SignatureError):
        check(LIST, data, cert())
    try:
        assert certificates(data) == []
    except SignatureError as error:
        assert "is no OpenPGP key" in error.message  # noqa: PT017 - one of the two


def test_the_key_is_found_among_others() -> None:
    ring = bytes(other().extract_certificate()) + bytes(cert())
    found = pinned(ring, cert().fingerprint)
    assert found is not None
    assert found.fingerprint == cert().fingerprint
    assert pinned(ring) is None


def stripped() -> dict[str, bytes]:
    """Return copies of the test key that lack something, as key servers and careless exports leave them."""
    packets = list(PacketPile.from_bytes(bytes(cert())))
    subkey = next(index for index, packet in enumerate(packets) if packet.tag == Tag.PublicSubkey)
    unbound = [packet for packet in packets if packet.tag != Tag.Signature]
    return {
        "the primary key alone": bytes(packets[0]),
        "no signature at all": b"".join(map(bytes, unbound)),
        "no key that signs": b"".join(map(bytes, packets[:subkey])),
        "a key that signs, not bound": b"".join(map(bytes, packets[: subkey + 1])),
    }


@pytest.mark.parametrize("what", stripped())
def test_a_stripped_key_is_none(tmp_path: Path, what: str) -> None:
    """It does not end in a traceback, is not kept, and the next place is asked; also if an earlier run kept it."""
    pin, data = cert().fingerprint.upper(), stripped()[what]
    assert pinned(data, pin) is None
    assert pinned(data + bytes(cert()), pin) is not None
    whom = trust(tmp_path / "file")
    (tmp_path / "file/test-key.asc").write_bytes(data)
    with pytest.raises(SignatureError, match=r"does not hold the key .* or not all of it"):
        whom.proven(LIST, SIGNED, None, silent)
    kept, ring = tmp_path / f"keys/{pin}.asc", tmp_path / "ring.gpg"
    kept.parent.mkdir()
    for place in (kept, ring):
        place.write_bytes(data)
    files = {f"/stripped?search=0x{pin}": data, f"/key?search=0x{pin}": str(cert()).encode()}
    with serving(files) as mirror, open_client() as client:
        web = Web(client, silent, Patience(first=0.0))
        with pytest.raises(SignatureError, match="not with all of it"):
            fetching(tmp_path, mirror, "/stripped").key(web, silent)
        assert kept.read_bytes() == data
        whole = fetching(tmp_path, mirror, "/stripped", "/key", keyrings=(ring,))
        assert whole.proven(LIST, SIGNED, web, silent) is not None
    assert whole.proven(LIST, SIGNED, None, silent) is not None
    assert pinned(kept.read_bytes(), pin) is not None


def test_ubuntus_own_key_stripped() -> None:
    data = (DATA / "ubuntu-cd-image-signing-key-2012.asc").read_bytes()
    packets = list(PacketPile.from_bytes(data))
    assert pinned(b"".join(map(bytes, packets))) is not None
    assert pinned(b"".join(map(bytes, packets[:1]))) is None
    assert pinned(b"".join(map(bytes, packets[:2]))) is None


def test_a_revoked_or_expired_key_is_whole() -> None:
    """What is wrong with it is said by name when it is used."""
    made = Tsk.generate("Lost <lost@example.org>")
    public = made.extract_certificate()
    revoked = bytes(public) + bytes(public.revoke(made.certifier()))
    assert pinned(revoked, public.fingerprint) is not None
    assert pinned(bytes(brief()[0]), brief()[0].fingerprint) is not None


@pytest.fixture
def servers() -> Iterator[Mirror]:
    with serving({"/key": str(cert()).encode(), "/wrong": str(other().extract_certificate()).encode()}) as mirror:
        yield mirror


def fetching(folder: Path, mirror: Mirror, *paths: str, keyrings: tuple[Path, ...] = ()) -> Trust:
    addresses = tuple(f"{mirror.url}{path}?search=0x{{fingerprint}}" for path in paths)
    return Trust(folder, pin=cert().fingerprint.upper(), keyrings=keyrings, servers=addresses)


def test_the_key_comes_from_a_file_first(tmp_path: Path) -> None:
    whom = trust(tmp_path)
    assert whom.key(None, silent).fingerprint == cert().fingerprint
    (tmp_path / "test-key.asc").write_text(str(other().extract_certificate()))
    with pytest.raises(SignatureError, match="does not hold the key"):
        whom.key(None, silent)
    (tmp_path / "test-key.asc").unlink()
    with pytest.raises(SignatureError, match="does not hold the key"):
        whom.key(None, silent)
    (tmp_path / "test-key.asc").write_text("no key")
    with pytest.raises(SignatureError, match="is no OpenPGP key"):
        whom.key(None, silent)


def test_the_key_comes_from_the_hosts_keyring(tmp_path: Path, servers: Mirror) -> None:
    ring = tmp_path / "ubuntu-archive-keyring.gpg"
    ring.write_bytes(bytes(other().extract_certificate()) + bytes(cert()))
    broken = tmp_path / "broken.gpg"
    broken.write_bytes(b"rubbish")
    whom = fetching(tmp_path / "cache", servers, "/key", keyrings=(tmp_path / "none", broken, ring))
    with open_client() as client:
        assert whom.key(Web(client, silent), silent).fingerprint == cert().fingerprint
    assert not servers.asked


def test_the_key_is_fetched_by_fingerprint_checked_and_kept(tmp_path: Path, servers: Mirror) -> None:
    servers.files = {f"{path}?search=0x{cert().fingerprint.upper()}": data for path, data in servers.files.items()}
    whom = fetching(tmp_path, servers, "/gone", "/wrong", "/key")
    notes: list[Event] = []
    with open_client() as client:
        found = whom.key(Web(client, notes.append, Patience(first=0.0)), notes.append)
    assert found.fingerprint == cert().fingerprint
    assert any(isinstance(note, Note) and "has the pinned fingerprint" in note.text for note in notes)
    asked = len(servers.asked)
    assert whom.key(None, silent).fingerprint == cert().fingerprint
    assert len(servers.asked) == asked


def test_a_key_server_that_answers_with_another_key_is_not_believed(tmp_path: Path, servers: Mirror) -> None:
    servers.files = {f"/wrong?search=0x{cert().fingerprint.upper()}": servers.files["/wrong"]}
    whom = fetching(tmp_path, servers, "/wrong")
    with open_client() as client, pytest.raises(SignatureError, match="answers with another key") as caught:
        whom.key(Web(client, silent, Patience(first=0.0)), silent)
    assert "ubuntu-keyring" in str(caught.value.hint)
    assert not (tmp_path / "keys").exists()


def test_no_key_anywhere(tmp_path: Path) -> None:
    whom = Trust(tmp_path, keyrings=(), servers=())
    proof = (DATA / "lubuntu-18.04.5/SHA256SUMS.gpg").read_bytes()
    with pytest.raises(SignatureError, match=r"8439 38DF .* is not on this host"):
        whom.proven(LIST, proof, None, silent)
    with pytest.raises(SignatureError, match="is signed by another key"):
        whom.proven(LIST, SIGNED, None, silent)
    with pytest.raises(SignatureError, match="holds no OpenPGP signature"):
        whom.proven(LIST, b"<html>", None, silent)
    with pytest.raises(SignatureError, match=r"there is no SHA256SUMS\.gpg beside it"):
        whom.proven(LIST, None, None, silent)
    assert Trust(tmp_path, skip=True).proven(LIST, None, None, silent) is None
