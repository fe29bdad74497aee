"""A download over a line that does everything lines do, from a real HTTP server on loopback."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import HostError, MediumError
from builder.events import Event, Note, Progress, silent
from builder.media.source.download import ChecksumError, Wanted, download
from builder.media.source.web import NotThere, Patience, Unreachable, Web, asked_to_wait, open_client
from tests.mirror import Fault, Mirror, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ISO = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(20_000))
DIGEST = hashlib.sha256(ISO).hexdigest()
PATH = "/24.04/x.iso"
FAST = Patience(tries=3, cuts=4, first=0.001, longest=0.002)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving({PATH: ISO}) as made:
        yield made


@contextmanager
def web(
    patience: Patience = FAST, waits: list[float] | None = None, events: list[Event] | None = None
) -> Iterator[Web]:
    with open_client() as client:
        yield Web(
            client,
            silent if events is None else events.append,
            patience,
            time.sleep if waits is None else waits.append,
        )


def wanted(*mirrors: Mirror, size: int | None = None) -> Wanted:
    return Wanted([f"{one.url}{PATH}" for one in mirrors], DIGEST, size)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"x.iso"}


def test_it_comes_whole_and_is_not_copied(mirror: Mirror, tmp_path: Path) -> None:
    events: list[Event] = []
    target = tmp_path / "x.iso"
    inodes = set()

    def look(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and (tmp_path / "x.iso.part").exists():
            inodes.add((tmp_path / "x.iso.part").stat().st_ino)

    with open_client() as client:
        assert download(wanted(mirror), target, Web(client, look, FAST)) == f"{mirror.url}{PATH}"
    assert target.read_bytes() == ISO
    assert inodes == {target.stat().st_ino}
    steps = [event for event in events if isinstance(event, Progress)]
    assert steps[-1].done == steps[-1].total == len(ISO)
    assert not leftovers(tmp_path)
    assert mirror.asked[0].range is None


def test_a_cut_line_is_taken_up_where_it_was_cut(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(cut=200_000), Fault(cut=100_001), Fault(cut=1)]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert [one.range for one in mirror.asked] == [None, "bytes=200000-", "bytes=300001-", "bytes=300002-"]
    assert len({one.if_range for one in mirror.asked[1:]}) == 1
    assert mirror.asked[1].if_range == f'"{hashlib.md5(ISO, usedforsecurity=False).hexdigest()}"'
    assert mirror.sent(PATH) == len(ISO)
    assert not leftovers(tmp_path)


def test_it_gives_up_after_some_cuts_in_a_row_and_goes_on_next_time(mirror: Mirror, tmp_path: Path) -> None:
    waits: list[float] = []
    mirror.faults[PATH] = [Fault(cut=100_000), *[Fault(cut=10)] * 3]
    with web(waits=waits) as line, pytest.raises(Unreachable, match="does not come through") as caught:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert "What has come is kept" in str(caught.value.hint)
    assert len(waits) == 3
    assert (tmp_path / "x.iso.part").read_bytes() == ISO[:100_030]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert mirror.asked[-1].range == "bytes=100030-"


def test_waiting_doubles_and_has_an_end() -> None:
    patience = Patience(first=1.0, longest=30.0)
    for failed, middle in enumerate((1, 2, 4, 8, 16, 30, 30), 1):
        assert middle * 0.75 <= patience.wait(failed) <= middle * 1.25
    assert patience.wait(1, 7.0) == 7.0
    assert patience.wait(1, 1e9) == 120.0


def test_a_busy_server_is_asked_again_when_it_says(mirror: Mirror, tmp_path: Path) -> None:
    waits: list[float] = []
    mirror.faults[PATH] = [Fault(status=503, headers={"Retry-After": "17"}), Fault(status=429)]
    with web(waits=waits) as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert waits[0] == 17.0
    assert waits[1] < 1
    with web() as line:
        assert asked_to_wait(line.client.get(f"{mirror.url}{PATH}")) is None


def test_redirects_are_followed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(redirect="/elsewhere/y.iso")]
    mirror.files["/elsewhere/y.iso"] = ISO
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    mirror.always[PATH] = Fault(redirect=PATH)
    with web() as line, pytest.raises(NotThere, match="redirect"):
        download(wanted(mirror), tmp_path / "y.iso", line)


def test_more_than_is_there_is_promised(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(length=5000)]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO


def test_a_file_that_is_too_short_or_too_long_is_not_the_one(mirror: Mirror, tmp_path: Path) -> None:
    for body in (ISO[:-1], ISO + b"!"):
        mirror.always[PATH] = Fault(body=body)
        with web() as line, pytest.raises(ChecksumError, match="is not the published ISO"):
            download(wanted(mirror), tmp_path / "x.iso", line)
        with web() as line, pytest.raises(NotThere, match=f"has {len(body)} bytes, and the published ISO {len(ISO)}"):
            download(wanted(mirror, size=len(ISO)), tmp_path / "x.iso", line)
        assert not leftovers(tmp_path)
        assert not (tmp_path / "x.iso").exists()


def test_a_server_without_lengths(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always[PATH] = Fault(unmeasured=True)
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    mirror.always[PATH] = Fault(unmeasured=True, body=ISO * 2)
    with web() as line, pytest.raises(NotThere, match=f"sends more than the {len(ISO)} bytes"):
        download(wanted(mirror, size=len(ISO)), tmp_path / "y.iso", line)
    assert not leftovers(tmp_path)


def test_a_server_that_knows_no_ranges(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(cut=300_000), Fault(whole=True)]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert mirror.sent(PATH) == len(ISO) + 300_000


def test_a_server_that_sends_another_part_than_asked_for(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(cut=300_000), Fault(shift=7)]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO


def test_a_file_that_changes_between_two_parts_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    old = bytes(len(ISO))
    mirror.faults[PATH] = [Fault(cut=300_000, body=old)]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert mirror.asked[1].range == "bytes=300000-"
    assert mirror.asked[1].if_range == f'"{hashlib.md5(old, usedforsecurity=False).hexdigest()}"'
    assert mirror.asked[1].sent == [len(ISO)]


def test_a_slow_drip_counts_as_a_cut(mirror: Mirror, tmp_path: Path) -> None:
    patience = Patience(cuts=2, first=0.001, slowest=100_000, window=0.2)
    mirror.always[PATH] = Fault(drip=10, pause=0.02)
    with web(patience) as line, pytest.raises(Unreachable, match="sends less than 100000 bytes a second"):
        download(wanted(mirror), tmp_path / "x.iso", line)
    mirror.always.clear()
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO


def test_other_servers_are_asked_for_the_rest(mirror: Mirror, tmp_path: Path) -> None:
    events: list[Event] = []
    mirror.faults[PATH] = [Fault(cut=300_000), *[Fault(status=500)] * 9]
    with serving({PATH: ISO}) as second, web(events=events) as line:
        assert download(wanted(mirror, second), tmp_path / "x.iso", line) == f"{second.url}{PATH}"
        assert second.asked[0].range == "bytes=300000-"
        assert second.sent(PATH) == len(ISO) - 300_000
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert any(isinstance(one, Note) and "Going on to the next server" in one.text for one in events)


def test_a_mirror_with_another_file_is_left_for_the_next(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always[PATH] = Fault(body=bytes(len(ISO)))
    with serving({PATH: ISO}) as second, web() as line:
        assert download(wanted(mirror, second), tmp_path / "x.iso", line) == f"{second.url}{PATH}"
    assert (tmp_path / "x.iso").read_bytes() == ISO


def test_a_bad_first_mirror_does_not_spoil_a_good_second(mirror: Mirror, tmp_path: Path) -> None:
    """The first sends half of something else and fails: what the second adds to it is nobody's file."""
    mirror.faults[PATH] = [Fault(cut=300_000, body=bytes(len(ISO))), *[Fault(status=500)] * 9]
    with serving({PATH: ISO}) as second, web() as line:
        assert download(wanted(mirror, second), tmp_path / "x.iso", line) == f"{second.url}{PATH}"
        assert [one.range for one in second.asked] == ["bytes=300000-", None]
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert not leftovers(tmp_path)


