"""A real QEMU and a guest of a few bytes: how machines start, end and fail."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import command
from builder.errors import HostError, MachineError
from builder.leftovers import scratch
from builder.vm import disk, machine
from builder.vm.machine import Machine
from builder.vm.qemu import Disk, MachineSpec, Nic, Port
from builder.vm.state import RUNNING, State, after

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")

TEXT = b"first byte to last: " + bytes(range(0x20, 0x7F)) + b"\r\n"

# 16-bit code that the BIOS loads at 0x7c00; the comments are its assembler source.
PRINT = bytes.fromhex(
    "31c0 8ed8 8ed0 bc007c be807c"  # ax, ds, ss = 0; sp = 0x7c00; si = 0x7c80, the text
    "ac 84c0 7411 88c3"  # next: lodsb; test al, al; jz done; bl = al
    "bafd03 ec a820 74fb"  # wait: in al, 0x3fd; until the transmitter is empty
    "88d8 b2f8 ee ebea"  # out 0x3f8, bl; jmp next; done:
)
RESET = bytes.fromhex("baf90c b006 ee")  # out 0xcf9, 6
POWER_OFF = bytes.fromhex("ba0406 b80020 ef")  # out 0x604, 0x2000: the ACPI control register, S5
PANIC = bytes.fromhex("ba0505 b001 ee")  # out 0x505, 1: pvpanic
FILL = bytes.fromhex(
    "be307d b80043 b281 cd13"  # again: int 0x13, extended write of the packet at 0x7d30 to the second disk
    "8306387d40 83163a7d00 ebea"  # its sector += 64; jmp again
)
SLEEP = bytes.fromhex("f4 ebfd")  # hlt, for ever
PACKET = bytes.fromhex("1000 4000 007c 0000 0000000000000000")  # 64 sectors from 0x7c00: never all zeros


def boot_sector(action: bytes) -> bytes:
    """A disk's first sector: write TEXT to the serial line, then do ``action``, then sleep."""
    program = PRINT + action + SLEEP
    sector = program.ljust(0x80, b"\0") + TEXT + b"\0"
    assert len(program) <= 0x80
    assert len(sector) <= 0x130
    return sector.ljust(0x130, b"\0") + PACKET.ljust(510 - 0x130, b"\0") + b"\x55\xaa"


def make_spec(folder: Path, action: bytes, *more: Disk) -> MachineSpec:
    path = folder / "boot, sector:1.raw"
    path.write_bytes(boot_sector(action).ljust(1 << 20, b"\0"))
    boot = Disk(path, format="raw", boot=0)
    return MachineSpec("tiny", "amd64", "tcg", cpus=1, memory_mib=32, disks=(boot, *more), display=False)


def read(serial: socket.socket, size: int) -> bytes:
    serial.settimeout(60)
    data = b""
    while len(data) < size and (chunk := serial.recv(4096)):
        data += chunk
    return data


def gone(pid: int | None) -> bool:
    """Whether the process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that runtime folders are made in, with a name full of traps; it must be empty afterwards."""
    with tempfile.TemporaryDirectory(prefix="a, b:%c=", dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


@pytest.mark.parametrize(
    ("action", "reason"),
    [(RESET, "guest-reset"), (POWER_OFF, "guest-shutdown"), (PANIC, "guest-panic")],
    ids=["reset", "power-off", "panic"],
)
def test_why_the_guest_ended_is_told_and_its_text_is_whole(
    tmp_path: Path, runtime: Path, action: bytes, reason: str
) -> None:
    with Machine(make_spec(tmp_path, action)) as guest:
        assert next(runtime.iterdir()).stat().st_mode & 0o777 == 0o700
        assert read(guest.serial, len(TEXT)) == TEXT
        assert guest.wait_shutdown(60) == State("shutdown", reason=reason)
        assert guest.poll().kind == "shutdown"
        assert guest.quit() == State("exited", reason="host-qmp-quit", code=0)
        assert gone(guest.pid)
    assert guest.poll().code == 0


def test_a_guest_that_goes_on_is_running(tmp_path: Path, runtime: Path) -> None:
    del runtime
    with Machine(make_spec(tmp_path, b"")) as guest:
        assert read(guest.serial, len(TEXT)) == TEXT
        assert guest.wait_shutdown(0) == RUNNING
        assert guest.execute("query-status") == {"running": True, "singlestep": False, "status": "running"} or (
            guest.execute("query-status") == {"running": True, "status": "running"}
        )
        with pytest.raises(MachineError, match="no-such-command"):
            guest.execute("no-such-command")


def test_a_killed_qemu_is_noticed(tmp_path: Path, runtime: Path) -> None:
    del runtime
    with Machine(make_spec(tmp_path, b"")) as guest:
        assert guest.pid is not None
        os.kill(guest.pid, signal.SIGKILL)
        assert guest.wait_shutdown(60) == State("exited", code=-signal.SIGKILL)
        assert read(guest.serial, 1 << 20).count(b"\n") <= 1
        with pytest.raises(MachineError, match="QEMU"):
            guest.execute("query-status")


def test_a_terminated_qemu_says_so(tmp_path: Path, runtime: Path) -> None:
    del runtime
    with Machine(make_spec(tmp_path, b"")) as guest:
        assert guest.pid is not None
        os.kill(guest.pid, signal.SIGTERM)
        assert guest.wait_shutdown(60).reason == "host-signal"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, runtime: Path, error: type[BaseException]) -> None:
    guest = Machine(make_spec(tmp_path, b""))
    with pytest.raises(error), guest:  # noqa: PT012 - leaving the block by an exception is the subject
        assert not gone(guest.pid)
        raise error
    assert gone(guest.pid)
    assert list(runtime.iterdir()) == []


