"""The time that is left: learned from earlier builds on this host, never invented, and never in a build's way."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import pipeline
from builder.errors import InstallError, UsageError
from builder.events import ConsoleOutput, Estimate, Note, Phase, Progress, StageFinished, StageStarted, Tick, silent
from builder.pace import ALMOST, FASTEST, SLOWEST, Pace, Profile
from builder.runs import (
    LARGEST,
    MOST_KINDS,
    MOST_MARKS,
    MOST_RUNS,
    SHORTEST,
    Entry,
    Kind,
    Run,
    added,
    kind_of,
    nearest,
    read,
    save,
)
from builder.spec import Content, Snap, Spec
from builder.story import Job
from builder.ui import Ui, left

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.events import Event

KIND = Kind(
    host="Linux x86_64, 2 processors",
    accelerator="tcg",
    arch="amd64",
    medium="Ubuntu-Server LTS amd",
    series="24.04",
    firmware="bios",
    source="server",
    storage="direct",
    network="offline",
    updates="security",
    own=False,
    packages=0,
    snaps=0,
    commands=0,
    cpus=2,
)
RUN = Run(200.0, {"medium": 0.0, "install": 10.0, "install/kernel": 20.0, "settle": 110.0, "prove": 160.0})

NAMES = st.sampled_from([f"mark {number}" for number in range(8)])
SECONDS = st.floats(0, 1e7)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    total = draw(st.floats(SHORTEST, 1e7))
    return Run(total, draw(st.dictionaries(NAMES, SECONDS, max_size=8)))


@st.composite
def journeys(draw: st.DrawFn) -> list[tuple[float, str | None]]:
    """Times in order, each with the mark that is reached then, or None if time only passes."""
    steps = draw(st.lists(st.tuples(st.floats(0, 1e6), st.one_of(st.none(), NAMES, st.text(max_size=3))), max_size=30))
    times = itertools.accumulate(step for step, _ in steps)
    return [(at, name) for at, (_, name) in zip(times, steps, strict=True)]


@given(st.lists(runs(), min_size=1, max_size=8), journeys())
def test_whatever_was_learned_and_whatever_happens_it_makes_sense(
    learned: list[Run], journey: list[tuple[float, str | None]]
) -> None:
    profile = Profile.of(learned)
    reached: dict[str, float] = {}
    done = 0.0
    for at, name in journey:
        if name is not None:
            reached.setdefault(name, at)
        now, rest = profile.estimate(reached, at)
        assert done <= now <= ALMOST < 1
        assert math.isfinite(rest)
        assert rest >= 0
        done = now


@given(runs(), st.dictionaries(NAMES, SECONDS, max_size=3), st.lists(SECONDS, min_size=2, max_size=10))
def test_within_a_segment_what_is_left_only_falls(learned: Run, reached: dict[str, float], times: list[float]) -> None:
    profile = Profile.of([learned])
    begun = max(reached.values(), default=0.0)
    rests = [profile.estimate(reached, begun + at)[1] for at in sorted(times)]
    assert all(two <= one for one, two in itertools.pairwise(rests))


@given(st.floats(FASTEST, SLOWEST))
def test_a_run_like_the_learned_one_is_told_right_and_another_the_better_the_longer_it_lasts(pace: float) -> None:
    profile = Profile.of([RUN])
    reached: dict[str, float] = {}
    for name, at in RUN.marks.items():
        reached[name] = at * pace
        done, rest = profile.estimate(reached, at * pace)
        assert done == pytest.approx(at / RUN.total)
        true = (RUN.total - at) * pace
        assert min(true, RUN.total - at) - 1e-6 <= rest <= max(true, RUN.total - at) + 1e-6, "damped, not overdone"
        if at > RUN.total / 2:
            assert abs(rest - true) <= 0.3 * abs(RUN.total - at - true) + 1e-6
    assert Profile.of([RUN]).estimate(RUN.marks, 180.0)[1] == pytest.approx(20)


def test_a_mark_that_is_late_lets_the_rest_shrink_towards_what_lies_behind_it() -> None:
    profile = Profile.of([RUN])
    reached = {"medium": 0.0, "install": 10.0, "install/kernel": 20.0}  # 90 seconds until the next, 90 behind it
    rests = [profile.estimate(reached, 20.0 + late)[1] for late in (0, 45, 90, 180, 900, 90_000)]
    assert rests[:2] == pytest.approx([180, 135])
    assert all(two < one for one, two in itertools.pairwise(rests[:4]))
    assert rests[3:] == pytest.approx([90, 90, 90], abs=1)
    done, rest = profile.estimate({**reached, "settle": 2000.0, "prove": 2100.0}, 1e6)
    assert (done, rest) == (ALMOST, 0)


def test_marks_of_another_installer_count_for_nothing() -> None:
    profile = Profile.of([RUN])
    reached = {"medium": 0.0, "install": 10.0}
    strange = {**reached, "install/other@7": 15.0, "": 16.0}
    assert profile.estimate(strange, 30.0) == profile.estimate(reached, 30.0)
    assert Profile.of([Run(100.0, {})]).estimate(strange, 30.0) == (0.3, 70.0)


def test_medians_of_marks_that_most_runs_have() -> None:
    learned = [
        Run(100.0, {"a": 10.0, "b": 50.0}),
        Run(900.0, {"a": 90.0, "b": 450.0, "once": 1.0}),
        Run(110.0, {"a": 11.0}),
    ]
    assert Profile.of(learned) == Profile(110.0, {"a": 11.0, "b": 110.0})


# The file


def test_runs_are_kept_by_kind_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "cache/pace.json"
    assert read(path) == ()
    for number in range(MOST_RUNS + 2):
        save(path, KIND, Run(100.0 + number, {"install": 1.0}))
    (entry,) = read(path)
    assert entry.kind == KIND
    assert [run.total for run in entry.runs] == [102.0 + number for number in range(MOST_RUNS)]
    for number in range(MOST_KINDS):
        save(path, replace(KIND, cpus=number + 3), RUN)
    kinds = [one.kind.cpus for one in read(path)]
    assert kinds == [number + 3 for number in range(MOST_KINDS)]
    save(path, replace(KIND, cpus=3), RUN)
    assert [one.kind.cpus for one in read(path)] == [*kinds[1:], 3]
    assert [one.name for one in path.parent.iterdir()] == ["pace.json"]


def test_the_nearest_kind_is_of_the_same_family() -> None:
    other = replace(KIND, packages=3, storage="lvm")
    newer = replace(KIND, packages=4, storage="lvm")
    entries = added(added(added((), KIND, RUN), other, RUN), newer, RUN)
    for kind, found in (
        (KIND, KIND),
        (other, other),
        (replace(KIND, cpus=4), KIND),
        (replace(other, cpus=4), other),
        (replace(other, packages=9), newer),
    ):
        entry = nearest(entries, kind)
        assert entry is not None
        assert entry.kind == found
    for strange in ({"accelerator": "kvm"}, {"arch": "arm64"}, {"medium": "Prebake-Rehearsal amd"}):
        assert nearest(entries, replace(KIND, **strange)) is None  # type: ignore[arg-type]
    assert nearest((), KIND) is None


def test_kinds_are_told_from_the_job() -> None:
    medium: Any = SimpleNamespace(arch="amd64", volume_id="Ubuntu-Server 24.04.3 LTS amd64", series="24.04")
    spec = Spec("maria", content=Content(packages=("nano", "htop"), snaps=(Snap("lxd"),), commands=("echo hunter2",)))
    kind = kind_of(Job(spec, Path("x.iso"), Path("output")), medium, "kvm")
    assert (kind.family, kind.series) == (("kvm", "amd64", "Ubuntu-Server LTS amd"), "24.04")
    assert (kind.packages, kind.snaps, kind.commands, kind.own) == (2, 1, 1, False)
    assert "maria" not in repr(kind)
    assert "hunter2" not in repr(kind)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
WHOLE = json.loads(json.dumps({"version": 1, "entries": [{"kind": vars(KIND), "runs": [vars(RUN)]}]}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pace") / "pace.json"


@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_foreign_file_is_ignored(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    assert read(place) == ()


@given(spoil=st.data())
def test_a_file_with_one_hostile_value_is_ignored_or_makes_sense(place: Path, spoil: st.DataObject) -> None:
    value = json.loads(json.dumps(WHOLE))
    ((entry,), (run,)) = value["entries"], value["entries"][0]["runs"]
    where = spoil.draw(st.sampled_from([value, entry, entry["kind"], run, run["marks"]]))
    where[spoil.draw(st.sampled_from(sorted(where)))] = spoil.draw(JSON)
    place.write_text(json.dumps(value))
    for one in read(place):
        done, rest = Profile.of(one.runs).estimate({"install": 3.0}, 5.0)
        assert 0 <= done < 1
        assert math.isfinite(rest)
        assert rest >= 0


@pytest.mark.parametrize(
    "spoiled",
    [
        {"version": 2},
        {"entries": [{"kind": vars(KIND), "runs": []}]},
        {"entries": [{"kind": vars(KIND), "runs": [{"total": 0, "marks": {}}]}]},
        {"entries": [{"kind": vars(KIND), "runs": [{"total": math.inf, "marks": {}}]}]},
        {"entries": [{"kind": vars(KIND), "runs": [{"total": 9, "marks": {"install": math.nan}}]}]},
        {"entries": [{"kind": vars(KIND), "runs": [{"total": 9, "marks": {"install": -1}}]}]},
        {"entries": [{"kind": {"arch": "amd64"}, "runs": [vars(RUN)]}]},
    ],
)
def test_a_damaged_or_newer_file_is_ignored_and_replaced(place: Path, spoiled: dict[str, Any]) -> None:
    place.write_text(json.dumps(WHOLE))
    assert len(read(place)) == 1
    place.write_text(json.dumps({**WHOLE, **spoiled}))
    assert read(place) == ()
    save(place, KIND, RUN)
    assert read(place) == (Entry(KIND, (RUN,)),)


def test_what_is_no_file_or_far_too_large_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("[" * 100_000)
    with (tmp_path / "large").open("wb") as out:
        out.write(json.dumps(WHOLE).encode())
        out.truncate(LARGEST + 1)
    for name in ("folder", "pipe", "deep", "large"):
        assert read(tmp_path / name) == ()


# The reporter


class Clock:
    """A clock that goes on when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


