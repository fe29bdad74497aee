"""Damaged consoles, and what must hold for each of them: for the tests and for `benchmarks.fuzz_console`."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from typing import TYPE_CHECKING

from builder.install.explain import explain
from builder.install.state import InstallState
from builder.install.unwrap import NoConsoleError, unwrap
from tests import test_install_boot, test_install_verdict
from tests.test_install_verdict import BOOT, CONFIRM, COPIED, INSTALLED, LATE, LATE_DONE, SHUTDOWN, TRANSCRIPTS, console

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

PROOFS = (b"mode=", b"reboot: ", b":installed:")
"""A console without any of these words shows no success, whatever happens to it."""
WORDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\x08",
    b"\x1b[2J",
    b"\x1b[5;3H",
    b"\x1b[",
    b"\x1b]0;",
    b"\x00",
    b"\xff\xfe",
    b"[   12.345678] usb 1-1: new device\r\n",
    b"[   12.345678][   T12] x",
    b"start: ",
    b"finish:  subiquity/Late/run: ",
    b"subiquity/Install/install: ",
    b"prebake-sentinel:failed:0123456789abcdef",
    b"An error occurred. Press enter to start a shell",
    b"Continue with autoinstall? (yes|no)\r\n",
    b"[    0.000000] Linux version 6\r\n",
    b"SeaBIOS (version 1)\r\n",
    b"connecting...  \x08-",
    b"  running x\r\n",
    b"(initramfs) ",
    b"demo login: ",
    b"2024-05-01T12:00:00.1234567Z ",
    b"    qemu.ubuntu: ",
    b"\x1f\x8b\x08",
    b'{"version": 2}\n',
)
SUCCESSES = (
    console(INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN),
    console(BOOT + CONFIRM + "yes\n" + INSTALLED + LATE + LATE_DONE + SHUTDOWN),
)


def corpus() -> dict[str, bytes]:
    """Return whole consoles by name: those of the tests, and the recorded ones where they are."""
    made = {name: each[0] for name, each in test_install_verdict.FAILURES.items()}
    made |= {f"boot: {name}": each[0] for name, each in test_install_boot.FAILURES.items()}
    paths = sorted(path for path in TRANSCRIPTS.glob("*.*") if path.suffix in {".raw", ".txt"})
    recorded = {path.name: path.read_bytes() for path in paths}
    succeeded = {f"success {at}": raw for at, raw in enumerate(SUCCESSES)}
    return {**{name: console(text) for name, text in made.items()}, **succeeded, **recorded}


def mutant(raw: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """Return ``raw`` with some damage done to it, with pieces of ``others`` among it."""
    data = bytearray(raw)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.choice((1, 2, 20, 300, 5000)))
        what = dice.choice(("flip", "drop", "double", "word", "noise", "other", "interleave", "swap"))
        if what == "flip" and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif what == "drop":
            del data[at:end]
        elif what == "double":
            data[at:at] = data[at:end]
        elif what == "word":
            data[at:at] = dice.choice(WORDS)
        elif what == "noise":
            data[at:at] = dice.randbytes(dice.choice((1, 3, 70)))
        elif what == "other":
            data[at:at] = _piece(dice.choice(others), dice)
        elif what == "interleave":
            other = _piece(dice.choice(others), dice)
            mine = bytes(data[at : at + len(other)])
            data[at : at + len(other)] = b"".join(bytes(pair) for pair in zip(mine, other, strict=False))
        elif what == "swap":
            data[at:end], data[end : end + 300] = data[end : end + 300], data[at:end]
    return bytes(data[: 1 << 18])


def _piece(raw: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(raw) + 1)
    return raw[at : at + dice.choice((3, 80, 2000))]


def proves_nothing(raw: bytes) -> bool:
    """Tell whether no damage can make a success of ``raw``."""
    return not any(words in raw for words in PROOFS)


def judge(raw: bytes, dice: random.Random) -> str:
    """Check all that must hold for a console, whatever it is; return the verdict's word. Raises AssertionError."""
    found = explain(raw)
    shape = found.to_json()
    assert json.loads(json.dumps(shape)) == shape
    assert found.verdict in {"success", "failure", "stalled", "incomplete"}
    assert (found.cause is None) == (found.verdict == "success")
    assert len(found.reason or "") <= 1000
    assert not re.search(r"\{(?:command|stage|phase|section|file|package|zone|match|requirement)\}", found.hint or "")
    assert explain(cut(raw, dice)) == found
    _same_by_chunks(raw, dice)
    if found.verdict == "success":
        assert not proves_nothing(raw)
    with contextlib.suppress(NoConsoleError):
        explain(unwrap(cut(raw, dice)))
    return found.verdict


def _same_by_chunks(raw: bytes, dice: random.Random) -> None:
    whole, pieces = InstallState(), InstallState()
    events = whole.feed(raw)
    came = [event for chunk in cut(raw, dice) for event in pieces.feed(chunk)]
    assert came == events
    assert pieces.verdict() == whole.verdict()
    assert pieces.progress == whole.progress


def cut(raw: bytes, dice: random.Random) -> list[bytes]:
    """Return ``raw`` in chunks."""
    size = dice.choice((7, 64, 100, 4096))
    places = sorted({0, len(raw), *(dice.randrange(len(raw) + 1) for _ in range(max(1, len(raw) // size) % 500))})
    return [raw[start:end] for start, end in itertools.pairwise(places)]
