"""From a serial line's bytes to the lines a person would have read on the screen.

Escape sequences are those of ECMA-48 and the xterm control sequences document; what matters here is
that they vanish, wherever they stand, and that text written over by backspaces and carriage returns is gone.
"""

from __future__ import annotations

import re

MAX_LINE = 64 * 1024
"""Bytes after which a line without an end is ended."""

_LONGEST_BREAK = 17
# A line ends with LF, or where the cursor is sent elsewhere: boot menus and full-screen forms draw that way.
_BREAK = re.compile(rb"\n|\x1b\[[0-9;]{0,14}[Hf]")
# The eight-bit controls: no installer uses them, and some terminals of those who read the lines obey them.
_C1 = re.compile(r"[\x80-\x9f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TOKEN = re.compile(
    r"\x1b\[(?P<parameters>[0-?]{0,64})[ -/]{0,8}(?P<final>[@-~])"  # CSI
    r"|\x1b\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)"  # OSC, with its end
    r"|\x1b\][0-9;]*"  # OSC whose end was lost
    r"|\x1b[PX^_][^\x1b]{0,512}(?:\x1b\\)"  # DCS, SOS, PM, APC
    r"|\x1b\[[0-?]{0,64}"  # CSI whose end was lost
    r"|\x1b[ -/]{1,4}[0-~]?|\x1b[0-~]?"  # character sets and the rest
    r"|(?P<control>[\x00-\x08\x0b-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x08\x0b-\x1f\x7f]+)"
)


class LineReader:
    """Cuts a stream of bytes into clean lines; the result does not depend on how the stream is chunked.

    Memory is bounded: a line is cut after ``MAX_LINE`` bytes.
    """

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> list[str]:
        """Take the next ``data`` (bytes, any length) and return the lines it completed, cleaned."""
        buffer = self._tail + data
        lines: list[str] = []
        start = 0
        for end in _BREAK.finditer(buffer, max(0, len(self._tail) - _LONGEST_BREAK)):
            start = _cut(buffer, start, end.start(), lines)
            lines.append(clean(buffer[start : end.start()]))
            start = end.end()
        # Whatever break begins within MAX_LINE bytes would be complete by now, so it is safe to cut there.
        while len(buffer) - start > MAX_LINE + _LONGEST_BREAK:
            lines.append(clean(buffer[start : start + MAX_LINE]))
            start += MAX_LINE
        self._tail = buffer[start:]
        return lines

    def partial(self) -> str:
        """Return the last line, which has no end yet, cleaned; it stays in the reader."""
        return clean(self._tail)

    def flush(self) -> str:
        """Return the last line, which has no end, cleaned, and forget it."""
        text = clean(self._tail)
        self._tail = b""
        return text


def _cut(buffer: bytes, start: int, end: int, lines: list[str]) -> int:
    while end - start > MAX_LINE:
        lines.append(clean(buffer[start : start + MAX_LINE]))
        start += MAX_LINE
    return start


def clean(raw: bytes) -> str:
    """Return the text that ``raw`` (one line, without LF) leaves on a terminal, without blanks at the end.

    Bytes that are not UTF-8 become U+FFFD. Never raises.
    """
    text = _C1.sub("", raw.rstrip(b"\r").decode("utf-8", "replace"))
    if _CONTROL.search(text) is None:
        return text.rstrip()
    return _render(text).rstrip()


def _render(text: str) -> str:
    cells: list[str] = []
    cursor = 0
    for token in _TOKEN.finditer(text):
        piece = token["text"]
        if piece is not None:
            cells[cursor : cursor + len(piece)] = piece
            cursor += len(piece)
        elif token["final"] is not None:
            cursor = _control_sequence(cells, cursor, token["final"], token["parameters"])
        elif token["control"] == "\b":
            cursor = max(0, cursor - 1)
        elif token["control"] == "\r":
            cursor = 0
    return "".join(cells)


def _control_sequence(cells: list[str], cursor: int, final: str, parameters: str) -> int:
    number = int(parameters) if parameters.isascii() and parameters.isdigit() else 0
    if final in "KJ":
        if number == 0:
            del cells[cursor:]
        else:
            cells[:] = " " * cursor
    elif final == "D":
        cursor = max(0, cursor - max(1, number))
    elif final in "CG":
        cursor = min(MAX_LINE, cursor + max(1, number) if final == "C" else max(1, number) - 1)
        cells.extend(" " * (cursor - len(cells)))
    return cursor
