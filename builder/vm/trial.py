"""Running the probe firmware under one accelerator, and saying what came of it."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from builder.leftovers import scratch
from builder.vm import probe, qemu
from builder.vm.bound import Bound
from builder.vm.kvm import BUSY, Trouble, explain_hanging, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.vm.kvm import Surroundings

SILENCE: Mapping[str, float] = {"tcg": 60.0}
"""Seconds without a sign of life after which a test guest counts as hung; emulation only ever is slow."""

HARDWARE_SILENCE = 1.0
"""The same for hardware accelerators, where a whole test takes a twentieth of a second.

The clock starts when QEMU says that it has started the guest, so this is the guest's time alone.
"""

START: Mapping[str, float] = {"tcg": 60.0}
"""Seconds that QEMU itself may take to come up, and to end after the guest's last word."""

HARDWARE_START = 10.0
"""The same for hardware accelerators. It takes a twentieth of a second on a quiet host, and much more on a busy one."""

SLICE = 0.1
"""Seconds of one look. Silence is counted in looks, so that a host that stood still itself is not held against it."""

GO = b'{"execute": "qmp_capabilities"} {"execute": "cont"}'
"""What QEMU's monitor is told as soon as it listens: start the guest."""

GONE = b'"RESUME"'
"""The event by which it says that the guest was started."""

FATAL = re.compile(rb"KVM internal error|KVM: entry failed|kvm run failed|vcpu.*run failed", re.IGNORECASE)
"""What QEMU says when the guest is dead though QEMU lives on."""


@dataclass(frozen=True)
class Trial:
    """What came of running the probe: the letters, QEMU's exit code (None: had to be killed), its words.

    ``seconds`` is how long the timed loop took, if it came to its end; ``up`` says whether QEMU came so far as to
    start the guest.
    """

    letters: str
    code: int | None
    words: str
    seconds: float | None = None
    up: bool = True


