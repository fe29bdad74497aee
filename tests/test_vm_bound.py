"""What prebake has started ends with it, though it be killed: by the kernel's hand, or by a watchdog's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from builder import command
from builder.vm import guard
from builder.vm.bound import Bound
from tests.test_vm_machine import make_spec
from tests.tiny import answer, child, gone, soon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU"),
]
NO_KERNEL = "command.dies_with_parent = lambda number='KILL': ()\n"
"""What makes a child believe that its system cannot tie a process to its parent."""


@pytest.fixture(params=["kernel", "watchdog"])
def means(request: pytest.FixtureRequest) -> str:
    if request.param == "kernel" and not command.dies_with_parent():
        pytest.skip("this system cannot tie a process to its parent")
    return NO_KERNEL if request.param == "watchdog" else ""


def test_qemu_dies_with_a_killed_prebake(tmp_path: Path, means: str) -> None:
    make_spec(tmp_path, b"")
    script = """
with Machine(spec) as guest:
    watchdog = guest._bound.watchdog
    say(guest.pid, watchdog.pid if watchdog else 0)
    time.sleep(1000)
"""
    with child(tmp_path, means + script) as prebake:
        qemu, watchdog = (int(word) for word in answer(prebake))
        assert not gone(qemu)
        assert bool(watchdog) == bool(means)
        prebake.kill()
    assert soon(lambda: gone(qemu))
    assert watchdog == 0 or soon(lambda: gone(watchdog))


def test_ctrl_c_at_the_terminal_does_not_take_the_watchdog(tmp_path: Path) -> None:
    make_spec(tmp_path, b"")
    script = """
os.setsid()
with Machine(spec) as guest:
    say(guest.pid, guest._bound.watchdog.pid)
    time.sleep(1000)
"""
    with child(tmp_path, NO_KERNEL + script) as prebake:
        qemu, watchdog = (int(word) for word in answer(prebake))
        assert len({os.getsid(one) for one in (prebake.pid, qemu, watchdog)}) == 3
        os.killpg(prebake.pid, signal.SIGKILL)
    assert soon(lambda: gone(qemu))
    assert soon(lambda: gone(watchdog))


def test_the_watchdog_leaves_quietly_when_all_is_well(tmp_path: Path) -> None:
    make_spec(tmp_path, b"")
    script = """
with Machine(spec) as guest:
    say(guest.pid, guest._bound.watchdog.pid)
    assert guest.quit().code == 0
    bystander = command.spawn(["sleep", "1000"])
    say(bystander.pid)
    sys.stdin.readline()
"""
    with child(tmp_path, NO_KERNEL + script) as prebake:
        qemu, watchdog = (int(word) for word in answer(prebake))
        (bystander,) = (int(word) for word in answer(prebake))
        assert gone(qemu)
        assert gone(watchdog)
        prebake.kill()
    try:
        assert not gone(bystander)
    finally:
        os.kill(bystander, signal.SIGKILL)


def test_the_watchdog_ends_only_what_it_was_told_of(tmp_path: Path) -> None:
    del tmp_path
    told = subprocess.Popen([command.find("sleep"), "1000"], start_new_session=True)
    other = subprocess.Popen([command.find("sleep"), "1000"])  # leads no session, as whoever got an old number
    try:
        for pid in (told.pid, other.pid):
            command.run([sys.executable, "-I", "-S", guard.__file__], stdin=b"%d\nbye\n" % pid)
        command.run([sys.executable, "-I", "-S", guard.__file__], stdin=b"")
        assert told.poll() is None
        assert other.poll() is None
        guard.end(other.pid, None)
        assert other.poll() is None
        command.run([sys.executable, "-I", "-S", guard.__file__], stdin=b"%d\n" % told.pid)
        assert told.wait(30) == -signal.SIGKILL
        command.run([sys.executable, "-I", "-S", guard.__file__], stdin=b"%d\n" % told.pid)  # gone already: no matter
    finally:
        told.kill()
        other.kill()
        told.wait()
        other.wait()


def test_a_killed_watchdog_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "dies_with_parent", lambda _number="KILL": ())
    bound = Bound(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert bound.watchdog is not None
    bound.watchdog.kill()
    bound.watchdog.wait()
    assert bound.process.poll() is None
    bound.process.kill()
    bound.process.wait()
    bound.release()
    bound.release()


def test_a_hung_probe_dies_with_a_killed_prebake(tmp_path: Path, means: str) -> None:
    script = """
from builder.vm import trial
trial.trial_argv = lambda *_: ("sh", "-c", "echo $$ > $0; exec sleep 1000", str(here / "pid"))
trial.run_trial("tcg", "amd64")
"""
    with child(tmp_path, means + script) as prebake:
        assert soon(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        pid = int((tmp_path / "pid").read_text())
        assert not gone(pid)
        prebake.kill()
    assert soon(lambda: gone(pid))


@pytest.mark.skipif(not command.dies_with_parent(), reason="this system cannot tie a process to its parent")
def test_a_program_that_is_waited_for_is_asked_to_end(tmp_path: Path) -> None:
    script = """
command.run(["sh", "-c", "trap 'echo cleaned > $0.done; exit' TERM; echo $$ > $0; while :; do sleep 0.1; done",
             str(here / "pid")])
"""
    with child(tmp_path, script) as prebake:
        assert soon(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        pid = int((tmp_path / "pid").read_text())
        prebake.kill()
    assert soon(lambda: gone(pid))
    assert (tmp_path / "pid.done").exists()
