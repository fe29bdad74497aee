"""What a person sees: a bar on a terminal, plain lines elsewhere, JSON on demand; stdout holds results alone."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import InstallError
from builder.events import ConsoleOutput, Note, Phase, Progress, StageFinished, StageStarted
from builder.ui import Ui

if TYPE_CHECKING:
    import pytest

    from builder.events import Event

STORY: list[Event] = [
    Phase("base", "Making a system", 0.1),
    StageStarted("install", "Installing"),
    Phase("extract", "Copying", 0.5),
    ConsoleOutput(b"from the guest\r\n"),
    Note("something is odd", "warning"),
    Note("only for the curious", "debug"),
    Progress("Writing", 5, 10),
    StageFinished("install", "Installing", 61.25),
]
CHILD = """
import sys
from builder.ui import Ui
from tests.test_ui import STORY
ui = Ui()
for event in STORY:
    ui(event)
ui.result("the/path")
"""


def told(capsys: pytest.CaptureFixture[str], ui: Ui) -> tuple[str, str]:
    for event in STORY:
        ui(event)
    ui.result("the/path")
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(capsys, Ui())
    assert out == "the/path\n"
    rows = err.splitlines()
    assert [row.partition("] ")[2] for row in rows if row.startswith("[")] == [
        "Making a system",
        "Installing",
        "Copying",
    ]
    assert "warning: something is odd" in rows
    assert rows[-1].split() == ["Installing", "61.2", "s"]
    assert "curious" not in err
    assert "from the guest" not in err
    assert "\x1b" not in err


def test_more_and_less(capsys: pytest.CaptureFixture[str]) -> None:
    assert "only for the curious" in told(capsys, Ui(verbose=True))[1]
    assert told(capsys, Ui(quiet=True))[1] == "warning: something is odd\n"
    assert "from the guest" in told(capsys, Ui(console=True))[1]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(capsys, Ui(form="json"))
    assert out == "the/path\n"
    rows = [json.loads(row) for row in err.splitlines()]
    assert [row["event"] for row in rows] == [
        type(event).__name__ for event in STORY if not isinstance(event, ConsoleOutput)
    ]
    assert rows[-1]["seconds"] == 61.25


def test_an_error_says_what_why_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = InstallError("It failed.", hint="Do this.", console=["last words"], evidence=Path("output/x.failed"))
    Ui().error(error)
    assert capsys.readouterr().err == (
        "error: It failed.\nThe console's last lines:\n  | last words\n"
        "Evidence: output/x.failed\nWhat to do: Do this.\n"
    )


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    seen = b""

    def read(fd: int) -> bytes:
        nonlocal seen
        data = os.read(fd, 4096)
        seen += data
        return data

    code = pty.spawn(["/bin/sh", "-c", 'stty cols 100 rows 30; exec "$0" -c "$1"', sys.executable, CHILD], read)
    text = seen.decode()
    assert code == 0, text
    assert "] Making a system" in text
    assert "Copying" in text
    assert "%|" in text
    assert "\x1b[3" not in text
    assert text.splitlines()[-1] == "the/path"


TRANSFER = """
import sys, time
from builder.events import Progress, StageStarted
from builder.ui import Ui
ui = Ui()
for done in range(40, 81):
    ui(Progress("Fetching x.iso", done << 20, 100 << 20))
    time.sleep(0.02)
ui(Progress("Fetching x.iso", 10 << 20, 100 << 20))
ui(StageStarted("install", "Installing"))
ui.result("the/path")
"""


def test_a_transfer_shows_rate_and_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    seen = b""

    def read(fd: int) -> bytes:
        nonlocal seen
        data = os.read(fd, 4096)
        seen += data
        return data

    code = pty.spawn(["/bin/sh", "-c", 'stty cols 120 rows 30; exec "$0" -c "$1"', sys.executable, TRANSFER], read)
    rows = seen.decode().replace("\r", "\n").splitlines()
    assert code == 0
    drawn = [row for row in rows if "Fetching x.iso:" in row]
    assert any(re.search(r"\d\d%\|.*M/105M \[00:0\d<00:\d\d, +[\d.]+MB/s\]", row) for row in drawn), drawn
    rates = [float(match[1]) for row in drawn if (match := re.search(r" ([\d.]+)MB/s", row))]
    assert max(rates) < 100, rates  # 40 MiB at a rate of about 50 MiB/s; not the 40 that were there before
    assert any("Installing" in row for row in rows)


def test_without_a_terminal_a_long_transfer_is_told_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("builder.ui.time.monotonic", lambda: float(next(clock)))
    ui = Ui()
    for done in range(0, 1001, 100):
        ui(Progress("Fetching x.iso", done * 1_000_000, 1_000_000_000))
    assert capsys.readouterr().err.splitlines() == [
        "Fetching x.iso: 300 of 1000 MB, 10.0 MB/s, 01:10 left",
        "Fetching x.iso: 600 of 1000 MB, 10.0 MB/s, 00:40 left",
        "Fetching x.iso: 900 of 1000 MB, 10.0 MB/s, 00:10 left",
    ]


def test_json_tells_of_a_transfer_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui(form="json")
    for done in range(1001):
        ui(Progress("Fetching x.iso", done, 1000))
    rows = [json.loads(row) for row in capsys.readouterr().err.splitlines()]
    assert len(rows) < 20
    assert rows[-1]["done"] == 1000


def test_a_terminal_without_a_size_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudo-terminal of 0 by 0, as some build services give: a bar there would be invisible."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    seen = b""

    def read(fd: int) -> bytes:
        nonlocal seen
        data = os.read(fd, 4096)
        seen += data
        return data

    assert pty.spawn([sys.executable, "-c", CHILD], read) == 0
    assert "] Installing" in seen.decode()