STORY: list[tuple[float, Event | None]] = [
    (0, StageStarted("medium", "Reading the medium")),
    (1, None),
    (1, StageFinished("medium", "Reading the medium", 2.0)),
    (0, StageStarted("install", "Installing")),
    (5, Phase("kernel", "Starting the kernel", 0.01)),
    (5, ConsoleOutput(b"[    0.0] Linux\r\n")),
    (60, Phase("curthooks", "Installing the kernel", 0.52)),
    (20, Phase("curthooks", "Installing the boot loader", 0.74)),
    (80, StageStarted("settle", "First boot, and sealing")),
    (20, Phase("login", "Logged in as maria", 0.6)),
    (20, Phase("class-1", "Running echo hunter2", 0.65)),
    (10, StageStarted("compact", "Compacting")),
    (5, Progress("Compacting", 5, 10)),
    (0, StageStarted("prove", "Proving the image")),
    (30, Phase("login", "Logged in as maria", 0.6)),
    (1, StageFinished("prove", "Proving the image", 31.0)),
]
"""A build: seconds that pass, and what happens then; None is the moment when its kind is known."""


def play(path: Path, report: Callable[[Event], None], kind: Kind = KIND) -> None:
    """Drive one build by a clock of its own; no second passes outside of it."""
    clock = Clock()
    with Pace(report, path, clock=clock, beat=3600) as pace:
        for seconds, event in STORY:
            for _ in range(int(seconds)):
                clock.now += 1
                pace.tick()
            pace(event) if event is not None else pace.begin(kind)


