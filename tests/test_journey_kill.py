"""A real build that is killed, hung up on and interrupted twice. Each takes a few seconds: the guest only starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import PREBAKE, environment, prebake
from tests.journey import MISSING
from tests.tiny import gone, soon

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


@pytest.fixture
def here(tmp_path: Path, iso: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the medium, a cache and a folder for sockets of its own."""
    (tmp_path / "it.iso").symlink_to(iso)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path


def start(here: Path) -> subprocess.Popen[str]:
    """Start the build; it is in a session of its own, as at a terminal."""
    argv = [PREBAKE, "image", "--iso", str(here / "it.iso"), "--offline", "--name", "x", "-o", str(here / "output")]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def booting(process: subprocess.Popen[str]) -> str:
    """Wait until the guest starts; return what was said until then."""
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if "boot loader" in line:
            return text
    raise AssertionError(text)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def remains(here: Path) -> set[str]:
    """What is in the folders that a build uses, but for the output folder itself."""
    places = (here / "output", here / "tmp", here / "cache/prebake/work")
    return {str(path.relative_to(here)) for place in places if place.exists() for path in place.iterdir()}


def test_after_kill_9_nothing_runs_the_rest_is_listed_and_the_same_command_works(here: Path) -> None:
    with start(here) as process:
        booting(process)
        machines = children(process.pid)
        assert machines
        live = json.loads(prebake("cache", "list", "--json").out)["items"]
        assert live == []
        process.kill()
    assert all(soon(lambda pid=pid: gone(pid)) for pid in machines)  # type: ignore[misc]
    rows = json.loads(prebake("cache", "list", "--json").out)["items"]
    assert {row["kind"] for row in rows} == {"leftover"}
    left = {str(Path(row["path"]).relative_to(here)) for row in rows}
    assert left == {name for name in remains(here) if not name.startswith("cache/")}
    assert {Path(name).parent.name for name in left} == {"output", "tmp"}

    with start(here) as process:
        said = booting(process)
        assert said.count("`prebake cache prune` removes what is left") == 1
        done = prebake("cache", "prune", "--json")
        assert done.code == 0, done.err
        assert {str(Path(row["path"]).relative_to(here)) for row in json.loads(done.out)} == left
        assert remains(here).isdisjoint(left)
        assert process.poll() is None
        assert not any(gone(pid) for pid in children(process.pid))
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert remains(here) == set()


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGHUP], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]],
    ids=["SIGHUP", "two SIGINT", "many"],
)
def test_signals_while_the_guest_starts(here: Path, numbers: list[signal.Signals]) -> None:
    with start(here) as process:
        booting(process)
        machines = children(process.pid)
        for number in numbers:
            os.killpg(process.pid, number)
            time.sleep(0.05)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.count("Interrupted.") == 1
    assert all(gone(pid) for pid in machines)
    assert remains(here) == set()
    assert not (here / "output").exists()
