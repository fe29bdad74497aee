"""A QEMU that is killed while the installed system runs is told with its exit code and its words."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builder.errors import MachineError
from builder.events import ConsoleOutput
from builder.image import session as module
from builder.image.session import session
from builder.image.shell import RootShell
from builder.install.patience import patience
from builder.install.site import Site
from builder.spec import User
from builder.vm.machine import Machine
from builder.vm.qemu import Nic
from tests.test_vm_machine import TEXT, make_spec
from tests.tiny import FOR_EVER

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Event

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")


@pytest.mark.parametrize("action", [b"", FOR_EVER], ids=["a silent guest", "a guest that talks"])
def test_a_killed_qemu_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: bytes) -> None:
    started: list[Machine] = []

    class Kept(Machine):
        def _start(self) -> None:
            super()._start()
            started.append(self)

    heard = b""

    def kill(event: Event) -> None:
        nonlocal heard
        heard += event.data if isinstance(event, ConsoleOutput) else b""
        if TEXT in heard and started[0].pid:
            os.kill(started[0].pid, signal.SIGKILL)

    monkeypatch.setattr(module, "Machine", Kept)
    site = Site(tmp_path, tmp_path, patience(1.0), kill)
    spec = replace(make_spec(tmp_path, action), nic=Nic())
    with pytest.raises(MachineError) as caught, session(spec, "boot", User("ann", password="x"), site):
        pass
    assert caught.value.message == "QEMU died while the installed system ran (exit code -9). It said nothing."
    assert caught.value.hint
    assert any("first byte" in line for line in caught.value.console)


def test_a_qemu_that_dies_between_two_commands_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed then finds no socket, which is no failure of this host."""
    monkeypatch.setattr(RootShell, "log_in", lambda *_, **__: 1.0)
    monkeypatch.setattr(RootShell, "must", lambda *_, **__: "")
    site = Site(tmp_path, tmp_path, patience(1.0), lambda _: None)
    with (  # noqa: PT012 - where in the session it is raised does not matter
        pytest.raises(MachineError, match=r"QEMU died .* \(exit code -9\)"),
        session(make_spec(tmp_path, FOR_EVER), "boot", User("ann", password="x"), site) as system,
    ):
        assert system.machine.pid is not None
        os.kill(system.machine.pid, signal.SIGKILL)
        system.machine.wait_shutdown(30)
        system.shell.run("true", seconds=30)