def test_the_first_build_tells_no_time_and_the_second_does(tmp_path: Path) -> None:
    path = tmp_path / "pace.json"
    heard: list[Event] = []
    play(path, heard.append)
    assert not [event for event in heard if isinstance(event, Estimate)]
    assert [event for event in heard if not isinstance(event, (Tick, Note))] == [event for _, event in STORY if event]
    heard.clear()
    play(path, heard.append)
    told = [event for event in heard if isinstance(event, Estimate)]
    total = sum(seconds for seconds, _ in STORY)
    assert told[0].rest == pytest.approx(total - 1, abs=1)
    assert all(one.sure for one in told)
    assert all(one.done <= two.done < 1 for one, two in itertools.pairwise(told[:-1]))
    assert told[-1] == Estimate(1.0, 0.0, sure=True)
    before = heard[heard.index(Phase("curthooks", "Installing the kernel", 0.52)) - 1]
    assert isinstance(before, Estimate)
    assert before.rest == pytest.approx(186, abs=1), "whoever shows the phase knows the time already"
    (entry,) = read(path)
    assert [run.total for run in entry.runs] == [total, total]


def test_a_build_of_another_kind_is_less_sure(tmp_path: Path) -> None:
    path = tmp_path / "pace.json"
    play(path, silent)
    heard: list[Event] = []
    play(path, heard.append, replace(KIND, packages=2))
    told = [event for event in heard if isinstance(event, Estimate)]
    assert told
    assert not any(one.sure for one in told)
    assert [one.kind.packages for one in read(path)] == [0, 2]
    heard.clear()
    play(path, heard.append, replace(KIND, accelerator="kvm"))
    assert not [event for event in heard if isinstance(event, Estimate)]


