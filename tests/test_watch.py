"""The watch over recorded and made-up consoles: how it ends, and how soon."""

from __future__ import annotations

import io
import itertools
import socket
import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from builder.errors import HostError, InstallError, MachineError, PrebakeError, StalledError
from builder.events import Event, Phase
from builder.install import patience as patience_module
from builder.install import watch as module
from builder.install.patience import QUIET, patience
from builder.install.record import Record
from builder.install.site import Site
from builder.install.watch import Watch
from builder.vm import screen
from builder.vm.serial import SerialLine
from builder.vm.state import RUNNING, State

if TYPE_CHECKING:
    from builder.vm.machine import Machine

TRANSCRIPTS = Path(__file__).parent.parent.parent / "shared/transcripts"
OFF = State("shutdown", reason="guest-shutdown")
TOKEN = "0123456789abcdef"
INSTALL = "subiquity/Install/install"
DONE = f"prebake-sentinel:installed:{TOKEN}\r\n".encode()
PROMPT = b"An error occurred. Press enter to start a shell\r\n"
START = b"connecting...  \x08 \r\nstart: subiquity/Identity/load_autoinstall_data: \r\n"


@dataclass
class Recorded:
    """Stands for a machine with an installer that cannot be had here: plays a console, then is in a state."""

    console: bytes
    end: State
    ours: socket.socket = field(init=False)
    state: State = RUNNING
    pid: int | None = None

    def __post_init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.thread = threading.Thread(target=self.play)
        self.thread.start()

    def play(self) -> None:
        self.theirs.sendall(self.console)
        self.state = self.end

    def poll(self) -> State:
        return self.state

    def wait_shutdown(self, _seconds: float) -> State:
        self.thread.join()
        return self.state

    def stderr_text(self) -> str:
        return "qemu: killed\n"


def watch(
    console: bytes, end: State, *, idle: float | None = None, first: float | None = None, **limits: float
) -> tuple[list[Event], PrebakeError | None]:
    events: list[Event] = []
    machine = Recorded(console, end)
    line = SerialLine(machine.ours, io.BytesIO(), lambda _data: None)
    plain = patience(12.0, **limits)
    patient = replace(plain, still=idle or plain.still, first=first or plain.first)
    error = None
    try:
        with tempfile.TemporaryDirectory() as name, Record(Path(name)) as record:
            site = Site(
                Path(name),
                Path(name),
                patient,
                events.append,
            )
            Watch(cast("Machine", cast("Any", machine)), line, TOKEN, site, record).run()
    except PrebakeError as caught:
        error = caught
    finally:
        machine.thread.join()
        machine.ours.close()
        machine.theirs.close()
    return events, error


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.02)
    monkeypatch.setattr(module, "LOOK", 0.04)
    monkeypatch.setattr(module, "work", lambda _machine: None)
    monkeypatch.setattr(screen, "text", lambda _machine: [])
    monkeypatch.setattr(module, "SETTLE", 0.05)
    monkeypatch.setattr(module, "GRACE", 0.1)


def recorded(name: str) -> bytes:
    path = TRANSCRIPTS / name
    if not path.exists():
        pytest.skip("the recorded consoles are not here")
    return path.read_bytes()


def test_success_needs_its_proof_and_the_machines_word() -> None:
    events, error = watch(START + DONE + b"reboot: Power down\r\n", OFF)
    assert error is None
    assert any(isinstance(event, Phase) for event in events)
    _, error = watch(START, OFF)
    assert isinstance(error, InstallError)
    assert "before the installer had said that it was done" in error.message
    _, error = watch(START + DONE, State("exited", code=0))
    assert isinstance(error, MachineError)


def test_a_real_success_and_real_failures() -> None:
    _, error = watch(recorded("vm-success.raw"), OFF)
    assert error is None
    _, error = watch(recorded("vm-late-fail.raw"), RUNNING)
    assert isinstance(error, InstallError)
    assert "'late-commands'" in error.message
    assert "false" in error.message
    _, error = watch(recorded("vm-curtin-fail.raw"), RUNNING)
    assert isinstance(error, InstallError)
    assert "'curthooks'" in error.message
    assert error.console


