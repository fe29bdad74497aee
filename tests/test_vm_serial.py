"""The serial line: whatever is asked of it, no byte is lost, doubled or held back."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.vm.serial import READ_AT_ONCE, WINDOW, LineClosedError, SerialLine, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


def rest_of(line: SerialLine) -> Iterator[bytes]:
    """All that still comes, piece by piece, until the line is closed."""
    with contextlib.suppress(LineClosedError):
        while True:
            yield line.read(5)


class End:
    """A serial line and the guest's end of it."""

    def __init__(self) -> None:
        self.ours, self.guest = socket.socketpair()
        self.record = io.BytesIO()
        self.heard = bytearray()
        self.line = SerialLine(self.ours, self.record, self.heard.extend)

    def close(self) -> None:
        self.ours.close()
        self.guest.close()


@pytest.fixture
def end() -> Iterator[End]:
    made = End()
    yield made
    made.close()


def test_read_returns_what_has_come(end: End) -> None:
    assert end.line.read(0) == b""
    assert end.line.read(0.01) == b""
    end.guest.sendall(b"one\r\ntwo\r\n\xff\x00three")
    assert end.line.read(1) == b"one\r\ntwo\r\n\xff\x00three"
    end.guest.sendall(b"\nlast")
    end.guest.close()
    assert end.line.read(1) == b"\nlast"
    for _ in range(2):
        with pytest.raises(LineClosedError):
            end.line.read(1)
    assert end.record.getvalue() == bytes(end.heard) == b"one\r\ntwo\r\n\xff\x00three\nlast"


def test_read_returns_what_other_searches_left(end: End) -> None:
    end.guest.sendall(b"login: one\r\ntwo\r\nthree")
    end.line.expect([b"login: "], 1)
    assert end.line.read_line(1) == b"one\r\n"
    assert end.line.read(1) == b"two\r\nthree"
    assert end.line.read(0.01) == b""
    end.guest.sendall(b"four\r\n")
    assert end.line.read_line(1) == b"four\r\n"


def test_a_guest_that_went_without_reading_what_was_typed(end: End) -> None:
    end.line.send("typed")
    end.guest.sendall(b"last words")
    end.guest.close()
    assert end.line.read(1) == b"last words"
    with pytest.raises(LineClosedError):
        end.line.read(1)


def test_the_tail_remembers_a_window(end: End) -> None:
    for _ in range(5):
        end.guest.sendall(b"x" * (WINDOW - 1) + b"\n")
        end.line.read(1)
    end.guest.sendall(b"end\r\n")
    while end.line.read(0.01):
        pass
    assert end.line.tail(1) == ["end"]
    assert len("".join(end.line.tail())) <= WINDOW


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=20), st.data())
def test_every_byte_comes_once_whoever_asks(pieces: list[bytes], data: st.DataObject) -> None:
    end = End()
    got = bytearray()
    try:
        for piece in pieces:
            end.guest.sendall(piece)
            asked = data.draw(st.sampled_from(("read", "line", "nothing")))
            if asked != "nothing":
                got += end.line.read(0.2) if asked == "read" else end.line.read_line(0.001)
        end.guest.close()
        got += b"".join(rest_of(end.line))
    finally:
        end.close()
    assert bytes(got) == b"".join(pieces) == end.record.getvalue() == bytes(end.heard)


def test_a_flood_comes_in_large_pieces(end: End) -> None:
    flood = b"start: subiquity/Meta/status_GET: \r\n" * 50_000
    sender = threading.Thread(target=end.guest.sendall, args=[flood])
    sender.start()
    lengths: list[int] = []
    while sum(lengths) < len(flood):
        lengths.append(len(end.line.read(5)))
    sender.join()
    assert sum(lengths) == len(flood)
    assert max(lengths) <= READ_AT_ONCE
    assert len(lengths) < 5000


def test_what_a_terminal_would_be_left_with() -> None:
    """systemd's turning bar is wiped in the middle of other output, as a real boot showed."""
    said = b"histories=\r\n\r                    \rleases=\r\nlast=a  b\r\n"
    assert shown(said) == "histories=\nleases=\nlast=a  b\n"
    assert shown(b"  indented\r\n\xff") == "  indented\n\ufffd"
