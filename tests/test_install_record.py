"""The record of an install: what came when, as a recording that plays and as events; and nothing secret in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from builder.install.evidence import blotted, host_facts, masked, masked_typed, read_logs
from builder.install.guestlogs import CURTIN, JOURNAL
from builder.install.record import CAST, CONSOLE, EVENTS, Record, cast, read_times, write_cast
from builder.install.signals import Output
from builder.install.state import InstallState

if TYPE_CHECKING:
    from pathlib import Path

SAID = (
    b"connecting...  \x08-\x08 \r\nstart: subiquity/Identity/load_autoinstall_data: \r\n"
    b"warning: subiquity/Identity/load_autoinstall_data/top_level_keys: Unrecognized top-level key 'x'\r\n"
    b"start: subiquity/Install/install/configure_apt: configuring apt\r\n"
    b"start: subiquity/Shutdown/shutdown: mode=POWEROFF\r\nreboot: Power down\r\n"
)


def test_everything_that_happened_is_an_event_with_its_time(tmp_path: Path) -> None:
    state = InstallState()
    with Record(tmp_path) as record:
        for at, line in enumerate(SAID.splitlines(keepends=True)):
            record.console.write(line)
            record.came(len(line))
            record.tell(state.feed(line, float(at)))
        record.note("verdict", state.verdict().to_json())
    assert (tmp_path / CONSOLE).read_bytes() == SAID
    rows = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    kinds = [row["event"] for row in rows]
    assert kinds[0] == "began"
    assert kinds[-1] == "verdict"
    assert {"phase-started", "phase-finished", "start", "warning", "power-state"} <= set(kinds)
    started = [row["name"] for row in rows if row["event"] == "phase-started"]
    finished = [row["name"] for row in rows if row["event"] == "phase-finished"]
    assert finished == started, "the last phase is finished by the proof of success"
    assert [row["seconds"] for row in rows if row["event"] == "phase-finished"] == [1.0, 2.0, 1.0, 0.0]
    assert not any("Output" in kind for kind in kinds)


def test_a_phase_that_failed_is_not_finished() -> None:
    state = InstallState()
    events = state.feed(
        SAID.split(b"start: subiquity/Shutdown")[0] + b"An error occurred. Press enter to start a shell\r\n"
    )
    kinds = [(type(event).__name__, getattr(event, "name", "")) for event in events if not isinstance(event, Output)]
    assert ("PhaseStarted", "mirror") in kinds
    assert ("PhaseFinished", "mirror") not in kinds
    assert ("PhaseFinished", "answers") in kinds


def test_the_recording_plays_what_came_and_when(tmp_path: Path) -> None:
    raw = "über\r\n".encode() + b"\xff\x1b[2J" + SAID
    times = [(0.5, 1), (1.25, 4), (2.0, len(raw) - 5)]
    lines = [json.loads(line) for line in cast(raw, times, title="vm", began=7)]
    header, rows = lines[0], lines[1:]
    assert (header["version"], header["title"], header["timestamp"]) == (2, "vm", 7)
    assert {type(header[key]) for key in ("width", "height", "timestamp")} == {int}
    assert [row[0] for row in rows] == [1.25, 2.0], "half a letter waits for its other half"
    assert all(row[1] == "o" for row in rows)
    assert "".join(row[2] for row in rows) == raw.decode("utf-8", "replace")
    with Record(tmp_path) as record:
        for piece in (SAID[:20], SAID[20:]):
            record.console.write(piece)
            record.came(len(piece))
    secret = "Unrecognized"
    write_cast(tmp_path, lambda data: blotted(data, [secret], ""), "vm")
    text = (tmp_path / CAST).read_text()
    assert secret not in text
    assert "*" * len(secret) in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [CAST, CONSOLE, EVENTS]
    write_cast(tmp_path / "nothing", lambda data: data, "vm")


def test_times_cut_short_are_read_as_far_as_they_go() -> None:
    assert read_times("0.500 3\n1.000 4\n1.5") == [(0.5, 3), (1.0, 4)]
    assert read_times("") == []


@given(st.binary(max_size=200), st.text("ab$", min_size=1, max_size=4), st.text("ab$", min_size=1, max_size=4))
def test_blotting_moves_no_byte_and_hides_what_masking_hides(data: bytes, secret: str, password: str) -> None:
    found = blotted(data, [secret], password)
    assert len(found) == len(data)
    assert secret.encode() not in found
    assert masked_typed(masked(found, [secret]), password) == found or password.encode() in found


def test_logs_are_read_from_their_ends(tmp_path: Path) -> None:
    path = tmp_path / CURTIN
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * (9 << 20) + b"\xffthe end")
    (tmp_path / "var/crash").mkdir()
    (tmp_path / "var/crash/a.crash").write_text("report")
    found = read_logs(tmp_path)
    assert set(found) == {CURTIN, "var/crash/a.crash"}
    assert found[CURTIN].endswith("\N{REPLACEMENT CHARACTER}the end")
    assert len(found[CURTIN]) < 9 << 20
    assert JOURNAL not in found


def test_the_host_is_described_without_names(tmp_path: Path) -> None:
    facts = host_facts(tmp_path)
    assert {"time", "system", "cpus", "disk_free", "python"} <= set(facts)
    json.dumps(facts)
