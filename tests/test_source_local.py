"""An ISO at hand, the commands about media, and what the cache may lose."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder import larder
from builder.cli_media import _listed
from builder.errors import MediumError, UsageError
from builder.events import Event, Note, silent
from builder.media.source import local
from builder.media.source.acquire import Request, acquire
from builder.media.source.download import ChecksumError
from builder.media.source.origin import Origin
from builder.media.source.shelf import Shelf
from builder.media.source.signature import SignatureError
from builder.media.source.web import NotThere, Web, open_client
from builder.store import locked, shared
from tests.command_line import PREBAKE, environment, prebake
from tests.mirror import Mirror, iso, name_of, pinned_command, release, serving, signed, streams, sums, trust

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = name_of("24.04.3")
ISO = iso("24.04.3")
DIGEST = hashlib.sha256(ISO).hexdigest()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / NAME).write_bytes(ISO)
    return folder / NAME


def test_an_iso_with_nothing_beside_it_is_taken_as_it_is(mine: Path, tmp_path: Path) -> None:
    assert local.examine(mine, trust(tmp_path), silent) == Origin()


def test_a_given_digest_counts(mine: Path, tmp_path: Path) -> None:
    assert local.examine(mine, trust(tmp_path), silent, sha256=DIGEST).signature == "checksum"
    with pytest.raises(ChecksumError, match=f"is {DIGEST}, --sha256 says {'0' * 64}"):
        local.examine(mine, trust(tmp_path), silent, sha256="0" * 64)
    assert local.check_digest(DIGEST.upper()) == DIGEST
    for bad in ("", "abc", DIGEST + "0", DIGEST[:-1] + "g"):
        with pytest.raises(UsageError, match="is no SHA-256"):
            local.check_digest(bad)


def test_its_own_list_beside_it_counts(mine: Path, tmp_path: Path) -> None:
    beside = mine.with_name("SHA256SUMS")
    beside.write_bytes(sums({"other.iso": b"", NAME: ISO}))
    assert local.examine(mine, trust(tmp_path), silent).signature == "checksum"
    beside.write_bytes(sums({NAME: b"another"}))
    with pytest.raises(ChecksumError, match="SHA256SUMS says"):
        local.examine(mine, trust(tmp_path), silent)
    beside.write_bytes(sums({"other.iso": b"another"}))
    events: list[Event] = []
    assert local.examine(mine, trust(tmp_path), events.append).signature == "none"
    assert any(isinstance(one, Note) and f"does not list {NAME}" in one.text for one in events)


def test_a_signature_beside_it_counts(mine: Path, tmp_path: Path) -> None:
    beside, proof = mine.with_name("SHA256SUMS"), mine.with_name("SHA256SUMS.gpg")
    beside.write_bytes(sums({NAME: ISO}))
    proof.write_bytes(signed(beside.read_bytes()))
    found = local.examine(mine, trust(tmp_path), silent)
    assert (found.signature, found.sha256, found.key) == ("verified", DIGEST, trust(tmp_path).pin)
    proof.write_bytes(signed(b"another list"))
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        local.examine(mine, trust(tmp_path), silent)
    assert local.examine(mine, trust(tmp_path, skip=True), silent).signature == "skipped"


def test_a_renamed_iso_is_found_by_its_digest(mine: Path, tmp_path: Path) -> None:
    """What its signed list calls otherwise is genuine all the same."""
    renamed = mine.rename(mine.with_name("server.iso"))
    beside, proof = mine.with_name("SHA256SUMS"), mine.with_name("SHA256SUMS.gpg")
    beside.write_bytes(sums({"other.iso": b"", NAME: ISO}))
    assert local.examine(renamed, trust(tmp_path), silent) == Origin("checksum", DIGEST)
    proof.write_bytes(signed(beside.read_bytes()))
    events: list[Event] = []
    found = local.examine(renamed, trust(tmp_path), events.append)
    assert (found.signature, found.sha256, found.key) == ("verified", DIGEST, trust(tmp_path).pin)
    assert any(isinstance(one, Note) and f"server.iso is {NAME}, by its SHA-256" in one.text for one in events)
    assert local.examine(renamed, trust(tmp_path, skip=True), silent).signature == "skipped"
    proof.write_bytes(signed(b"another list"))
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        local.examine(renamed, trust(tmp_path), silent)
    renamed.write_bytes(b"something else")
    assert local.examine(renamed, trust(tmp_path), silent).signature == "none"


def fifo(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def test_what_has_no_end_is_not_read(mine: Path, tmp_path: Path) -> None:
    """A device or a pipe: the command comes to an end, and says why."""
    pipe = fifo(tmp_path / "pipe.iso")
    for odd in (Path("/dev/zero"), pipe):
        for words in ((), ("--sha256", "0" * 64)):
            done = prebake("iso", "--iso", odd, *words, cwd=tmp_path)
            assert done.code == 5, done.err
            assert "is not a regular file" in done.err
    fifo(mine.with_name("SHA256SUMS"))
    with pytest.raises(MediumError, match="SHA256SUMS cannot be read"):
        local.examine(mine, trust(tmp_path), silent)
    mine.with_name("SHA256SUMS").unlink()
    mine.with_name("SHA256SUMS").write_bytes(sums({NAME: ISO}))
    fifo(mine.with_name("SHA256SUMS.gpg"))
    with pytest.raises(MediumError, match=r"SHA256SUMS\.gpg cannot be read"):
        local.examine(mine, trust(tmp_path), silent)


def test_what_cannot_be_read(mine: Path, tmp_path: Path) -> None:
    mine.with_name("SHA256SUMS").mkdir()
    with pytest.raises(MediumError, match="SHA256SUMS cannot be read"):
        local.examine(mine, trust(tmp_path), silent)


@pytest.fixture
def server() -> Iterator[Mirror]:
    files = {**release("24.04.2"), **release("22.04.5", "amd64", "arm64"), **release("20.04.6")}
    files |= {name: data for name, data in release("24.04.3").items() if not name.startswith("/24.04/")}
    files |= streams({"20.04.6": ["amd64"], "22.04.5": ["amd64", "arm64"], "24.04.3": ["amd64"]})
    with serving(files) as made:
        yield made


def kept(cache: Path, server: Mirror, version: str, arch: str = "amd64") -> Path:
    request = Request(version, arch, trust(cache / "prebake"), (server.url,))
    with acquire(request, cache / "prebake", silent) as found:
        return found.path


def test_releases_shows_what_there_is(tmp_path: Path, server: Mirror) -> None:
    kept(tmp_path, server, "22.04")
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    plain = prebake("releases", "--mirror", server.url, env=env)
    assert plain.code == 0, plain.err
    rows = [line.split() for line in plain.out.splitlines()]
    assert rows == [
        ["SERIES", "NEWEST", "ARCH", "SIZE", "KEPT", "HERE"],
        ["20.04", "20.04.6", "LTS", "amd64", "0", "MB", "no", "too", "old:", "from", "22.04", "on"],
        ["22.04", "22.04.5", "LTS", "amd64", "0", "MB", "yes"],
        ["22.04", "22.04.5", "LTS", "arm64", "0", "MB", "no"],
        ["24.04", "24.04.3", "LTS", "amd64", "0", "MB", "no"],
    ]
    told = json.loads(prebake("releases", "--mirror", server.url, "--json", "--arch", "amd64", env=env).out)
    assert told[1] == {
        "series": "22.04",
        "version": "22.04.5",
        "arch": "amd64",
        "name": name_of("22.04.5"),
        "codename": "jammy",
        "size": 300_000,
        "sha256": hashlib.sha256(iso("22.04.5")).hexdigest(),
        "lts": True,
        "cached": True,
        "supported": True,
    }
    assert [row["supported"] for row in told] == [False, True, True]
    gone = prebake("releases", "--mirror", "http://127.0.0.1:1", env=env)
    assert gone.code == 0
    assert "Showing only what is kept here" in gone.err
    assert [line.split()[1] for line in gone.out.splitlines()[1:]] == ["22.04.5"]
    nothing = prebake("releases", "--mirror", "http://127.0.0.1:1", env={"XDG_CACHE_HOME": str(tmp_path / "none")})
    assert (nothing.code, nothing.out) == (5, "")
    assert "cannot be reached" in nothing.err


def test_old_releases_are_listed_if_they_are_the_mirror(server: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("builder.cli_media", "builder.media.source.catalogue"):
        monkeypatch.setattr(f"{module}.OLD", server.url)
    with open_client() as client:
        web = Web(client, silent)
        assert [one.version for one in _listed(("amd64",), (server.url,), web)] == ["20.04.6", "22.04.5", "24.04.3"]
        server.files = {}
        with pytest.raises(NotThere, match="answers 404"):
            _listed(("amd64",), (server.url,), web)


def fill(cache: Path, server: Mirror) -> None:
    kept(cache, server, "24.04.2")
    kept(cache, server, "24.04.3")
    kept(cache, server, "22.04.5")
    part = cache / "prebake/iso" / ("d" * 64)
    part.mkdir()
    (part / "ubuntu-25.10-live-server-amd64.iso.part").write_bytes(bytes(5000))
    (cache / "prebake/keys").mkdir()
    (cache / "prebake/keys/ABC.asc").write_text("a key")
    for number, name in enumerate(("base-1", "rehearsal-1.iso", "base-2", "rehearsal-2.iso")):
        path = cache / "prebake/rehearsal" / name
        path.parent.mkdir(exist_ok=True)
        if name.startswith("base"):
            path.mkdir()
            (path / "root.squashfs").write_bytes(bytes(20_000))
        else:
            path.write_bytes(bytes(10_000))
        os.utime(path, (1_000_000 + number, 1_000_000 + number))


def names(result: Any) -> list[str]:
    return [row["name"] for row in json.loads(result.out)]


def test_a_file_that_is_renamed_while_it_is_measured_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch ends: the part is the ISO between the listing and the look."""
    (tmp_path / "below").mkdir()
    for name in ("a", "below/b", "below/c"):
        (tmp_path / name).write_bytes(bytes(10_000))
    whole = larder.disk_size(tmp_path)
    assert whole == sum((tmp_path / name).stat().st_blocks * 512 for name in ("a", "below/b", "below/c"))
    look = Path.lstat

    def vanishing(path: Path) -> os.stat_result:
        if path.name == "b":
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(Path, "lstat", vanishing)
    assert larder.disk_size(tmp_path) == whole * 2 // 3
    assert larder.disk_size(tmp_path / "none") == 0