def test_a_bad_first_mirror_that_sent_all_of_it_does_not_spoil_a_good_second(mirror: Mirror, tmp_path: Path) -> None:
    """The size is known, so there is nothing left to ask the second for: it is asked for the whole all the same."""
    body = bytes(len(ISO))
    mirror.faults[PATH] = [Fault(body=body, cut=len(ISO) - 10), Fault(body=body, cut=10, length=1), Fault(status=404)]
    with serving({PATH: ISO}) as second, web() as line:
        assert download(wanted(mirror, second, size=len(ISO)), tmp_path / "x.iso", line) == f"{second.url}{PATH}"
    assert (tmp_path / "x.iso").read_bytes() == ISO


def test_without_a_validator_what_came_is_not_trusted(mirror: Mirror, tmp_path: Path) -> None:
    """A server that names no version may change the file between two cuts."""
    unnamed = {"ETag": "W/weak"}
    mirror.faults[PATH] = [Fault(cut=300_000, body=bytes(len(ISO)), headers=unnamed)]
    mirror.always[PATH] = Fault(headers=unnamed)
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert [(one.range, one.if_range) for one in mirror.asked] == [
        (None, None),
        ("bytes=300000-", None),
        (None, None),
    ]


LOGIN = b"<html>login</html>"
PAGE = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    "other",
    [
        Fault(body=ISO[:200_000]),
        Fault(body=ISO[:200_000], whole=True),
        Fault(body=LOGIN, whole=True),
        Fault(body=LOGIN, whole=True, headers=PAGE),
        Fault(body=LOGIN, whole=True, headers=PAGE, unmeasured=True),
        Fault(body=LOGIN * 50_000, whole=True, headers=PAGE),
        Fault(status=416),
    ],
)
def test_what_has_come_is_not_thrown_away_for_less(mirror: Mirror, tmp_path: Path, other: Fault) -> None:
    mirror.faults[PATH] = [Fault(cut=300_000), *[Fault(status=500)] * 3]
    with serving({PATH: ISO}) as second, web() as line:
        second.always[PATH] = other
        with pytest.raises(MediumError):
            download(wanted(mirror, second), tmp_path / "x.iso", line)
        assert (tmp_path / "x.iso.part").read_bytes() == ISO[:300_000]
        assert leftovers(tmp_path) == {"x.iso.part", "x.iso.part.json"}
        download(wanted(second, mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert mirror.asked[-1].range == "bytes=300000-"
    assert not leftovers(tmp_path)


def test_another_size_than_the_known_one_throws_nothing_away(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(cut=300_000), *[Fault(status=500)] * 3]
    with serving({PATH: ISO + b"more"}) as second, web() as line, pytest.raises(MediumError):
        download(wanted(mirror, second, size=len(ISO)), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso.part").read_bytes() == ISO[:300_000]


def test_more_than_there_can_be_is_thrown_away(mirror: Mirror, tmp_path: Path) -> None:
    """What an earlier run left is longer than the ISO, and a second mirror is down."""
    for size in (None, len(ISO)):
        (tmp_path / "x.iso.part").write_bytes(ISO + b"too long")
        (tmp_path / "x.iso.part.whole").write_bytes(b"left by a killed run")
        with web() as line:
            urls = ["http://127.0.0.1:1/x.iso", f"{mirror.url}{PATH}"]
            assert download(Wanted(urls, DIGEST, size), tmp_path / "x.iso", line) == urls[1]
        assert (tmp_path / "x.iso").read_bytes() == ISO
        assert not leftovers(tmp_path)


def test_a_server_that_makes_us_begin_anew_for_ever_comes_to_an_end(mirror: Mirror, tmp_path: Path) -> None:
    """Each answer is cut after enough to count as progress, and the next one makes all of it worthless."""
    bad = Fault(cut=100_000, body=bytes(len(ISO)), headers={"ETag": "W/weak"})
    for again in (Fault(shift=1), Fault(whole=True, cut=100_000), Fault(headers={"Content-Range": "bytes 9-8/7"})):
        mirror.asked.clear()
        mirror.faults[PATH] = [bad, again] * 50
        with web() as line, pytest.raises(Unreachable, match="does not come through"):
            download(wanted(mirror), tmp_path / "x.iso", line)
        assert mirror.times(PATH) <= 3 * FAST.cuts
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_server_that_goes_further_each_time_and_begins_anew_comes_to_an_end(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[PATH] = [Fault(whole=True, cut=70_000 * number) for number in range(1, 9)]
    with web() as line, pytest.raises(Unreachable, match="does not come through"):
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert mirror.times(PATH) == FAST.cuts + 1


def test_a_length_that_no_iso_has_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    """It is the server's word, and no reason to ask for a larger disk."""
    mirror.always[PATH] = Fault(headers={"Content-Length": str(1 << 50)})
    with serving({PATH: ISO}) as second, web() as line:
        assert download(wanted(mirror, second), tmp_path / "x.iso", line) == f"{second.url}{PATH}"


@pytest.mark.parametrize("tag", ['"\xe9"', '"' + "x" * 2000 + '"', '"a\tb"', "unquoted", ""])
def test_a_validator_that_cannot_be_sent_back_is_none(mirror: Mirror, tmp_path: Path, tag: str) -> None:
    mirror.faults[PATH] = [Fault(cut=300_000, headers={"ETag": tag})]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert (mirror.asked[1].range, mirror.asked[1].if_range) == ("bytes=300000-", None)


def test_a_validator_that_an_earlier_run_should_not_have_kept(mirror: Mirror, tmp_path: Path) -> None:
    for bad in ('"\xe9"', "\n", ["x"], 3):
        (tmp_path / "x.iso.part").write_bytes(ISO[:1000])
        (tmp_path / "x.iso.part.json").write_text(json.dumps({"url": f"{mirror.url}{PATH}", "validator": bad}))
        with web() as line:
            download(wanted(mirror), tmp_path / "x.iso", line)
        assert (tmp_path / "x.iso").read_bytes() == ISO


LONG = "9" * 5000


@pytest.mark.parametrize(
    "header", [{"Content-Range": f"bytes {LONG}-{LONG}/{LONG}"}, {"Content-Length": LONG}, {"Retry-After": LONG}]
)
def test_numbers_without_an_end(mirror: Mirror, tmp_path: Path, header: dict[str, str]) -> None:
    mirror.faults[PATH] = [Fault(cut=300_000), Fault(headers=header, status=503 if "Retry-After" in header else None)]
    with serving({PATH: ISO}) as second, web(waits=[]) as line:
        download(wanted(mirror, second), tmp_path / "x.iso", line)
        mirror.always["/list"] = Fault(headers={"Content-Length": LONG}, body=b"a list")
        with pytest.raises(MediumError):
            line.get(f"{mirror.url}/list")
    assert (tmp_path / "x.iso").read_bytes() == ISO


ODD_HOSTS = ("http://a..b/x", f"http://{'a' * 70}.example.org/x", "http://xn--a/x", "http://\udcff/x")


@pytest.mark.parametrize("odd", ODD_HOSTS)
def test_an_address_that_cannot_be_encoded(
    mirror: Mirror, tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mirror, as where a redirect leads, and as a proxy."""
    with web() as line:
        for ask in (lambda: line.get(odd), lambda: download(Wanted([odd], DIGEST), tmp_path / "x.iso", line)):
            with pytest.raises(NotThere, match="cannot be asked"):
                ask()
        assert line.size(odd) is None
        if odd.isascii():
            mirror.always[PATH] = Fault(redirect=odd)
            with pytest.raises(MediumError, match=r"cannot be asked|cannot be reached|does not come through"):
                line.get(f"{mirror.url}{PATH}")
            with pytest.raises(MediumError, match=r"cannot be asked|cannot be reached|does not come through"):
                download(wanted(mirror), tmp_path / "x.iso", line)
    monkeypatch.setenv("HTTP_PROXY", odd)
    with pytest.raises(MediumError, match="cannot be"), web() as line:
        line.get("http://releases.example.org/x")


def test_which_problem_is_told(mirror: Mirror, tmp_path: Path) -> None:
    """That one server has changed bytes says more than that another is down."""
    mirror.always[PATH] = Fault(body=bytes(len(ISO)))
    with serving({}) as empty, web() as line:
        urls = [f"{empty.url}{PATH}", f"{mirror.url}{PATH}", "http://127.0.0.1:1/x"]
        with pytest.raises(ChecksumError) as caught:
            download(Wanted(urls, DIGEST), tmp_path / "x.iso", line)
        assert DIGEST in caught.value.message
        with pytest.raises(NotThere, match="answers 404"):
            download(Wanted(urls[:1], DIGEST), tmp_path / "x.iso", line)
        with pytest.raises(Unreachable, match="refused"):
            download(Wanted(urls[2:], DIGEST), tmp_path / "x.iso", line)
        for odd in ("ftp://example.org/x", "http://:99999999/x", "nonsense"):
            with pytest.raises(NotThere, match="cannot be asked"):
                download(Wanted([odd], DIGEST), tmp_path / "x.iso", line)


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (ISO[:1000], b"{}"),
        (ISO[:1000], b"\xff not JSON"),
        (ISO[:1000], None),
        (ISO[:-1], b'{"url": 3}'),
        (ISO, None),
        (b"", None),
        (b"damaged" * 1000, None),
        (bytes(len(ISO)), None),
        (ISO + b"too long", None),
    ],
)
def test_whatever_an_earlier_run_has_left(mirror: Mirror, tmp_path: Path, part: bytes, note: bytes | None) -> None:
    (tmp_path / "x.iso.part").write_bytes(part)
    if note is not None:
        (tmp_path / "x.iso.part.json").write_bytes(note)
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert not leftovers(tmp_path)
    if part == ISO:
        assert mirror.sent(PATH) == 0


def test_damage_of_an_earlier_run_is_found_once_not_for_ever(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "x.iso.part").write_bytes(b"damaged")
    mirror.always[PATH] = Fault(body=bytes(len(ISO)))
    with web() as line, pytest.raises(ChecksumError):
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert mirror.times(PATH) == 2


CHILD = """
import sys
from pathlib import Path
from builder.events import silent
from builder.media.source.download import Wanted, download
from builder.media.source.web import Web, open_client
with open_client() as client:
    download(Wanted([sys.argv[1]], sys.argv[2]), Path(sys.argv[3]), Web(client, silent))
"""


@pytest.mark.parametrize("stop", [0, 1, 2047, 65_536, 65_537, 333_333, len(ISO) - 1, len(ISO)])
def test_killed_at_any_byte_it_goes_on(mirror: Mirror, tmp_path: Path, stop: int) -> None:
    """kill -9 after exactly so many bytes: the server sends no more, and the child has them or waits for more."""
    mirror.faults[PATH] = [Fault(stall=stop, length=1 if stop == len(ISO) else 0)]
    target, part = tmp_path / "x.iso", tmp_path / "x.iso.part"
    argv = [sys.executable, "-c", CHILD, f"{mirror.url}{PATH}", DIGEST, str(target)]
    with subprocess.Popen(argv) as child:
        deadline = time.monotonic() + 20  # the child itself gives up after 30
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size >= stop):
            time.sleep(0.01)
        child.kill()
    assert not target.exists()
    had = part.stat().st_size
    assert had == stop
    assert part.read_bytes() == ISO[:had]
    with web() as line:
        download(wanted(mirror), target, line)
    assert target.read_bytes() == ISO
    assert not leftovers(tmp_path)
    assert mirror.asked[-1].sent == [len(ISO) - had]


FAULTS = ("cut", "status", "redirect", "length", "whole", "shift", "body")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["cut", "status", "redirect", "length", "whole", "shift", "body"]), max_size=5), st.data()
)
def test_any_row_of_faults_ends_in_the_file_or_an_error(tmp_path: Path, kinds: list[str], data: Any) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)

    def fault(kind: str) -> Fault:
        number = data.draw(st.integers(0, len(ISO)))
        return {
            "cut": Fault(cut=number),
            "status": Fault(status=data.draw(st.sampled_from([404, 403, 416, 429, 500, 503, 304, 204]))),
            "redirect": Fault(redirect="/other"),
            "length": Fault(length=number),
            "whole": Fault(whole=True),
            "shift": Fault(shift=number),
            "body": Fault(body=ISO[:number] + b"x"),
        }[kind]

    with serving({PATH: ISO, "/other": ISO}) as mirror, web() as line:
        mirror.faults[PATH] = [fault(kind) for kind in kinds]
        try:
            download(wanted(mirror), folder / "x.iso", line)
        except MediumError:
            assert not (folder / "x.iso").exists()
        else:
            assert (folder / "x.iso").read_bytes() == ISO
            assert not leftovers(folder)


def test_too_little_room_is_known_before_the_first_byte(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = type("Usage", (), {"free": 1 << 19})
    monkeypatch.setattr("builder.media.source.download.shutil.disk_usage", lambda _path: room)
    with web() as line, pytest.raises(HostError, match=r"takes 0 MiB, and only 0 MiB are free|only 0 MiB are free"):
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert not (tmp_path / "x.iso.part").exists()
    (tmp_path / "x.iso.part").write_bytes(ISO[: len(ISO) - 1000])
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)


def test_a_disk_that_fills_keeps_what_has_come(mirror: Mirror, tmp_path: Path) -> None:
    """The limit on a file's size stands for a full disk: the write fails half-way."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000));"
    argv = [sys.executable, "-c", limited + CHILD, f"{mirror.url}{PATH}", DIGEST, str(tmp_path / "x.iso")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "HostError" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert (tmp_path / "x.iso.part").read_bytes() == ISO[:300_000]
    with web() as line:
        download(wanted(mirror), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO


def test_small_answers_are_tried_again_and_bounded(mirror: Mirror) -> None:
    mirror.files["/list"] = b"a list"
    mirror.faults["/list"] = [Fault(status=502), Fault(cut=1)]
    with web() as line:
        assert line.get(f"{mirror.url}/list") == b"a list"
        assert mirror.times("/list") == 3
        mirror.always["/list"] = Fault(status=500)
        with pytest.raises(Unreachable, match="answers 500"):
            line.get(f"{mirror.url}/list")
        mirror.always["/list"] = Fault(body=bytes(17 << 20))
        with pytest.raises(NotThere, match="more than 16 MiB"):
            line.get(f"{mirror.url}/list")
        with pytest.raises(NotThere, match="answers 404"):
            line.get(f"{mirror.url}/none")


def test_a_small_answer_that_drips_is_cut(mirror: Mirror) -> None:
    """It is bounded in time as a download is: 1700 bytes a second are less than are asked for here."""
    mirror.files["/list"] = b"a list" * 2000
    mirror.always["/list"] = Fault(drip=10, pause=0.005)
    patience = Patience(tries=2, first=0.001, slowest=100_000, window=0.2)
    with web(patience) as line, pytest.raises(Unreachable, match="sends less than 100000 bytes a second"):
        line.get(f"{mirror.url}/list")
    assert mirror.times("/list") == 2
    assert mirror.sent("/list") < 2 * len(mirror.files["/list"])


def test_a_small_answer_that_was_packed_unasked_is_refused(mirror: Mirror) -> None:
    """Packed, it could be endless and never show a byte."""
    mirror.always["/list"] = Fault(body=gzip.compress(b"a list"), headers={"Content-Encoding": "gzip"})
    with web() as line, pytest.raises(NotThere, match="in another encoding"):
        line.get(f"{mirror.url}/list")


def test_a_proxy_is_heeded(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request through a proxy names the whole address in its first line."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", mirror.url)
    mirror.files["http://releases.example.org/24.04/x.iso"] = ISO
    with web() as line:
        download(Wanted(["http://releases.example.org/24.04/x.iso"], DIGEST), tmp_path / "x.iso", line)
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert mirror.asked[0].path == "http://releases.example.org/24.04/x.iso"


def test_what_needs_no_proxy_goes_there_straight(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.files["/list"] = b"a list"
    with serving({f"{mirror.url}/list": b"by proxy"}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for exempt, answer in (("", b"by proxy"), ("example.org", b"by proxy"), ("127.0.0.1,x", b"a list")):
            monkeypatch.setenv("NO_PROXY", exempt)
            monkeypatch.setenv("no_proxy", exempt)
            with web() as line:
                assert line.get(f"{mirror.url}/list") == answer
        assert len(proxy.asked) == 2
    assert mirror.times("/list") == 1


def test_a_proxy_is_asked_for_a_tunnel(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of an HTTPS server passes the proxy unread; one that gives no way is said by name."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", mirror.url)
    with web() as line, pytest.raises(Unreachable, match="cannot be reached: 403"):
        line.get("https://releases.example.org/list")
    assert {(one.method, one.path) for one in mirror.asked} == {("CONNECT", "releases.example.org:443")}


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_through_a_tunnel_the_server_has_to_be_itself(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy leads to a server with a certificate: good if its authority is known, and refused if it is not."""
    name, key, public = "releases.example.org", tmp_path / "key.pem", tmp_path / "public.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(public)], check=True, capture_output=True)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", mirror.url)
    url = f"https://{name}{PATH}"
    with serving({PATH: ISO}, certificate=(public, key)) as secret:
        mirror.always[f"{name}:443"] = Fault(redirect=secret.url.removeprefix("http://"))
        with web() as line, pytest.raises(Unreachable, match="self-signed certificate"):
            download(Wanted([url], DIGEST), tmp_path / "x.iso", line)
        assert not secret.asked
        known = ssl.create_default_context(cafile=str(public))
        monkeypatch.setattr("builder.media.source.web._authorities", lambda: known)
        with web() as line:
            assert download(Wanted([url], DIGEST), tmp_path / "x.iso", line) == url
    assert (tmp_path / "x.iso").read_bytes() == ISO
    assert not mirror.times(PATH)


def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("gopher://proxy:70", "http://:nonsense:1"):
        monkeypatch.setenv("ALL_PROXY", bad)
        with pytest.raises(MediumError, match="names cannot be used"):
            open_client()
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with open_client() as client, pytest.raises(Unreachable, match="cannot be reached"):
        Web(client, silent, FAST).get("http://releases.example.org/")


def test_an_interrupted_download_says_what_is_kept(mirror: Mirror, tmp_path: Path) -> None:
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.done > 300_000:
            raise KeyboardInterrupt

    with open_client() as client, pytest.raises(KeyboardInterrupt):
        download(wanted(mirror), tmp_path / "x.iso", Web(client, interrupt, FAST))
    assert any(isinstance(one, Note) and "the next run goes on from there" in one.text for one in events)
    assert (tmp_path / "x.iso.part").stat().st_size > 300_000
    told = json.loads((tmp_path / "x.iso.part.json").read_text())
    assert told["url"] == f"{mirror.url}{PATH}"
    assert threading.active_count() < 50
