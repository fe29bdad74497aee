"""Signals to a real child that runs a real QEMU: once, twice, at a bad time. And pauses, which are no silence."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from builder import interrupts
from builder.interrupts import held
from builder.vm.machine import Machine
from tests.test_vm_machine import TEXT, make_spec, read
from tests.tiny import FOR_EVER, answer, child, gone, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU"),
]
BUILD = """
import click
from builder.talk import talking

@click.command()
@talking
def build(ui):
    with Machine(spec) as guest:
        say(guest.pid)
        sys.stdin.readline()
    say("unreachable")

build([])
"""


def left(folder: Path) -> list[str]:
    """What is left of the sockets and of their record."""
    return [path.name for path in [*(folder / "tmp").iterdir(), *(folder / "cache/prebake/work").iterdir()]]


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGHUP],
        [signal.SIGINT, signal.SIGINT],
        [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM],
    ],
    ids=["SIGHUP", "two SIGINT", "many"],
)
def test_signals_end_it_without_a_trace(tmp_path: Path, numbers: list[signal.Signals]) -> None:
    make_spec(tmp_path, b"")
    with child(tmp_path, BUILD) as prebake:
        (qemu,) = (int(word) for word in answer(prebake))
        assert len(left(tmp_path)) == 2
        for number in numbers:
            prebake.send_signal(number)
            time.sleep(0.02)
        out, err = prebake.communicate()
    assert (prebake.returncode, out) == (130, "")
    assert err == "error: Interrupted. Nothing is left running, and no result is left half-made.\n"
    assert gone(qemu)
    assert left(tmp_path) == []


@pytest.mark.parametrize("first", [signal.SIGINT, None], ids=["after an interruption", "at a good end"])
def test_a_signal_while_qemu_is_being_ended_ends_it_at_once(tmp_path: Path, first: signal.Signals | None) -> None:
    """QEMU is stopped, so that it cannot end by itself. Two seconds."""
    make_spec(tmp_path, b"")
    with child(tmp_path, BUILD) as prebake:
        (qemu,) = (int(word) for word in answer(prebake))
        os.kill(qemu, signal.SIGSTOP)
        if first is None:
            assert prebake.stdin is not None
            prebake.stdin.write("\n")
            prebake.stdin.flush()
        else:
            prebake.send_signal(first)
        time.sleep(interrupts.BOUNCE + 0.5)
        assert not gone(qemu)
        prebake.send_signal(signal.SIGTERM)
        prebake.send_signal(signal.SIGINT)
        out, err = prebake.communicate()
    assert (prebake.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "Interrupted" in err
    assert gone(qemu)
    assert left(tmp_path) == []


def test_a_signal_that_the_parent_has_switched_off_stays_off(tmp_path: Path) -> None:
    """As under nohup."""
    make_spec(tmp_path, b"")
    with child(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + BUILD) as prebake:
        (qemu,) = (int(word) for word in answer(prebake))
        prebake.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert prebake.poll() is None
        assert not gone(qemu)
        prebake.send_signal(signal.SIGINT)
        prebake.communicate()
    assert prebake.returncode == 130
    assert gone(qemu)


@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.6])
def test_a_signal_while_python_still_reads_the_program_leaves_no_trace(tmp_path: Path, seconds: float) -> None:
    """The child says when its first line has run; before that it is Python's own start."""
    script = """
import runpy
sys.argv = ["prebake", "doctor"]
say("ready")
runpy.run_module("builder", run_name="__main__")
"""
    with child(tmp_path, "from builder import interrupts\ninterrupts.leave()\n" + script) as prebake:
        assert answer(prebake) == ["ready"]
        time.sleep(seconds)
        prebake.send_signal(signal.SIGINT)
        _, err = prebake.communicate()
    assert prebake.returncode == 130
    assert "Traceback" not in err


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.NUMBERS}
    interrupts.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_what_is_held_comes_at_the_end_and_once() -> None:
    done: list[str] = []
    hurried: list[int] = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the place is the subject
        with held(lambda: hurried.append(len(done))):
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("first")
            os.kill(os.getpid(), signal.SIGINT)
            done.append("second")
        done.append("never")
    assert done == ["first", "second"]
    assert hurried == [0, 1]
    with held():
        done.append("third")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.usefixtures("handlers")
def test_an_error_while_signals_are_held_is_not_lost() -> None:
    with pytest.raises(ValueError, match="mine"), held():  # noqa: PT012 - the order is the subject
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("mine")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_qemu_that_was_stopped_for_three_seconds_goes_on(tmp_path: Path) -> None:
    with Machine(make_spec(tmp_path, FOR_EVER)) as guest:
        assert guest.pid is not None
        assert read(guest.serial, len(TEXT)).startswith(TEXT)
        os.kill(guest.pid, signal.SIGSTOP)
        waker = threading.Timer(3, os.kill, (guest.pid, signal.SIGCONT))
        waker.start()
        assert "running" in str(guest.execute("query-status"))  # asked in its sleep, answered after it
        waker.join()
        assert len(read(guest.serial, 1 << 16)) >= 1 << 16
        assert guest.wait_shutdown(0).running
        assert guest.quit().code == 0


def test_a_pause_of_prebake_and_qemu_is_no_silence(tmp_path: Path) -> None:
    """All of it is stopped for two seconds, more than anything here may be silent. Five seconds."""
    make_spec(tmp_path, FOR_EVER)
    script = """
import io
from builder.vm.clock import AwakeClock
from builder.vm.serial import LineSilentError, SerialLine

with Machine(spec) as guest:
    line = SerialLine(guest.serial, io.BytesIO(), lambda _: None)
    say(guest.pid)
    clock = AwakeClock(longest=0.5)
    while clock.seconds() < 1.5:
        line.expect([rb"first byte to last"], 1)
        guest._monitor.execute("query-status", timeout=1)
        assert guest.wait_shutdown(0.01).running
    begun = time.monotonic()
    try:
        line.expect([rb"never"], 1)
    except LineSilentError:
        say("silent", "paused" if time.monotonic() - begun > 2 else "awake")
say("ended", guest.poll().code)
"""
    with child(tmp_path, script) as prebake:
        (qemu,) = (int(word) for word in answer(prebake))
        time.sleep(0.3)
        for pid in (qemu, prebake.pid):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        for pid in (prebake.pid, qemu):
            os.kill(pid, signal.SIGCONT)
        assert answer(prebake) == ["silent", "awake"]
        assert answer(prebake) == ["ended", "0"]
    assert soon(lambda: gone(qemu))
    assert left(tmp_path) == []
