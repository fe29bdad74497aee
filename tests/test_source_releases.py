"""What is published, read from lists that a server may fill with anything."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import MediumError
from builder.media.source import releases
from builder.media.source.catalogue import places, servers
from tests.mirror import streams

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = "0" * 64, "a" * 64
SUMS = f"""{OLD} *ubuntu-24.04.3-desktop-amd64.iso
{OLD} *ubuntu-24.04.9-live-server-amd64.iso
{NEW} *ubuntu-24.04.10-live-server-amd64.iso
{OLD} *ubuntu-24.04.11-live-server-arm64.iso
{OLD} *ubuntu-24.04.12-live-server-arm64+largemem.iso
{OLD} *../ubuntu-24.04.13-live-server-amd64.iso
"""


@pytest.mark.parametrize("text", [SUMS, SUMS.replace(" *", "  "), SUMS.replace("\n", "\r\n")])
def test_the_newest_point_release_is_by_number_not_by_letter(text: str) -> None:
    assert releases.newest(text, "24.04", "amd64") == releases.Published(
        "24.04.10", "amd64", "ubuntu-24.04.10-live-server-amd64.iso", NEW
    )
    assert releases.newest(text, "24.04.9", "amd64").sha256 == OLD
    assert releases.newest(text, "24.04", "arm64").version == "24.04.11"
    for release in ("24.0", "22.04", "24.04.1", "4.04"):
        with pytest.raises(MediumError, match=f"No live-server ISO of {release} for amd64"):
            releases.newest(text, release, "amd64")


def test_what_is_a_release() -> None:
    for good in ("24.04", "24.04.3", "lts", "latest", "noble"):
        assert releases.check_release(good) == good
    for bad in ("", "24", "24.4", "24.04.3.1", "../etc", "24.04/..", "Noble 24", "24.04\n", "24.04." + "9" * 5000):
        with pytest.raises(MediumError, match="is no release"):
            releases.check_release(bad)


def test_long_term_support() -> None:
    known = {"20.04", "22.04.5", "24.04", "26.04", "28.04"}
    assert {one for one in (*known, "24.10", "25.04", "25.10", "23.04", "26.10") if releases.is_lts(one)} == known


def test_streams_give_the_newest_of_each_series() -> None:
    made = streams({"24.04.3": ["amd64"], "24.04.10": ["amd64"], "22.04.5": ["amd64", "arm64"], "25.10": ["amd64"]})
    index, products = made["/streams/v1/index.json"], made["/streams/v1/com.ubuntu.releases:ubuntu-server.json"]
    assert releases.streams_in(index) == ["streams/v1/com.ubuntu.releases:ubuntu-server.json"]
    listed = releases.read_streams(products)
    assert [(one.version, one.arch) for one in listed] == [
        ("22.04.5", "amd64"),
        ("22.04.5", "arm64"),
        ("24.04.10", "amd64"),
        ("25.10", "amd64"),
    ]
    assert listed[2].codename == "noble"
    assert listed[2].size == 300_000
    assert listed[2].title == "24.04.10 LTS"
    assert listed[3].title == "25.10"
    assert releases.choose("lts", "amd64", listed) == "24.04"
    assert releases.choose("latest", "amd64", listed) == "25.10"
    assert releases.choose("lts", "arm64", listed) == "22.04"
    assert releases.choose("jammy", "amd64", listed) == "22.04"
    with pytest.raises(MediumError, match="No release called `hardy` is published for amd64"):
        releases.choose("hardy", "amd64", listed)
    with pytest.raises(MediumError, match="No series called `lts`"):
        releases.choose("lts", "s390x", listed)


def test_what_streams_say_beyond_reason_is_not_heard() -> None:
    paths = ("\ud800", "a b", "\x1b[31m", "x" * 5000, "", 3, None, "streams/v1/good.json")
    index = {"index": {f"ubuntu-server {number}": {"path": path} for number, path in enumerate(paths)}}
    assert releases.streams_in(json.dumps(index).encode()) == ["streams/v1/good.json"]
    for size, heard in ((300_000, 300_000), (True, None), (-1, None), (10**4000, None), ("7", None), (2.5, None)):
        item = {"path": "24.04/ubuntu-24.04.3-live-server-amd64.iso", "size": size, "sha256": "\ud800"}
        products = {"products": {"one": {"versions": {"1": {"items": {"iso": item}}}}}}
        (found,) = releases.read_streams(json.dumps(products).encode())
        assert (found.size, found.sha256) == (heard, None)
    item = {"path": f"24.04/ubuntu-24.04.{'9' * 5000}-live-server-amd64.iso"}
    products = {"products": {"one": {"versions": {"1": {"items": {"iso": item}}}}}}
    assert releases.read_streams(json.dumps(products).encode()) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["products", "versions", "items", "iso", "path", "index", "size", "release"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused(value: object) -> None:
    data = json.dumps(value).encode()
    assert isinstance(releases.read_streams(data), list)
    assert isinstance(releases.streams_in(data), list)


@given(st.binary(max_size=200), st.sampled_from([releases.read_streams, releases.streams_in]))
def test_anything_else_is_refused(data: bytes, read: Callable[[bytes], object]) -> None:
    with contextlib.suppress(MediumError):
        read(data)
    releases.folders(data.decode("latin-1"))
    releases.published(data.decode("latin-1"))


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(MediumError, match="is no JSON"):
        releases.read_streams(b"[" * 200_000)


def test_folders_in_listings_of_several_servers() -> None:
    apache = '<a href="22.04/">22.04/</a> <a href="24.04.3/">24.04.3/</a> <a href="noble/">noble/</a>'
    nginx = '<a HREF=\'24.04/\'>24.04/</a>\n<a href="/ubuntu-releases/26.04/">x</a> <a href="../">../</a>'
    assert releases.folders(apache) == ["22.04", "24.04"]
    assert releases.folders(nginx) == ["24.04", "26.04"]


def test_who_is_asked_and_where() -> None:
    assert servers("amd64", ()) == ("https://releases.ubuntu.com", "https://old-releases.ubuntu.com/releases")
    assert servers("arm64", ())[0] == "https://cdimage.ubuntu.com/releases"
    assert servers("arm64", ("http://a/", "http://b")) == ("http://a", "http://b")
    assert places("https://releases.ubuntu.com", "amd64", "24.04")[0] == "https://releases.ubuntu.com/24.04"
    arm = places("https://cdimage.ubuntu.com/releases", "arm64", "24.04.3")
    assert arm[0] == "https://cdimage.ubuntu.com/releases/24.04.3/release"
    assert places("http://m/{release}/iso", "amd64", "24.04") == ["http://m/24.04/iso"]
    assert "http://m" in places("http://m", "amd64", "24.04")
