"""The shell behind the error prompt, played by a real one: the logs reach us through the port, or read aloud."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from builder.install import rescue as module
from builder.install.guestlogs import JOURNAL
from builder.install.rescue import look, rescue
from builder.vm.serial import SerialLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays a console of Linux")


@contextmanager
def console(line: str = "exec bash --norc -i") -> Iterator[tuple[SerialLine, io.BytesIO]]:
    """A terminal on which an installer waits for Enter and then becomes a shell, at the end of a serial line."""
    ours, theirs = socket.socketpair()
    lead, follow = pty.openpty()
    script = f"printf 'An error occurred. Press enter to start a shell\\n'; read -r _; {line}"
    argv = ["bash", "-c", script]
    process = subprocess.Popen(
        argv, stdin=follow, stdout=follow, stderr=follow, start_new_session=True, env={**os.environ, "PS1": "# "}
    )
    os.close(follow)

    def carry_in() -> None:
        with contextlib.suppress(OSError):
            while data := theirs.recv(4096):
                os.write(lead, data)

    def carry_out() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(lead, 4096):
                theirs.sendall(data)

    threads = [threading.Thread(target=each, daemon=True) for each in (carry_in, carry_out)]
    for thread in threads:
        thread.start()
    record = io.BytesIO()
    try:
        yield SerialLine(ours, record, lambda _data: None), record
    finally:
        process.kill()
        process.wait()
        ours.close()
        for thread in threads:
            thread.join(5)
        theirs.close()
        os.close(lead)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUDGE", 0.3)


def test_the_logs_come_through_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = tmp_path / "port"
    port.touch()
    monkeypatch.setattr(module, "EVIDENCE", f"echo archive > {port} || true")
    with console() as (line, record):
        assert rescue(line, port, 20) == {}
    assert port.read_text() == "archive\n"
    assert b"An error occurred" in record.getvalue()


def test_without_a_port_they_are_read_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "traceback.txt"
    log.write_text("old\n" * 500 + "Traceback (most recent call last):\n  File 1\nValueError: the ünd\n")
    missing = str(tmp_path / "missing.log")[1:]
    monkeypatch.setattr(module, "EVIDENCE", "true")
    monkeypatch.setattr(module, "READ", (JOURNAL, missing, str(log)[1:]))
    with console() as (line, _):
        found = rescue(line, tmp_path / "no-port", 20)
    assert set(found) == {str(log)[1:]}
    text = found[str(log)[1:]]
    assert text.rstrip().endswith("Traceback (most recent call last):\n  File 1\nValueError: the ünd")
    assert text.count("old") == module.LINES - 3


def test_nobody_behind_the_prompt_costs_only_the_patience(tmp_path: Path) -> None:
    with console("exec sleep 60") as (line, _):
        assert rescue(line, tmp_path / "no-port", 1) == {}
    with console("exit") as (line, _):
        assert rescue(line, tmp_path / "no-port", 2) == {}


def test_an_early_shell_is_asked_what_brought_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", {"initramfs": "echo looked-$((40 + 2))"})
    with console() as (line, record):
        look(line, "initramfs", 20)
    assert b"looked-42" in record.getvalue()
