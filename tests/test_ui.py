"""What a person sees: a bar on a terminal, plain lines elsewhere, JSON on demand; stdout holds results alone."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import InstallError, StalledError
from builder.events import ConsoleOutput, Fallback, Note, Phase, Progress, StageFinished, StageStarted
from builder.ui import Ui

if TYPE_CHECKING:
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


FALLBACK = Fallback(
    "kvm is not usable: it sulks, 100% of it.\nTen times slower. To mend it: feed it.",
    why="kvm is not usable: it sulks, 100% of it. " + "And again. " * 20,
    cost="Ten times slower.",
    fix="feed it with " + "hay and " * 30 + "oats",
)
LOUD = "NO HARDWARE VIRTUALISATION: THE GUEST IS EMULATED"
REMINDER = "warning: No hardware virtualisation: the guest is emulated (tcg), many times slower. kvm is not usable"


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("CI", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("value", [None, "", "false", "0"])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_person_is_warned_of_emulation_in_a_line(
    plain_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str | None, *, quiet: bool
) -> None:
    if value is not None:
        plain_environment.setenv("CI", value)
    ui = Ui(quiet=quiet)
    ui(FALLBACK)
    ui.result("the/path")
    assert capsys.readouterr() == ("the/path\n", f"warning: {FALLBACK.text}\n")


@pytest.mark.parametrize("quiet", [True, False])
def test_in_ci_a_fallback_to_emulation_is_loud(
    plain_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    plain_environment.setenv("CI", "true")
    ui = Ui(quiet=quiet)
    ui(FALLBACK)
    ui.result("the/path")
    ui.result("another")
    out, err = capsys.readouterr()
    rows = err.splitlines()
    assert out == "the/path\nanother\n"
    assert rows[0] == rows[-2] == "!" * 100
    assert rows[1] == LOUD
    told = " ".join(row.strip() for row in rows)
    assert f"Why:  {FALLBACK.why.strip()}" in told
    assert f"Cost: {FALLBACK.cost}" in told
    assert f"Fix:  {FALLBACK.fix}" in rows  # in one line, to be copied
    assert "`--accel kvm` (or hvf, whpx) makes this an error" in told
    assert "::warning" not in err
    assert all(len(row) <= 100 for row in rows if not row.startswith(("Fix:", "warning: ")))
    assert rows[-1].startswith(REMINDER)  # once more at the end, and only once
    assert err.count(REMINDER) == 1


def test_github_shows_it_on_the_page_of_the_run(
    plain_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_environment.setenv("CI", "true")
    plain_environment.setenv("GITHUB_ACTIONS", "true")
    Ui()(FALLBACK)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == (
        "::warning title=No hardware virtualisation%3A the guest is emulated::"
        "kvm is not usable: it sulks, 100%25 of it.%0ATen times slower. To mend it: feed it."
    )
    assert LOUD in rest


def test_a_fallback_without_a_fix_names_none(
    plain_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_environment.setenv("CI", "true")
    Ui()(Fallback("x", why="No accelerator.", cost="Slow."))
    assert "Fix:" not in capsys.readouterr().err


def test_json_tells_of_a_fallback_in_an_event_alone(
    plain_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_environment.setenv("CI", "true")
    plain_environment.setenv("GITHUB_ACTIONS", "true")
    ui = Ui(form="json")
    ui(FALLBACK)
    ui.error(StalledError("It took too long."))
    told, error = (json.loads(row) for row in capsys.readouterr().err.splitlines())
    assert (told["event"], told["level"], told["accelerator"]) == ("Fallback", "warning", "tcg")
    assert (told["text"], told["why"], told["cost"], told["fix"]) == (
        FALLBACK.text,
        FALLBACK.why,
        FALLBACK.cost,
        FALLBACK.fix,
    )
    assert error["event"] == "Error"


def test_what_takes_too_long_after_a_fallback_says_so_again(
    plain_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, ci, again in (
        (StalledError("Too long."), "", True),
        (InstallError("It failed."), "", False),
        (InstallError("It failed."), "true", True),
    ):
        plain_environment.setenv("CI", ci)
        ui = Ui()
        ui(FALLBACK)
        ui.error(error)
        assert (REMINDER in capsys.readouterr().err) is again, (error, ci)
    Ui().error(StalledError("Too long."))
    assert REMINDER not in capsys.readouterr().err


REST = """
import sys, threading
from pathlib import Path
from builder.events import Note, Phase, StageStarted, Tick
from builder.pace import Pace
from builder.runs import Run, save
from builder.ui import Ui
from tests.test_pace import KIND

path, enough, ticks, moments = Path(sys.argv[1]), threading.Event(), [], iter(range(0, 10**6, 10))
save(path, KIND, Run(1000.0, {"install": 10.0, "install/extract": 20.0, "settle": 900.0}))
ui = Ui()


def hear(event):
    ui(event)
    ticks.extend([event] if isinstance(event, Tick) else [])
    if len(ticks) == 10:
        enough.set()


with Pace(hear, path, clock=lambda: float(next(moments)), beat=0.02) as pace:
    pace.begin(KIND)
    pace(StageStarted("install", "Installing"))
    pace(Phase("extract", "Copying", 0.5))
    assert enough.wait(60)
    pace(Note("a line in between"))
ui.result("the/path")
"""


def test_the_bar_tells_the_rest_and_goes_on_while_the_guest_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    seen = b""

    def read(fd: int) -> bytes:
        nonlocal seen
        data = os.read(fd, 4096)
        seen += data
        return data

    argv = ["/bin/sh", "-c", 'stty cols 120 rows 30; exec "$0" -c "$1" "$2"', sys.executable, REST]
    code = pty.spawn([*argv, str(tmp_path / "pace.json")], read)
    text = seen.decode()
    assert code == 0, text
    assert text.splitlines()[-1] == "the/path"
    text = text.replace("\r", "\n")
    shown = re.findall(r"^ *(\d+)%\|.*\| \d\d:\d\d, about (\d\d):(\d\d) left Copying", text, re.MULTILINE)
    done = [int(one) for one, _, _ in shown]
    rests = [60 * int(minutes) + int(seconds) for _, minutes, seconds in shown]
    assert done == sorted(done)
    assert rests == sorted(rests, reverse=True)
    assert len(set(rests)) > 5, text
    assert max(done) < 99
    assert "\na line in between\n" in text