def test_what_is_kept_names_nobody_and_holds_no_command(tmp_path: Path) -> None:
    play(tmp_path / "pace.json", silent)
    text = (tmp_path / "pace.json").read_text()
    for words in ("maria", "hunter2", "Logged", "Running"):
        assert words not in text
    (entry,) = read(tmp_path / "pace.json")
    assert list(entry.runs[0].marks) == [
        *("medium", "install", "install/kernel", "install/curthooks", "install/curthooks@74"),
        *("settle", "settle/login", "settle/class-1", "compact", "prove", "prove/login"),
    ]


def fail(path: Path) -> None:
    with Pace(silent, path) as pace:
        pace.begin(KIND)
        raise InstallError("It failed.")


def test_a_build_that_fails_is_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(InstallError):
        fail(tmp_path / "pace.json")
    with Pace(silent, tmp_path / "pace.json"):
        pass  # nobody knows what it was
    assert not list(tmp_path.iterdir())


def test_a_cache_that_takes_nothing_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    heard: list[Event] = []
    play(tmp_path / "file/pace.json", heard.append)
    notes = [event for event in heard if isinstance(event, Note)]
    assert [note.level for note in notes] == ["debug", "debug"]
    assert "cannot be remembered" in notes[-1].text


def test_marks_without_end_are_bounded(tmp_path: Path) -> None:
    with Pace(silent, tmp_path / "pace.json", beat=3600) as pace:
        pace.begin(KIND)
        for number in range(2 * MOST_MARKS):
            pace(Phase(f"phase-{number}", "A phase", 0.5))
    (entry,) = read(tmp_path / "pace.json")
    assert len(entry.runs[0].marks) == MOST_MARKS


def test_time_passes_while_nothing_happens_and_stops_with_the_build(tmp_path: Path) -> None:
    save(tmp_path / "pace.json", KIND, RUN)
    enough = threading.Event()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if heard.count(Tick()) >= 3:
            enough.set()

    with Pace(hear, tmp_path / "pace.json", beat=0.01) as pace:
        pace.begin(KIND)
        assert enough.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "pace"]
    kinds = [type(event) for event in heard]
    assert kinds[kinds.index(Note) + 1 :][:2] == [Estimate, Tick]


def test_a_reader_that_has_gone_ends_the_ticking_without_a_word(tmp_path: Path) -> None:
    gone = threading.Event()

    def hear(_event: Event) -> None:
        gone.set()
        raise BrokenPipeError

    with Pace(hear, tmp_path / "pace.json", beat=0.01):
        assert gone.wait(60)