def test_an_interactive_screen_is_known_in_seconds() -> None:
    _, error = watch(recorded("dry-26.04.1.no-autoinstall-interactive.raw"), RUNNING)
    assert isinstance(error, StalledError)
    assert error.hint


def test_a_question_is_known_in_seconds() -> None:
    _, error = watch(START + b"\r\n\r\nContinue with autoinstall? (yes|no)\r\n", RUNNING)
    assert isinstance(error, StalledError)
    assert "autoinstall" in (error.hint or "")


def test_a_failure_that_powers_off_is_no_success() -> None:
    said = f"prebake-sentinel:failed:{TOKEN}\r\nreboot: Power down\r\n".encode()
    _, error = watch(START + said, OFF)
    assert isinstance(error, InstallError)
    _, error = watch(START + PROMPT, RUNNING)
    assert isinstance(error, InstallError)


def test_the_sentinel_of_another_install_proves_nothing() -> None:
    other = b"prebake-sentinel:installed:ffffffffffffffff\r\n"
    _, error = watch(START + other, OFF)
    assert isinstance(error, InstallError)


def test_silence_and_time() -> None:
    _, error = watch(START, RUNNING, silence=0.2)
    assert isinstance(error, StalledError)
    assert "Nothing more came" in error.message
    assert "--stall-timeout" in (error.hint or "")
    _, error = watch(START, RUNNING, install=0.2)
    assert isinstance(error, StalledError)
    assert "--timeout" in (error.hint or "")


def test_a_guest_that_neither_speaks_nor_works_hangs_and_one_that_works_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = START + f"start: {INSTALL}/curtin_install/run/cmd-install/stage-extract: writing\r\n".encode()
    monkeypatch.setitem(cast("dict[str, Any]", QUIET), "extract", (1800.0, 0.0))
    monkeypatch.setattr(module, "work", lambda _machine: (1.0, 512))
    _, error = watch(here, RUNNING, idle=0.3, install=30)
    assert isinstance(error, StalledError)
    assert "said nothing and done nothing" in error.message
    assert "It hangs." in error.message
    assert "Copying the system" in error.message
    ticks = itertools.count()
    monkeypatch.setattr(module, "work", lambda _machine: (1.0, next(ticks)))
    _, error = watch(here, RUNNING, idle=0.3, install=1.0)
    assert error is not None
    assert "not done within" in error.message, "the disk is at work"
    monkeypatch.setattr(module, "work", lambda _machine: (float(next(ticks)), 512))
    _, error = watch(here, RUNNING, idle=0.3, install=1.0)
    assert error is not None
    assert "not done within" in error.message, "a processor is at work"


def test_a_proven_success_may_rest_before_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, Any]", QUIET), "shutdown", (600.0, 0.0))
    monkeypatch.setattr(module, "work", lambda _machine: (1.0, 512))
    done = START + DONE + b"start: subiquity/Shutdown/shutdown: mode=POWEROFF\r\n"
    _, error = watch(done, RUNNING, idle=0.1, install=0.8)
    assert error is not None
    assert "not done within" in error.message


def test_a_qemu_that_answers_no_question_is_told_apart_from_a_guest_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(_machine: object) -> None:
        raise MachineError("QEMU did not answer `query-blockstats` within 5 s.")

    monkeypatch.setattr(module, "work", mute)
    monkeypatch.setattr(module, "MUTE", 0.2)
    _, error = watch(START, RUNNING, install=30)
    assert isinstance(error, MachineError)
    assert "answers no question any more" in error.message
    assert "did not answer" in error.message


def test_a_guest_that_works_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "SHORTEST", 0.0)
    monkeypatch.setitem(cast("dict[str, Any]", QUIET), "answers", (0.0, 0.3))
    ticks = itertools.count()
    monkeypatch.setattr(module, "work", lambda _machine: (1.0, next(ticks)))
    _, error = watch(START, RUNNING, install=0.8)
    assert error is not None
    assert "not done within" in error.message
    _, error = watch(START, RUNNING, install=30)
    assert error is not None
    assert "it still works" in error.message


