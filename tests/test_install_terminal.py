from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.install.terminal import MAX_LINE, LineReader, clean


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"start: subiquity/x: \r", "start: subiquity/x:"),
        (b"two returns\r\r", "two returns"),
        (b"connecting...  \x08-\x08\\\x08|\x08/\x08 \r", "connecting..."),
        (b"waiting \x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08gone", "goneing"),
        (b"\x1b[0;1;31mFAILED\x1b[0m] Failed \x1b[0;1;39mcdrom.mount\x1b[0m", "FAILED] Failed cdrom.mount"),
        (b"\x1b[!p\x1b]104\x07\x1b[?7h\x1b[6nhello", "hello"),
        (b"\x1b]0;title\x1b\\shown", "shown"),
        (b"\x1b]104no end of the sequence", "no end of the sequence"),
        (b"\x1b(B\x1b)0\x0e\x0fbox", "box"),
        (b"\x1bM\r\r\x1b[K[  OK  ] done", "[  OK  ] done"),
        (b"50%\r75%\r100%", "100%"),
        (b"long old text\rnew\x1b[K", "new"),
        (b"abc\x1b[2Dxy", "axy"),
        (b"a\x1b[3Cb\x1b[1Gc", "c   b"),
        (b"\xff\xfe caf\xc3\xa9", "\ufffd\ufffd café"),
        (b"cut off \x1b[12;", "cut off"),
        (b"cut off \x1b", "cut off"),
        (b"\ta\x00b\x7f", "\tab"),
        (b"", ""),
    ],
)
def test_what_stays_on_the_screen(raw: bytes, text: str) -> None:
    assert clean(raw) == text


def test_cursor_positioning_ends_a_line() -> None:
    reader = LineReader()
    lines = reader.feed(b"\x1b[H\x1b[J\x1b[1;1Herror: x\n\r\x1b[2;24HGNU GRUB  version 2.06\x1b[4;2H+--+")
    assert [line for line in lines if line] == ["error: x", "GNU GRUB  version 2.06"]
    assert reader.partial() == "+--+"


def test_partial_line_stays_and_flush_forgets_it() -> None:
    reader = LineReader()
    assert reader.feed(b"one\r\ndemo login: ") == ["one"]
    assert reader.partial() == "demo login:"
    assert reader.partial() == "demo login:"
    assert reader.flush() == "demo login:"
    assert reader.partial() == ""


def test_a_line_without_end_is_cut() -> None:
    reader = LineReader()
    lines = [line for _ in range(40) for line in reader.feed(b"x" * 10_000)]
    assert {len(line) for line in lines} == {MAX_LINE}
    assert len(reader.partial()) <= MAX_LINE + 32
    assert sum(map(len, lines)) + len(reader.partial()) == 400_000


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, MAX_LINE + 16, MAX_LINE + 40, 3 * MAX_LINE])
@pytest.mark.parametrize("end", [b"\n", b"\x1b[10;20H"])
def test_cutting_does_not_depend_on_chunks(length: int, end: bytes) -> None:
    data = b"y" * length + end + b"z\n"
    whole = LineReader().feed(data)
    for size in (1, 7, 4096):
        reader = LineReader()
        # The long middle goes in at once: only where chunks meet the ends matters.
        pieces = [data[: length - 40], *(data[at : at + size] for at in range(length - 40, len(data), size))]
        assert [line for piece in pieces for line in reader.feed(piece)] == whole


_KNOWN = [b"\n", b"\r\n", b"\x1b[", b"1;1H", b"\x1b[2J", b"\x1b]0;t\x07", b"\x08", b"text", b"\xc3", b"\xa9"]
_PIECES = st.one_of(st.binary(max_size=8), st.sampled_from(_KNOWN))


@settings(deadline=None)
@given(st.lists(_PIECES, max_size=40), st.data())
def test_any_chunks_give_the_same_lines(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = LineReader()
    lines = [
        line
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for line in reader.feed(stream[start:end])
    ]
    other = LineReader()
    assert lines == other.feed(stream)
    assert reader.partial() == other.partial()