def test_the_pipeline_learns_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds whose rooms are empty: what the pipeline itself does about time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    medium = MagicMock(arch="amd64", volume_id="Ubuntu-Server 24.04.3 LTS amd64", series="24.04", size=0)
    for name in "check_asked check_layout check_patience answers_for tell_added boot_medium plain_machine".split():  # noqa: SIM905
        monkeypatch.setattr(pipeline, name, MagicMock())
    monkeypatch.setattr(pipeline, "qemu_version", lambda _arch: "7")
    for name in ("disk", "install", "installer", "describe", "finish_logs", "publish", "deliver", "bases"):
        monkeypatch.setattr(pipeline, name, MagicMock())
    monkeypatch.setattr(pipeline, "suited", lambda spec, _arch: spec)
    monkeypatch.setattr("builder.pipeline.disk.create", lambda path, *_: path.touch())
    monkeypatch.setattr("builder.pipeline.bases.reuse", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "inspect", lambda _path: medium)
    for name in ("stages", "prove", "features"):
        monkeypatch.setattr(pipeline, name, MagicMock())
    chosen = SimpleNamespace(name="tcg", speed=1.0)
    monkeypatch.setattr(pipeline, "accel", SimpleNamespace(choose=lambda *_: chosen))
    job = Job(Spec("mine", network="offline"), Path("x.iso"), tmp_path / "output")
    heard: list[Event] = []
    assert pipeline.build_image(job, heard.append) == tmp_path / "output/mine/mine.qcow2"
    assert not [event for event in heard if isinstance(event, Estimate)]
    pipeline.build_image(job, heard.append)
    assert isinstance(heard[-1], Estimate)
    (entry,) = read(tmp_path / "cache/prebake/pace.json")
    assert len(entry.runs) == 2
    assert list(entry.runs[0].marks) == "medium remaster install settle class compact prove publish".split()  # noqa: SIM905
    job.target.mkdir(parents=True)
    with pytest.raises(UsageError):
        pipeline.build_image(job, silent)
    assert not [thread for thread in threading.enumerate() if thread.name == "pace"]


# What people see


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (4000, "about 1:06:40 left"),
        (133, "about 02:10 left"),
        (121, "about 02:00 left"),
        (119.4, "about 01:59 left"),
        (5, "about 00:05 left"),
        (4.9, "almost done"),
        (0, "almost done"),
    ],
)
def test_the_rest_in_words(rest: float, words: str) -> None:
    assert left(Estimate(0.5, rest, sure=True)) == words
    assert left(Estimate(0.5, rest, sure=False)) == words.replace("about", "perhaps")


def test_plain_lines_tell_the_rest_from_the_second_build_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    play(tmp_path / "pace.json", Ui())
    first = capsys.readouterr().err
    assert "Installing the kernel\n" in first
    assert " left" not in first
    play(tmp_path / "pace.json", Ui())
    rows = capsys.readouterr().err.splitlines()
    (row,) = [row for row in rows if "Installing the kernel" in row]
    assert row.endswith("] Installing the kernel (about 03:10 left)")
    assert rows[0].endswith("] Reading the medium")
    play(tmp_path / "pace.json", Ui(verbose=True), replace(KIND, cpus=8))
    text = capsys.readouterr().err
    assert "Installing the kernel (perhaps 03:10 left)" in text
    assert "not quite like this one: 2." in text


def test_quiet_and_console_tell_no_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    play(tmp_path / "pace.json", silent)
    play(tmp_path / "pace.json", Ui(quiet=True))
    assert capsys.readouterr().err == ""
    play(tmp_path / "pace.json", Ui(quiet=True, form="json"))
    assert "Estimate" not in capsys.readouterr().err
    play(tmp_path / "pace.json", Ui(console=True))
    text = capsys.readouterr().err
    assert "[    0.0] Linux" in text
    assert " left" not in text
    assert "%|" not in text


def test_json_tells_of_it_at_each_phase_and_otherwise_now_and_then(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path / "pace.json", silent)
    monkeypatch.setattr("builder.ui.time", SimpleNamespace(monotonic=lambda: 100.0, time=lambda: 0.0))
    play(tmp_path / "pace.json", Ui(form="json"))
    rows = [json.loads(row) for row in capsys.readouterr().err.splitlines()]
    told = [row["event"] for row in rows]
    begun = [index for index, name in enumerate(told) if name in {"StageStarted", "Phase"}][1:]
    assert all(told[index + 1] == "Estimate" for index in begun)
    assert told.count("Estimate") == len(begun) + 2  # the first, and the last
    assert "Tick" not in told
    assert {"event", "at", "done", "rest", "sure"} == set(rows[-1])
    assert (rows[-1]["done"], rows[-1]["rest"]) == (1, 0)
    moments = iter(range(100, 10**6))
    monkeypatch.setattr("builder.ui.time", SimpleNamespace(monotonic=lambda: next(moments), time=lambda: 0.0))
    play(tmp_path / "pace.json", Ui(form="json"))
    more = [json.loads(row)["event"] for row in capsys.readouterr().err.splitlines()]
    assert told.count("Estimate") < more.count("Estimate") < 80  # of about 260 seconds
