"""From a release's name to the genuine ISO, against a miniature of Ubuntu's servers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from pysequoia import Tsk

from builder import larder
from builder.errors import HostError, MediumError
from builder.events import Event, Note, silent
from builder.media.source.acquire import Request, acquire
from builder.media.source.catalogue import catalogue
from builder.media.source.download import ChecksumError
from builder.media.source.memory import RolledBackError, Seen
from builder.media.source.shelf import Shelf
from builder.media.source.signature import SignatureError
from builder.media.source.web import NotThere, Patience, Unreachable, Web, open_client
from tests.mirror import Fault, Mirror, folder, iso, key, name_of, release, serving, signed, streams, sums, trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.media.source.origin import Origin

FAST = Patience(tries=2, cuts=3, first=0.001, longest=0.002)
NEW, OLD = name_of("24.04.3"), name_of("24.04.2")
ODD = json.dumps({"a/amd64": {"version": "x", "sha256": "0" * 64, "signed": "2025-08-07T10:00:00+00:00"}}).encode()
UNDATED = json.dumps({"a/amd64": {"version": "24.04.3", "sha256": "0" * 64, "signed": "?"}}).encode()


def tree() -> dict[str, bytes]:
    """Return the three servers, below one address each: releases, cdimage and old-releases."""
    files = {**release("24.04.3", base="/rel"), **release("22.04.5", base="/rel"), **release("25.10", base="/rel")}
    for version in ("24.04.3", "22.04.5"):
        made = folder({name_of(version, "arm64"): iso(version, "arm64")})
        series = version.rsplit(".", 1)[0]
        for place in (series, version, *(["noble"] if series == "24.04" else [])):
            files |= {f"/cd/releases/{place}/release/{name}": data for name, data in made.items()}
    files |= {
        name.replace("/old/24.04/", "/old/24.04.2/"): data for name, data in release("24.04.2", base="/old").items()
    }
    return files | streams({"24.04.3": ["amd64"], "22.04.5": ["amd64"], "25.10": ["amd64"]}, base="/rel")


@pytest.fixture
def server() -> Iterator[Mirror]:
    with serving(tree()) as made:
        yield made


@pytest.fixture(autouse=True)
def ubuntu(server: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the miniature in the place of Ubuntu's servers."""
    for name, value in {
        "RELEASES": {"amd64": f"{server.url}/rel"},
        "OTHERS": f"{server.url}/cd/releases",
        "OLD": f"{server.url}/old",
    }.items():
        monkeypatch.setattr(f"builder.media.source.catalogue.{name}", value)
    monkeypatch.setattr("builder.media.source.acquire.OLD", f"{server.url}/old")


def request(cache: Path, version: str = "24.04", arch: str = "amd64", **more: Any) -> Request:
    skip = bool(more.pop("skip", False))
    made = {"mirrors": (), "cached": False, **more}
    return Request(version, arch, trust(cache, skip=skip), patience=FAST, **made)


def got(cache: Path, version: str = "24.04", arch: str = "amd64", **more: Any) -> tuple[str, Origin]:
    """Return the name of what is acquired, having looked at its bytes."""
    with acquire(request(cache, version, arch, **more), cache, silent) as found:
        data = found.path.read_bytes()
        assert data == iso(found.path.name.split("-")[1], arch)
        assert found.origin.sha256 == hashlib.sha256(data).hexdigest() == found.path.parent.name
        return found.path.name, found.origin


def warnings(cache: Path, version: str = "24.04", **more: Any) -> list[str]:
    events: list[Event] = []
    with acquire(request(cache, version, **more), cache, events.append):
        return [one.text for one in events if isinstance(one, Note) and one.level == "warning"]


def notes(texts: list[str]) -> Callable[[Event], None]:
    return lambda event: texts.append(event.text) if isinstance(event, Note) else None


def offer(server: Mirror, version: str) -> None:
    """Make a point release the newest of its series."""
    place = f"/rel/{version.rsplit('.', 1)[0]}/"
    kept = {name: data for name, data in server.files.items() if not name.startswith(place)}
    made = {name: data for name, data in release(version, base="/rel").items() if name.startswith(place)}
    noble = {name.replace(place, "/rel/noble/"): data for name, data in made.items()}
    server.files = kept | made | noble