def test_the_cache_is_listed_and_pruned(tmp_path: Path, server: Mirror) -> None:
    fill(tmp_path, server)
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    listed = prebake("cache", "list", env=env)
    assert listed.code == 0, listed.err
    assert re.search(rf"^iso +0\.3 MB  \d{{4}}-\d\d-\d\d  {re.escape(NAME)}  verified$", listed.out, re.MULTILINE)
    assert re.search(rf"{name_of('24.04.2')}  verified  superseded$", listed.out, re.MULTILINE)
    told = json.loads(prebake("cache", "list", "--json", env=env).out)
    assert told["folder"] == str(tmp_path / "prebake")
    assert {row["kind"] for row in told["items"]} == {"iso", "part", "rehearsal", "base", "key"}
    assert all(row["size"] > 0 for row in told["items"])

    superseded = {name_of("24.04.2"), "ubuntu-25.10-live-server-amd64.iso", "base-1", "rehearsal-1.iso"}
    dry = prebake("cache", "prune", "--dry-run", env=env)
    assert all(f"Would remove {name}" in dry.out for name in superseded)
    assert json.loads(prebake("cache", "list", "--json", env=env).out)["items"] == told["items"]
    gone = prebake("cache", "prune", "--json", env=env)
    assert set(names(gone)) == superseded
    assert all(row["removed"] and not os.path.exists(row["path"]) for row in json.loads(gone.out))  # noqa: PTH110
    assert prebake("cache", "prune", env=env).out == ""

    assert names(prebake("cache", "prune", "--older-than", "30", "--json", env=env)) == ["rehearsal-2.iso", "base-2"]
    left = names(prebake("cache", "prune", "--all", "--json", env=env))
    assert sorted(left) == [name_of("22.04.5"), NAME]
    assert (tmp_path / "prebake/keys/ABC.asc").exists()
    assert Shelf(tmp_path / "prebake").memory.seen(silent), "what was seen stays, so that nothing can be rolled back"
    assert prebake("cache", "list", "--json", env={"XDG_CACHE_HOME": str(tmp_path / "none")}).out