def trial_argv(name: str, guest_arch: str, image: Path, monitor: int | None = None) -> tuple[str, ...]:
    """Return the command line that runs the probe ``image`` and writes the guest's letters to stdout.

    With ``monitor``, the number of a connected socket, QEMU waits there to be told to start the guest.
    """
    channel = {
        "amd64": (
            *("-device", "isa-debugcon,chardev=letters,iobase=0xe9"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        ),
        "arm64": ("-serial", "chardev:letters"),
    }[guest_arch]
    return (
        qemu.program(guest_arch),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        *("-display", "none"),
        *("-machine", qemu.MACHINES[guest_arch]),
        *("-accel", qemu.ACCELERATORS[name]),
        *("-cpu", qemu.cpu(guest_arch, name)),
        *("-m", "64"),
        *("-bios", str(image)),
        *("-chardev", "stdio,id=letters,signal=off"),
        *channel,
        *_monitor_argv(monitor),
    )


def _monitor_argv(monitor: int | None) -> tuple[str, ...]:
    if monitor is None:
        return ()
    return ("-S", "-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control")


@contextlib.contextmanager
def _channel() -> Iterator[tuple[socket.socket | None, socket.socket | None]]:
    """Give the two ends of a socket for QEMU's monitor, ours and QEMU's; none where files cannot be handed on."""
    if sys.platform == "win32":
        yield None, None
    else:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(GO)
            yield ours, theirs


def run_trial(name: str, guest_arch: str) -> Trial:
    """Run the probe under accelerator ``name``, to its end or until it counts as hung.

    Raises HostError if the emulator is not installed.
    """
    with (
        scratch(Path(tempfile.gettempdir()), "prebake-", "the probe of an accelerator") as folder,
        _channel() as (ours, theirs),
    ):
        image = folder / "probe.bin"
        image.write_bytes(probe.image(guest_arch))
        number = None if theirs is None else theirs.fileno()
        bound = Bound(
            trial_argv(name, guest_arch, image, number),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=() if number is None else (number,),
        )
        if theirs is not None:
            theirs.close()
        try:
            return _watch(bound.process, ours, START.get(name, HARDWARE_START), SILENCE.get(name, HARDWARE_SILENCE))
        finally:
            bound.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a hung kernel may keep it for good
                bound.process.wait(5)
            bound.release()


def _watch(process: subprocess.Popen[bytes], monitor: socket.socket | None, start: float, silence: float) -> Trial:
    """Collect letters and words until all streams end, QEMU's words say it is over, or nothing comes.

    Until QEMU has started the guest, and once the guest has said its last word, ``start`` is how long nothing may
    come; between, ``silence`` is. Without a monitor the guest's first letter is what tells that it was started.
    """
    chunks: queue.SimpleQueue[tuple[str, float, bytes]] = queue.SimpleQueue()
    streams = (("letters", process.stdout), ("words", process.stderr), ("monitor", monitor))
    readers = [
        threading.Thread(target=_read, args=(stream, tag, chunks), daemon=True)
        for tag, stream in streams
        if stream is not None
    ]
    for reader in readers:
        reader.start()
    letters, words, told, ended, up = "", b"", b"", 0, False
    times: dict[str, float] = {}
    left = round(start / SLICE)
    while ended < len(readers) and left > 0:
        try:
            tag, when, data = chunks.get(timeout=SLICE)
        except queue.Empty:
            left -= 1
            continue
        ended += not data
        if tag == "words":
            words += data
        elif tag == "monitor":
            told += data
        for letter in data.decode("ascii", "replace") if tag == "letters" else "":
            letters += letter
            times[letter] = when
        up = up or bool(letters) or GONE in told
        left = round((silence if up and probe.TIMED[-1] not in times else start) / SLICE)
        if FATAL.search(words):
            break
    code = None
    if ended == len(readers):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(start)
    process.kill()
    for reader in readers:
        reader.join(1)  # the streams end with QEMU, unless a hung kernel keeps it
    begun, done = (times.get(letter) for letter in probe.TIMED)
    seconds = None if begun is None or done is None else done - begun
    return Trial(letters, code, words.decode("utf-8", "replace"), seconds, up)


def _read(stream: IO[bytes] | socket.socket, tag: str, chunks: queue.SimpleQueue[tuple[str, float, bytes]]) -> None:
    with stream, contextlib.suppress(ConnectionError):  # a monitor that ended before it had read all
        while data := os.read(stream.fileno(), 4096):
            chunks.put((tag, time.monotonic(), data))
    chunks.put((tag, time.monotonic(), b""))


def passed(guest_arch: str, trial: Trial) -> bool:
    """Tell whether the test guest ran to its end: every letter, in order, and the right exit code."""
    return trial.letters == "".join(probe.STEPS[guest_arch]) and trial.code == probe.EXIT_CODES[guest_arch]


def explain(name: str, guest_arch: str, trial: Trial, here: Surroundings | None = None) -> Trouble:
    """Say why accelerator ``name`` is not usable, from a trial that did not pass.

    ``here`` is what is known of this system; it is looked at if need be.
    """
    known = _known_trouble(name, trial.words)
    if known is not None:
        return known
    said = _first_words(trial.words)
    how = _how_far(name, guest_arch, trial) + (f" (QEMU says: {said})" if said else "")
    if name == "kvm":
        return explain_hanging(how, here or surroundings(guest_arch))
    hangs = trial.code is None
    return Trouble(
        f"it starts, but no guest runs under it: {how}" if hangs else how, _FIXES.get(name), "hangs" if hangs else ""
    )


def _how_far(name: str, guest_arch: str, trial: Trial) -> str:
    steps = probe.STEPS[guest_arch]
    reached = [steps[letter] for letter in trial.letters if letter in steps]
    if reached:
        missed = next((step for letter, step in steps.items() if letter not in trial.letters), "its end")
        return f"the test guest reached {reached[-1]} and stopped before {missed}"
    if trial.code is not None and trial.code < 0:
        return f"QEMU crashed ({_signal(-trial.code)}) before the test guest ran"
    if trial.code is not None:
        return f"QEMU ended with exit code {trial.code} before the test guest ran"
    if not trial.up:
        return f"QEMU did not come up within {START.get(name, HARDWARE_START):g} seconds"
    if FATAL.search(trial.words.encode()):
        return "the test guest never ran an instruction"
    return f"the test guest never ran an instruction, though it had {SILENCE.get(name, HARDWARE_SILENCE):g} s for it"


_FIXES: Mapping[str, str] = {
    "hvf": "update macOS and QEMU (`brew upgrade qemu`); inside a virtual machine hvf does not work",
    "whpx": "update Windows and QEMU",
    "tcg": "reinstall QEMU",
}

_TROUBLES: tuple[tuple[str, str, Trouble], ...] = (
    (
        "",
        r"invalid accelerator|not a valid accelerator|accelerator .* not (?:found|supported)",
        Trouble(
            "this build of QEMU does not have it",
            "install QEMU from your system's own packages",
            "missing",
        ),
    ),
    ("kvm", r"resource busy", BUSY),
    (
        "hvf",
        r"HV_DENIED|0xfae94007",
        Trouble(
            "macOS denies QEMU the hypervisor: its signature lacks com.apple.security.hypervisor",
            "reinstall QEMU (`brew reinstall qemu`), which signs it",
            "permission",
        ),
    ),
    (
        "hvf",
        r"HV_UNSUPPORTED|0xfae9400f",
        Trouble(
            "this Mac has no hypervisor: its processor is too old, or it is itself a virtual machine",
            None,
            "nested",
        ),
    ),
    (
        "whpx",
        r"No accelerator found|hr=",
        Trouble(
            "the Windows Hypervisor Platform is not switched on",
            "as administrator: `Enable-WindowsOptionalFeature -Online -FeatureName HypervisorPlatform`, then restart",
            "setup",
        ),
    ),
)
"""Accelerator (or any), what QEMU says, what that means."""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _known_trouble(name: str, words: str) -> Trouble | None:
    for owner, pattern, trouble in _TROUBLES:
        if owner in {"", name} and re.search(pattern, words, re.IGNORECASE):
            return trouble
    return None


def _first_words(words: str) -> str:
    first = next((line.strip() for line in words.splitlines() if line.strip()), "")
    return re.sub(r"^qemu-system-\w+: ", "", first).rstrip(".")