def test_a_series_means_its_newest_point_release(tmp_path: Path, server: Mirror) -> None:
    name, origin = got(tmp_path)
    assert name == NEW
    assert origin.signature == "verified"
    assert origin.key == key().extract_certificate().fingerprint.upper()
    assert origin.url == f"{server.url}/rel/24.04/{NEW}"
    assert origin.signed is not None
    got(tmp_path)
    assert server.times(f"/rel/24.04/{NEW}") == 1


@pytest.mark.parametrize(
    ("asked", "arch", "name"),
    [
        ("24.04.3", "amd64", NEW),
        ("24.04.2", "amd64", OLD),
        ("lts", "amd64", NEW),
        ("latest", "amd64", name_of("25.10")),
        ("jammy", "amd64", name_of("22.04.5")),
        ("24.04", "arm64", name_of("24.04.3", "arm64")),
        ("22.04.5", "arm64", name_of("22.04.5", "arm64")),
        ("lts", "arm64", name_of("24.04.3", "arm64")),
        ("latest", "arm64", name_of("24.04.3", "arm64")),
        ("noble", "arm64", name_of("24.04.3", "arm64")),
    ],
)
def test_what_is_asked_for_is_found(tmp_path: Path, asked: str, arch: str, name: str) -> None:
    assert got(tmp_path, asked, arch)[0] == name


def test_an_older_point_release_comes_from_old_releases(tmp_path: Path, server: Mirror) -> None:
    assert got(tmp_path, "24.04.2")[1].url == f"{server.url}/old/24.04.2/{OLD}"
    assert server.times("/rel/24.04.2/SHA256SUMS") == 1


@pytest.mark.parametrize("asked", ["mantic", "23.10"])
def test_a_series_that_is_gone_comes_from_old_releases_by_either_name(
    tmp_path: Path, server: Mirror, asked: str
) -> None:
    made = release("23.10", base="/old")
    server.files |= made | {name.replace("/23.10/", "/mantic/"): data for name, data in made.items()}
    assert got(tmp_path, asked)[1].url == f"{server.url}/old/23.10/{name_of('23.10')}"
    with pytest.raises(NotThere, match="No release called `mantik`"):
        got(tmp_path, "mantik")
    assert not server.times("/old/"), "what is in none of the likely places is not looked for in all of them"


def test_old_releases_as_a_mirror_are_asked_like_any(tmp_path: Path, server: Mirror) -> None:
    server.files |= release("24.04.2", base="/old")
    assert got(tmp_path, "lts", mirrors=(f"{server.url}/old/",))[0] == OLD
    assert got(tmp_path, mirrors=(f"{server.url}/old",))[0] == OLD
    server.files = {}
    with pytest.raises(NotThere, match=r"No live-server ISO of latest for amd64 was found.*answers 404"):
        got(tmp_path, "latest", mirrors=(f"{server.url}/old",))


def test_the_catalogues_size_is_used_where_the_server_tells_none(
    tmp_path: Path, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = type("Usage", (), {"free": 1000})
    server.always[f"/rel/24.04/{NEW}"] = Fault(unmeasured=True)
    with monkeypatch.context() as patch:
        patch.setattr("builder.media.source.download.shutil.disk_usage", lambda _path: room)
        with pytest.raises(HostError, match="are free"):
            got(tmp_path, "lts")
    assert not server.times(f"/rel/24.04.3/{NEW}")
    assert got(tmp_path, "lts")[0] == NEW


def test_a_size_of_another_iso_says_nothing(tmp_path: Path, server: Mirror) -> None:
    """The catalogue may be behind the list, or lie; its size counts only with the SHA-256 that was signed."""
    path = "/rel/streams/v1/com.ubuntu.releases:ubuntu-server.json"
    right = hashlib.sha256(iso("24.04.3")).hexdigest().encode()
    wrong = server.files[path].replace(b'"size": 300000', b'"size": 7')
    server.files[path] = wrong.replace(right, b"0" * 64)
    assert got(tmp_path, "lts")[0] == NEW
    server.files[path] = wrong
    with pytest.raises(NotThere, match="has 300000 bytes, and the published ISO 7"):
        got(tmp_path / "other", "lts")


def test_old_releases_never_answer_for_a_server_that_is_down(tmp_path: Path, server: Mirror) -> None:
    """They would offer an old point release as the newest of its series."""
    server.files |= release("24.04.1", base="/old")
    server.always = {name: Fault(status=503) for name in server.files if name.startswith("/rel/")}
    with pytest.raises(Unreachable, match="answers 503"):
        got(tmp_path)
    with pytest.raises(Unreachable):
        got(tmp_path, "lts")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("24.04.9", "No live-server ISO of 24.04.9 for amd64 was found"),
        ("23.10", "answers 404"),
        ("hardy", "No release called `hardy`"),
        ("noble numbat", "'noble numbat' is no release"),
    ],
)
def test_what_is_not_there(tmp_path: Path, asked: str, said: str) -> None:
    with pytest.raises(MediumError, match=said):
        got(tmp_path, asked)