def test_the_size_limit_takes_what_was_used_longest_ago(tmp_path: Path, server: Mirror) -> None:
    for version in ("22.04.5", "24.04.2", "24.04.3"):
        path = kept(tmp_path, server, version)
        age = {"22.04.5": 10, "24.04.2": 30, "24.04.3": 20}[version]
        for used in (path.with_name("medium.json"), path.parent.parent / "locks" / f"{path.parent.name}.use"):
            os.utime(used, (time.time() - age, time.time() - age))
    items = larder.contents(tmp_path / "prebake")
    sizes = {item.name: item.size for item in items}
    most = sizes[name_of("22.04.5")] + sizes[name_of("24.04.3")]
    going = larder.chosen(items, everything=False, days=None, most=most)
    assert [item.name for item in going] == [name_of("24.04.2")]
    assert [item.name for item in larder.chosen(items, everything=False, days=None, most=most - 1)] == [
        name_of("24.04.2"),
        NAME,
    ]
    assert not larder.chosen(items, everything=False, days=1, most=None)
    bad = prebake("cache", "prune", "--max-size", "lots", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert bad.code == 2
    assert "is not a size" in bad.err


def test_what_is_in_use_is_not_pruned(tmp_path: Path, server: Mirror) -> None:
    fill(tmp_path, server)
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    request = Request("24.04.3", "amd64", trust(tmp_path / "prebake"), (server.url,))
    locks = tmp_path / "prebake/iso/locks"
    with (
        acquire(request, tmp_path / "prebake", silent) as found,
        locked(locks / f"{'d' * 64}.fetch"),
        shared(tmp_path / "prebake/rehearsal/locks/rehearsal-1.iso.use"),
    ):
        done = prebake("cache", "prune", "--all", env=env)
        assert done.code == 0
        for name in (NAME, "ubuntu-25.10-live-server-amd64.iso", "rehearsal-1.iso"):
            assert f"In use, kept: {name}" in done.out
        assert found.path.exists()
        assert (tmp_path / "prebake/rehearsal/rehearsal-1.iso").exists()
    assert prebake("cache", "prune", "--all", env=env).out.count("Removed") == 3


def pinned(server: Mirror, cache: Path, *words: object) -> tuple[int, str, str]:
    argv = pinned_command(server, cache, *words)
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment({"XDG_CACHE_HOME": str(cache)}), cwd=cache
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_fetches_proves_and_refuses(tmp_path: Path, server: Mirror) -> None:
    """What is fetched here is no real ISO, so a run that trusts it ends with that: exit 5, and not before."""
    code, out, err = pinned(server, tmp_path, "iso", "--release", "24.04.3")
    assert (code, out) == (5, "")
    assert "is not an ISO" in err
    assert f"Medium: {tmp_path / 'prebake/iso' / DIGEST / NAME}" in err
    del server.files["/24.04.3/SHA256SUMS.gpg"]
    code, _, err = pinned(server, tmp_path, "iso", "--release", "24.04.3")
    assert code == 5
    assert "error: SHA256SUMS is not signed" in err
    assert "is not an ISO" not in err
    code, _, err = pinned(server, tmp_path, "iso", "--release", "24.04.3", "--insecure-skip-signature")
    assert "warning: The signature of SHA256SUMS is not checked" in err
    assert "is not an ISO" in err
    code, _, err = pinned(server, tmp_path, "iso", "--release", "25.04")
    assert code == 5
    assert "No live-server ISO of 25.04 for amd64 was found" in err


def test_the_command_with_ubuntus_pin_takes_no_other_key(tmp_path: Path, server: Mirror) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    whom = trust(tmp_path / "prebake")
    done = prebake("iso", "--mirror", server.url, "--signing-key", whom.key_file, env=env)
    assert done.code == 5
    assert "does not hold the key 8439 38DF 228D 22F7 B374 2BC0 D94A A3F0 EFE2 1092" in done.err


def test_options_that_do_not_go_together(tmp_path: Path, mine: Path) -> None:
    for words, said in (
        (["--sha256", DIGEST], "--sha256 goes with --iso"),
        (["--iso", mine, "--sha256", "abc"], "is no SHA-256"),
        (["--iso", mine, "--medium", "rehearsal"], "exclude each other"),
    ):
        done = prebake("iso", *words, env={"XDG_CACHE_HOME": str(tmp_path)}, cwd=tmp_path)
        assert done.code == 2, done.err
        assert said in done.err
    done = prebake("iso", "--iso", mine, "--sha256", "0" * 64, cwd=tmp_path)
    assert done.code == 5
    assert "is not what it should be" in done.err
    assert os.access(PREBAKE, os.X_OK)