def test_qemu_that_does_not_start_is_quoted(tmp_path: Path, runtime: Path) -> None:
    del runtime
    spec = MachineSpec("t", "amd64", "tcg", 1, 32, disks=(Disk(tmp_path / "missing.qcow2"),))
    with pytest.raises(MachineError, match=r"(?s)ended before.*exit code is 1.*No such file.*qemu-system") as caught:
        Machine(spec).__enter__()
    assert caught.value.exit_code == 7


def test_an_option_qemu_does_not_know_is_quoted(tmp_path: Path, runtime: Path) -> None:
    del runtime
    spec = MachineSpec("t", "amd64", "tcg", 1, 32, nic=Nic(model="no-such-card"))
    guest = Machine(spec)
    with pytest.raises(MachineError, match="no-such-card"):
        guest.__enter__()
    assert "no-such-card" in guest.stderr_text()
    assert tmp_path.exists()


def test_an_image_in_use_gets_a_hint(tmp_path: Path, runtime: Path) -> None:
    del runtime
    spec = make_spec(tmp_path, b"")
    with Machine(spec), pytest.raises(MachineError) as caught:
        Machine(spec).__enter__()
    assert caught.value.hint == "Another program uses this image: end it first."


def test_a_missing_qemu_is_the_hosts_fault(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del runtime
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="qemu-system-x86_64"):
        Machine(make_spec(tmp_path, b"")).__enter__()


def test_the_screen_and_the_keyboard(tmp_path: Path, runtime: Path) -> None:
    del runtime
    spec = make_spec(tmp_path, b"")
    spec = MachineSpec("tiny", "amd64", "tcg", 1, 32, disks=spec.disks)
    with Machine(spec) as guest:
        read(guest.serial, len(TEXT))
        guest.send_keys("ctrl-alt-f2", "ret")
        with pytest.raises(MachineError, match="no_such_key"):
            guest.send_keys("no_such_key")
        image = guest.screendump(tmp_path / "screen, 1.png")
    assert image.read_bytes()[:4] in {b"\x89PNG", b"P6\n7"}


@contextlib.contextmanager
def small_filesystem(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir()
    try:
        command.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "prebake-test", str(folder)])
    except (HostError, command.CommandError):
        pytest.skip("this user may not mount a small file system")
    try:
        yield folder
    finally:
        command.run(["umount", str(folder)])


def test_a_full_host_disk_pauses_the_guest_and_room_lets_it_go_on(tmp_path: Path, runtime: Path) -> None:
    del runtime
    with small_filesystem(tmp_path / "small", 4 << 20) as folder:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(2 << 20))
        full = folder / "full.qcow2"
        disk.create(full, 64 << 20)
        with Machine(make_spec(tmp_path, FILL, Disk(full, boot=1))) as guest:
            state = guest.wait_shutdown(60)
            assert (state.kind, state.nospace, state.device) == ("io-error", True, str(full))
            ballast.unlink()
            guest.resume()
            assert guest.wait_shutdown(60).nospace
            resumed = [event["event"] for event in guest.events]
            assert resumed.count("RESUME") == 2


def test_ports_write_files(tmp_path: Path, runtime: Path) -> None:
    del runtime
    spec = make_spec(tmp_path, RESET)
    port = Port("org.example.port", tmp_path / "port, 1")
    spec = MachineSpec("t", "amd64", "tcg", 1, 32, disks=spec.disks, ports=(port,), nic=Nic())
    with Machine(spec) as guest:
        guest.wait_shutdown(60)
    assert port.path.read_bytes() == b""


@pytest.mark.skipif(not command.dies_with_parent(), reason="this system cannot tie a process to its parent")
def test_qemu_dies_with_a_killed_prebake_but_not_with_a_thread(tmp_path: Path) -> None:
    make_spec(tmp_path, b"")
    script = textwrap.dedent(f"""
        import sys, threading, time
        from pathlib import Path
        from builder.vm.machine import Machine
        from builder.vm.qemu import Disk, MachineSpec
        boot = Disk(Path({str(tmp_path)!r}, "boot, sector:1.raw"), "raw")
        spec = MachineSpec("t", "amd64", "tcg", 1, 32, disks=(boot,))
        guest = Machine(spec)
        starter = threading.Thread(target=guest.__enter__)
        starter.start()
        starter.join()
        time.sleep(0.2)
        print(guest.pid, guest.poll().kind, flush=True)
        time.sleep(100)
    """)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid, kind = parent.stdout.readline().decode().split()
        parent.kill()
    assert kind == "running"
    deadline = time.monotonic() + 60
    while not gone(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(int(pid))


def test_events_make_states() -> None:
    stop = {"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "node-name": "disk1", "nospace": True, "reason": "x"}}
    ignored = {"event": "BLOCK_IO_ERROR", "data": {"action": "report", "node-name": "disk1"}}
    ended = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}
    assert after(RUNNING, stop) == State("io-error", reason="x", device="disk1", nospace=True)
    assert after(RUNNING, ignored) == RUNNING
    assert after(after(RUNNING, stop), {"event": "RESUME"}) == RUNNING
    assert after(RUNNING, ended) == State("shutdown", reason="guest-reset")
    assert after(State("shutdown", reason="guest-reset"), {"event": "STOP"}).reason == "guest-reset"
    assert after(RUNNING, {"event": "GUEST_PANICKED", "data": {}}).reason == "guest-panic"


def test_a_long_temporary_folder_is_not_used_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with scratch(machine._base(), "prebake-", "a test") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "serial"))
        assert select.select([], [listener], [], 0) is not None