def test_a_version_without_an_end_is_none(tmp_path: Path, server: Mirror) -> None:
    """It is read before the signature is, and no number of so many digits can be."""
    listed = server.files["/rel/24.04/SHA256SUMS"]
    line = f"{'0' * 64} *{name_of('24.04.' + '9' * 5000)}\n".encode()
    server.files["/rel/24.04/SHA256SUMS"] = line + listed
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        got(tmp_path)
    server.files["/rel/24.04/SHA256SUMS"] = line
    with pytest.raises(MediumError, match=r"No live-server ISO of 24\.04"):
        got(tmp_path / "other")


def test_unsigned_is_refused_by_name(tmp_path: Path, server: Mirror) -> None:
    del server.files["/rel/24.04/SHA256SUMS.gpg"]
    with pytest.raises(SignatureError, match=r"is not signed: there is no SHA256SUMS\.gpg beside it"):
        got(tmp_path)
    assert not server.times(f"/rel/24.04/{NEW}")


def test_tampered_sums_are_refused_by_name(tmp_path: Path, server: Mirror) -> None:
    path = f"/rel/24.04/{NEW}"
    server.files[path] = b"evil" * 1000
    server.files["/rel/24.04/SHA256SUMS"] = sums({NEW: server.files[path]})
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        got(tmp_path)
    assert not server.times(path)


def test_another_signer_is_refused_by_name(tmp_path: Path, server: Mirror) -> None:
    other = Tsk.generate("Evil <evil@example.org>")
    server.files["/rel/24.04/SHA256SUMS.gpg"] = signed(server.files["/rel/24.04/SHA256SUMS"], other)
    with pytest.raises(SignatureError, match="is signed by another key"):
        got(tmp_path)


def test_another_iso_is_refused_by_name(tmp_path: Path, server: Mirror) -> None:
    server.files[f"/rel/24.04/{NEW}"] = server.files[f"/rel/24.04.3/{NEW}"] = iso("24.04.3")[:-1] + b"!"
    with pytest.raises(ChecksumError, match="is not the published ISO"):
        got(tmp_path)
    assert not list((tmp_path / "iso").rglob("*.iso*"))


def test_the_signature_can_be_skipped_with_a_warning_and_a_record(tmp_path: Path, server: Mirror) -> None:
    del server.files["/rel/24.04/SHA256SUMS.gpg"]
    name, origin = got(tmp_path, skip=True)
    assert (name, origin.signature, origin.key) == (NEW, "skipped", None)
    assert any("not proven to be Ubuntu's" in text for text in warnings(tmp_path, skip=True))
    with pytest.raises(SignatureError):
        got(tmp_path)
    server.files["/rel/24.04/SHA256SUMS.gpg"] = signed(server.files["/rel/24.04/SHA256SUMS"])
    assert got(tmp_path)[1].signature == "verified"
    assert server.times(f"/rel/24.04/{NEW}") == 1


def test_a_skipped_signature_stays_skipped_offline(tmp_path: Path) -> None:
    got(tmp_path, skip=True)
    with pytest.raises(MediumError, match=r"No proven ISO of 24\.04"):
        got(tmp_path, cached=True)
    assert got(tmp_path, cached=True, skip=True)[1].signature == "skipped"