def test_an_idle_guest_may_wait_for_a_command_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "work", lambda _machine: (1.0, 512))
    _, error = watch(START + b"running early commands\r\n  running sleep 900\r\n", RUNNING, idle=0.1, install=0.8)
    assert error is not None
    assert "not done within" in error.message


def test_a_turning_bar_is_no_word() -> None:
    _, error = watch(b"\r\nconnecting...  " + b"\x08-" * 2000, RUNNING, silence=0.3)
    assert isinstance(error, StalledError)
    assert "Nothing more came" in error.message


def test_a_line_that_is_closed_while_qemu_runs_is_told() -> None:
    machine = Recorded(START, RUNNING)
    machine.thread.join()
    machine.theirs.close()
    with tempfile.TemporaryDirectory() as name, Record(Path(name)) as record:
        site = Site(Path(name), Path(name), patience(12.0), lambda _event: None)
        line = SerialLine(machine.ours, io.BytesIO(), lambda _data: None)
        seen = Watch(cast("Machine", cast("Any", machine)), line, TOKEN, site, record)
        with pytest.raises(MachineError, match="has closed the guest's serial line"):
            seen.run()
    machine.ours.close()
    assert seen.ended is not None
    assert (seen.ended.cause or "").startswith("qemu-deaf: ")


def test_a_login_on_the_screen_alone_is_no_verdict_and_does_not_stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "text", lambda _machine: ["Ubuntu 24.04.3 LTS vm tty1", "", "vm login:"])
    _, error = watch(b"", RUNNING, first=0.5)
    assert isinstance(error, StalledError)
    assert "Nothing at all came" in error.message
    assert error.console[-1] == "vm login:"


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (
            ["Booting from DVD/CD...", "Boot failed: Could not read from CDROM (code 0003)", "No bootable device."],
            "start",
        ),
        (["error: no such device: x.", "Entering rescue mode...", "grub rescue> "], "boot loader"),
        (["                       GNU GRUB  version 2.12", "", "grub> "], "boot loader"),
    ],
)
def test_a_boot_loader_that_only_the_screen_hears(
    monkeypatch: pytest.MonkeyPatch, shown: list[str], words: str
) -> None:
    monkeypatch.setattr(screen, "text", lambda _machine: shown)
    _, error = watch(b"", RUNNING, install=30)
    assert isinstance(error, InstallError)
    assert "'boot-loader'" in error.message
    assert words in error.message
    assert error.console[-1].strip() == shown[-1].strip()


def test_a_menu_on_the_screen_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "text", lambda _machine: ["GNU GRUB  version 2.12", "*Try or Install Ubuntu Server"])
    _, error = watch(b"", RUNNING, install=0.8)
    assert error is not None
    assert "not done within" in error.message


def test_a_machine_that_goes_down_by_itself() -> None:
    _, error = watch(START, State("shutdown", reason="guest-reset"))
    assert isinstance(error, InstallError)
    assert "rebooted before the installer had said that it was done" in error.message
    assert "again and again" in error.message
    _, error = watch(START, State("shutdown", reason="guest-panic"))
    assert isinstance(error, InstallError)
    assert "guest-panic" in error.message


def test_the_host_and_qemu() -> None:
    _, error = watch(START, State("io-error", reason="No space", device="/x/disk.qcow2", nospace=True))
    assert isinstance(error, HostError)
    assert "disk is full" in error.message
    assert "/x/disk.qcow2" in error.message
    _, error = watch(START, State("io-error", reason="Input/output error"))
    assert isinstance(error, HostError)
    _, error = watch(START, State("exited", code=-9))
    assert isinstance(error, MachineError)
    assert "qemu: killed" in error.message
    assert "killed by signal 9" in error.message


def test_a_panic_and_a_rescue_prompt_without_line_end() -> None:
    _, error = watch(b"[    1.012345] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n", RUNNING)
    assert isinstance(error, InstallError)
    assert "panic" in error.message
    _, error = watch(b"error: no such device: x.\r\nEntering rescue mode...\r\ngrub rescue> ", RUNNING)
    assert isinstance(error, InstallError)