def test_what_was_verified_once_is_not_when_nobody_looks(tmp_path: Path) -> None:
    assert got(tmp_path)[1].signature == "verified"
    path = Shelf(tmp_path).all()[0].path.with_name("SHA256SUMS")
    path.write_bytes(path.read_bytes() + b"tampered\n")
    origin = got(tmp_path, cached=True, skip=True)[1]
    assert (origin.signature, origin.key, origin.signed) == ("skipped", None, None)
    with pytest.raises(MediumError, match="No proven ISO"):
        got(tmp_path, cached=True)


def test_a_kept_iso_counts_as_what_its_list_calls_it(tmp_path: Path, server: Mirror) -> None:
    """The record beside it is nobody's word: an old ISO does not become the newest by it."""
    offer(server, "24.04.2")
    got(tmp_path)
    record = Shelf(tmp_path).all()[0].path.with_name("medium.json")
    record.write_text(record.read_text().replace('"version": "24.04.2"', '"version": "24.04.3"'))
    with pytest.raises(MediumError, match="No proven ISO"):
        got(tmp_path, cached=True)


def test_a_release_that_is_rolled_back_is_refused_by_name(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    offer(server, "24.04.2")
    with pytest.raises(RolledBackError, match=r"offers 24\.04\.2 as the newest, but 24\.04\.3 has been seen already"):
        got(tmp_path)
    assert got(tmp_path, "24.04.2")[0] == OLD
    with pytest.raises(RolledBackError):
        got(tmp_path)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("24.04", "lts"),
        ("24.04", "noble"),
        ("24.04.3", "24.04"),
        ("24.04.3", "lts"),
        ("lts", "24.04"),
        ("noble", "latest"),
    ],
)
def test_what_was_seen_under_one_name_counts_under_every_other(
    tmp_path: Path, server: Mirror, first: str, then: str
) -> None:
    """The list that is offered later is Ubuntu's own and well signed, only older."""
    server.files |= streams({"24.04.3": ["amd64"]}, base="/rel")
    assert got(tmp_path, first)[0] == NEW
    offer(server, "24.04.2")
    with pytest.raises(RolledBackError, match=r"offers 24\.04\.2 as the newest, but 24\.04\.3 has been seen already"):
        got(tmp_path, then)
    assert got(tmp_path, "24.04.2")[0] == OLD
    with pytest.raises(RolledBackError):
        got(tmp_path, then)


def test_a_record_by_words_alone_counts_for_the_series(tmp_path: Path, server: Mirror) -> None:
    """As it was written when only the word that was asked for was remembered."""
    record = tmp_path / "iso/seen.json"
    record.parent.mkdir()
    entry = {"version": "24.04.3", "sha256": "0" * 64, "signed": "2025-08-07T10:00:00+00:00"}
    record.write_text(json.dumps({"newest of lts/amd64": entry}))
    offer(server, "24.04.2")
    with pytest.raises(RolledBackError):
        got(tmp_path)
    assert got(tmp_path / "other")[0] == OLD


def test_the_other_architecture_has_its_own_newest(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    server.files |= {
        f"/cd/releases/24.04/release/{name}": data
        for name, data in folder({name_of("24.04.2", "arm64"): iso("24.04.2", "arm64")}).items()
    }
    assert got(tmp_path, "24.04", "arm64")[0] == name_of("24.04.2", "arm64")


def test_the_record_never_becomes_older(tmp_path: Path, server: Mirror) -> None:
    """Of two builds at a time, the one that saw less may be the last to write."""
    memory = Shelf(tmp_path).memory
    newer, older = (Seen(f"24.04.{point}", str(point) * 64, "2025-08-07T10:00:00+00:00") for point in (3, 2))
    memory.admit("24.04", "amd64", newer, server.url, silent)
    memory.admit("24.04.2", "amd64", older, server.url, silent)
    with pytest.raises(RolledBackError):
        memory.admit("lts", "amd64", older, server.url, silent)
    assert memory.seen(silent)["newest of 24.04/amd64"] == newer
    assert memory.seen(silent)["24.04.2/amd64"] == older
    assert "newest of lts/amd64" not in memory.seen(silent)


def test_looking_and_writing_are_one_step(tmp_path: Path, server: Mirror) -> None:
    """Many builds remember something at the same time, and nothing is lost."""
    made = "2025-08-07T10:00:00+00:00"
    seen = [Seen(f"{year}.04.{point}", "a" * 64, made) for year in range(20, 28) for point in (1, 2, 3)]
    with ThreadPoolExecutor(8) as pool:
        for one in seen:
            pool.submit(Shelf(tmp_path).memory.admit, one.version, "amd64", one, server.url, silent)
    known = Shelf(tmp_path).memory.seen(silent)
    assert {one.version for key, one in known.items() if key.startswith("newest of ")} == {
        f"{year}.04.3" for year in range(20, 28)
    }
    assert len(known) == len(seen) + 8


def test_a_newest_that_is_proven_but_not_given_is_no_reason_for_an_older(tmp_path: Path, server: Mirror) -> None:
    offer(server, "24.04.2")
    assert got(tmp_path)[0] == OLD
    offer(server, "24.04.3")
    for place in ("24.04", "24.04.3"):
        server.always[f"/rel/{place}/{NEW}"] = Fault(status=503)
    with pytest.raises(Unreachable, match="does not come through"):
        got(tmp_path)
    texts: list[str] = []
    for more in ({"cached": True}, {"mirrors": ("http://127.0.0.1:1",)}):
        with pytest.raises(MediumError), acquire(request(tmp_path, **more), tmp_path, notes(texts)):
            pass
        assert "24.04.3 has been seen already; --release 24.04.2 takes it" in texts[-1]
    assert got(tmp_path, "24.04.2", cached=True)[0] == OLD
    server.always.clear()
    assert got(tmp_path)[0] == NEW
    assert got(tmp_path, cached=True)[0] == NEW


def test_a_kept_iso_that_was_rebuilt_since_is_not_used_offline(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    time.sleep(1.1)
    listed = sums({NEW: b"rebuilt"})
    server.files |= {"/rel/24.04/SHA256SUMS": listed, "/rel/24.04/SHA256SUMS.gpg": signed(listed)}
    for place in ("24.04", "24.04.3"):
        server.always[f"/rel/{place}/{NEW}"] = Fault(status=503)
    with pytest.raises(Unreachable):
        got(tmp_path)
    texts: list[str] = []
    with pytest.raises(MediumError), acquire(request(tmp_path, cached=True), tmp_path, notes(texts)):
        pass
    assert "another ISO of it, in a list that was signed later" in texts[-1]


def test_the_first_release_of_a_series_is_a_roll_back_too(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    for name in [name for name in server.files if name.startswith("/rel/24.04/")]:
        del server.files[name]
    server.files |= release("24.04", base="/rel")
    with pytest.raises(RolledBackError, match=r"offers 24\.04 as the newest, but 24\.04\.3 has been seen"):
        got(tmp_path)


def test_a_series_that_vanishes_from_the_catalogue_is_rolled_back_too(tmp_path: Path, server: Mirror) -> None:
    assert got(tmp_path, "latest")[0] == name_of("25.10")
    server.files |= streams({"24.04.3": ["amd64"], "22.04.5": ["amd64"]}, base="/rel")
    with pytest.raises(RolledBackError, match=r"25\.10 has been seen already"):
        got(tmp_path, "latest")


def test_a_list_that_was_signed_earlier_is_no_newer_one(tmp_path: Path, server: Mirror) -> None:
    """The same point release with another ISO is a rebuild if it was signed later, and a replay if earlier."""
    before = {name: data for name, data in server.files.items() if name.startswith("/rel/24.04/")}
    got(tmp_path)
    time.sleep(1.1)
    listed = sums({NEW: b"rebuilt"})
    server.files |= {f"/rel/24.04/{NEW}": b"rebuilt", "/rel/24.04/SHA256SUMS": listed}
    server.files["/rel/24.04/SHA256SUMS.gpg"] = signed(listed)
    with acquire(request(tmp_path), tmp_path, silent) as found:
        assert found.path.read_bytes() == b"rebuilt"
    server.files |= before
    with pytest.raises(RolledBackError, match=r"another ISO of 24\.04\.3 than the one seen already"):
        got(tmp_path)


def test_a_stale_mirror_is_left_for_the_next(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    stale = {name: data for name, data in release("24.04.2").items() if name.startswith("/24.04/")}
    with serving(stale) as behind:
        texts = warnings(tmp_path, mirrors=(behind.url, f"{server.url}/rel"))
        assert any("has been seen already" in text and "Going on to the next server" in text for text in texts)
        with pytest.raises(RolledBackError):
            got(tmp_path, mirrors=(behind.url,))


def test_mirrors_in_all_their_shapes(tmp_path: Path, server: Mirror) -> None:
    files = folder({NEW: iso("24.04.3"), name_of("24.04.3", "arm64"): iso("24.04.3", "arm64")})
    for number, (shape, mirror) in enumerate(
        {
            "/ubuntu-releases/24.04": "/ubuntu-releases/",
            "/m/releases/24.04": "/m",
            "/m2/releases/24.04/release": "/m2",
            "/flat": "/flat",
            "/named/24.04/iso": "/named/{release}/iso",
        }.items()
    ):
        server.files |= {f"{shape}/{name}": data for name, data in files.items()}
        for arch in ("amd64", "arm64"):
            name, origin = got(tmp_path / str(number), "24.04", arch, mirrors=(f"{server.url}{mirror}",))
            assert origin.url == f"{server.url}{shape}/{name}"


def test_a_mirror_that_lacks_the_iso_leaves_it_to_the_next(tmp_path: Path, server: Mirror) -> None:
    """A mirror in the middle of an update has the list already."""
    early = {name: data for name, data in release("24.04.3").items() if "SHA256SUMS" in name}
    with serving(early) as half:
        origin = got(tmp_path, mirrors=(half.url, f"{server.url}/rel"))[1]
    assert origin.url == f"{server.url}/rel/24.04.3/{NEW}"


def test_without_a_way_to_the_server_the_one_fetched_before_is_used(tmp_path: Path) -> None:
    gone = ("http://127.0.0.1:1",)
    with pytest.raises(Unreachable, match="cannot be reached"):
        got(tmp_path, mirrors=gone)
    got(tmp_path)
    texts = warnings(tmp_path, mirrors=gone)
    assert any("cannot be reached" in text for text in texts)
    assert any(f"Using {NEW}, fetched before" in text for text in texts)
    assert got(tmp_path, mirrors=gone)[1].signature == "verified"
    assert got(tmp_path, "lts", cached=True)[0] == NEW
    with pytest.raises(Unreachable):
        got(tmp_path, "22.04", mirrors=gone)
    with pytest.raises(MediumError, match=r"No proven ISO of 22\.04 for amd64 is kept"):
        got(tmp_path, "22.04", cached=True)
    with pytest.raises(MediumError, match=r"No proven ISO of 24\.04 for arm64"):
        got(tmp_path, arch="arm64", cached=True)


def test_cached_asks_nobody(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    got(tmp_path, "22.04")
    asked = len(server.asked)
    assert got(tmp_path, cached=True)[0] == NEW
    assert got(tmp_path, "latest", cached=True)[0] == NEW
    assert len(server.asked) == asked


def test_a_flipped_bit_in_the_cache_is_found(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    path = Shelf(tmp_path).all()[0].path
    damaged = bytearray(path.read_bytes())
    damaged[123_456] ^= 1
    path.chmod(0o600)
    path.write_bytes(damaged)
    with pytest.raises(MediumError, match="No proven ISO"):
        got(tmp_path, cached=True)
    assert any("is damaged; it is fetched again" in text for text in warnings(tmp_path))
    assert got(tmp_path)[0] == NEW
    assert server.times(f"/rel/24.04/{NEW}") == 2


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.gpg", "medium.json"])
def test_what_is_kept_is_proven_again_from_what_lies_beside_it(tmp_path: Path, name: str) -> None:
    got(tmp_path)
    path = Shelf(tmp_path).all()[0].path.with_name(name)
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    with pytest.raises(MediumError, match="No proven ISO"):
        got(tmp_path, cached=True)
    assert got(tmp_path)[0] == NEW
    assert got(tmp_path, cached=True)[0] == NEW


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"[]", b"\xff", b"[" * 100_000, b'{"24.04.3/amd64": 3}', b'{"a": {"version": "1"}}', ODD, UNDATED],
)
def test_a_broken_record_of_what_was_seen_is_said_and_put_aside(tmp_path: Path, rubbish: bytes) -> None:
    record = tmp_path / "iso/seen.json"
    record.parent.mkdir()
    record.write_bytes(rubbish)
    assert any("the record of releases seen, is damaged" in text for text in warnings(tmp_path))
    assert record.with_name("seen.json.damaged").read_bytes() == rubbish
    assert "newest of 24.04/amd64" in json.loads(record.read_text())
    assert not warnings(tmp_path)
    record.write_bytes(b"{}")
    assert not warnings(tmp_path)


def test_what_is_whole_of_a_broken_record_still_counts(tmp_path: Path, server: Mirror) -> None:
    got(tmp_path)
    record = tmp_path / "iso/seen.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **json.loads(ODD)}))
    offer(server, "24.04.2")
    for _ in range(2):
        with pytest.raises(RolledBackError):
            got(tmp_path)
    assert record.with_name("seen.json.damaged").exists()


@pytest.mark.parametrize("version", ["x", "?", "24", "24.04.3.1", "9" * 5000 + ".04", 24.04, None])
def test_a_kept_record_with_an_odd_version_does_not_count(tmp_path: Path, version: object) -> None:
    got(tmp_path)
    record = Shelf(tmp_path).all()[0].path.with_name("medium.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": version}))
    assert [item.kind for item in larder.contents(tmp_path)] == ["part"]
    with pytest.raises(MediumError, match="No proven ISO"):
        got(tmp_path, cached=True)
    assert got(tmp_path)[0] == NEW
    assert [item.kind for item in larder.contents(tmp_path)] == ["iso"]


CHILD = """
import sys
from pathlib import Path
from builder.events import Note
from builder.media.source.acquire import Request, acquire
from builder.media.source.trust import Trust
cache = Path(sys.argv[1])
trust = Trust(cache, cache / "test-key.asc", pin=sys.argv[3], keyrings=(), servers=())
def tell(event):
    if isinstance(event, Note):
        print(event.text, flush=True)
with acquire(Request("24.04", "amd64", trust, (sys.argv[2],)), cache, tell) as found:
    print("HAS", found.path.stat().st_size)
"""


def test_two_builds_fetch_once(tmp_path: Path, server: Mirror) -> None:
    made = trust(tmp_path)
    server.always[f"/rel/24.04/{NEW}"] = Fault(drip=10_000, pause=0.1)
    argv = [sys.executable, "-c", CHILD, str(tmp_path), f"{server.url}/rel", made.pin]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [child.communicate(timeout=60)[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert all("HAS 300000" in text for text in told)
    assert server.times(f"/rel/24.04/{NEW}") == 1
    assert sum("Another prebake is fetching this ISO" in text for text in told) == 1


def test_killed_between_the_steps_it_goes_on(tmp_path: Path, server: Mirror) -> None:
    """Whatever a killed run has left of the last steps: the ISO without its record, a record without the ISO."""
    got(tmp_path)
    place = Shelf(tmp_path).all()[0].path.parent
    for missing in (["medium.json"], ["SHA256SUMS"], ["SHA256SUMS.gpg", "medium.json"], [NEW], [NEW, "SHA256SUMS"]):
        for name in missing:
            (place / name).unlink()
        assert got(tmp_path)[0] == NEW
        assert got(tmp_path, cached=True)[0] == NEW
    assert server.times(f"/rel/24.04/{NEW}") == 3


def test_the_catalogue_from_streams_and_from_folders_agree(server: Mirror) -> None:
    with open_client() as client:
        web = Web(client, silent, FAST)
        by_streams = catalogue(f"{server.url}/rel", "amd64", web)
        server.files = {name: data for name, data in server.files.items() if "/streams/" not in name}
        by_folders = catalogue(f"{server.url}/rel", "amd64", web)
        assert [(one.version, one.size, one.sha256) for one in by_streams] == [
            (one.version, one.size, one.sha256) for one in by_folders
        ]
        assert [one.version for one in by_folders] == ["22.04.5", "24.04.3", "25.10"]
        with pytest.raises(NotThere, match="shows no live-server ISOs for s390x"):
            catalogue(f"{server.url}/rel", "s390x", web)
        server.files["/rel/streams/v1/index.json"] = b"rubbish"
        assert catalogue(f"{server.url}/rel", "amd64", web) == by_folders
