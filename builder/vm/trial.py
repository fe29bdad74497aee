"""Running the probe firmware under one accelerator, and saying what came of it."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from builder import command
from builder.vm import probe, qemu
from builder.vm.kvm import BUSY, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

SILENCE: Mapping[str, float] = {"tcg": 60.0}
"""Seconds without a sign of life after which a test guest counts as hung; emulation only ever is slow."""

HARDWARE_SILENCE = 4.0
"""The same for hardware accelerators, where a whole test takes a tenth of a second."""

FATAL = re.compile(rb"KVM internal error|KVM: entry failed|kvm run failed|vcpu.*run failed", re.IGNORECASE)
"""What QEMU says when the guest is dead though QEMU lives on."""


@dataclass(frozen=True)
class Trial:
    """What came of running the probe: the letters, QEMU's exit code (None: had to be killed), its words.

    ``seconds`` is how long the timed loop took, if it came to its end.
    """

    letters: str
    code: int | None
    words: str
    seconds: float | None = None


def trial_argv(name: str, guest_arch: str, image: Path) -> tuple[str, ...]:
    """Return the command line that runs the probe ``image`` and writes the guest's letters to stdout."""
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
    )


def run_trial(name: str, guest_arch: str) -> Trial:
    """Run the probe under accelerator ``name``, to its end or until it counts as hung."""
    with tempfile.TemporaryDirectory(prefix="prebake-") as folder:
        image = Path(folder, "probe.bin")
        image.write_bytes(probe.image(guest_arch))
        process = command.spawn(trial_argv(name, guest_arch, image), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            return _watch(process, SILENCE.get(name, HARDWARE_SILENCE))
        finally:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a hung kernel may keep it for good
                process.wait(5)


def _watch(process: subprocess.Popen[bytes], silence: float) -> Trial:
    """Collect letters and words until both pipes end, QEMU's words say it is over, or nothing comes."""
    chunks: queue.SimpleQueue[tuple[str, float, bytes]] = queue.SimpleQueue()
    readers = [
        threading.Thread(target=_read, args=(pipe, tag, chunks), daemon=True)
        for tag, pipe in (("letters", process.stdout), ("words", process.stderr))
        if pipe is not None
    ]
    for reader in readers:
        reader.start()
    letters, words, ended = "", b"", 0
    times: dict[str, float] = {}
    while ended < len(readers):
        try:
            tag, when, data = chunks.get(timeout=silence)
        except queue.Empty:
            break
        ended += not data
        if tag == "words":
            words += data
        for letter in data.decode("ascii", "replace") if tag == "letters" else "":
            letters += letter
            times[letter] = when
        if FATAL.search(words):
            break
    code = None
    if ended == len(readers):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(silence)
    process.kill()
    for reader in readers:
        reader.join(silence)
    start, end = (times.get(letter) for letter in probe.TIMED)
    seconds = None if start is None or end is None else end - start
    return Trial(letters, code, words.decode("utf-8", "replace"), seconds)


def _read(pipe: IO[bytes], tag: str, chunks: queue.SimpleQueue[tuple[str, float, bytes]]) -> None:
    with pipe:
        while data := os.read(pipe.fileno(), 4096):
            chunks.put((tag, time.monotonic(), data))
        chunks.put((tag, time.monotonic(), b""))


def passed(guest_arch: str, trial: Trial) -> bool:
    """Tell whether the test guest ran to its end: every letter, in order, and the right exit code."""
    return trial.letters == "".join(probe.STEPS[guest_arch]) and trial.code == probe.EXIT_CODES[guest_arch]


def explain(name: str, guest_arch: str, trial: Trial) -> Trouble:
    """Say why accelerator ``name`` is not usable, from a trial that did not pass."""
    steps = probe.STEPS[guest_arch]
    known = _known_trouble(name, trial.words)
    if known is not None:
        return known
    reached = [steps[letter] for letter in trial.letters if letter in steps]
    missed = next((step for letter, step in steps.items() if letter not in trial.letters), "its end")
    if reached:
        how = f"the test guest reached {reached[-1]} and stopped before {missed}"
    elif trial.code is None:
        how = "the test guest never ran an instruction"
    else:
        how = f"QEMU ended with exit code {trial.code} before the test guest ran"
    said = _first_words(trial.words)
    reason = f"it starts, but no guest runs under it: {how}" if trial.code is None else how
    return Trouble(reason + (f" (QEMU says: {said})" if said else ""), _FIXES.get(name))


_FIXES: Mapping[str, str] = {
    "kvm": "if this is itself a virtual machine, its host's nested virtualisation is broken or switched off:"
    " mend it there, or build on another machine",
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
        ),
    ),
    ("kvm", r"resource busy", BUSY),
    (
        "hvf",
        r"HV_DENIED|0xfae94007",
        Trouble(
            "macOS denies QEMU the hypervisor: its signature lacks com.apple.security.hypervisor",
            "reinstall QEMU (`brew reinstall qemu`), which signs it",
        ),
    ),
    (
        "hvf",
        r"HV_UNSUPPORTED|0xfae9400f",
        Trouble(
            "this Mac has no hypervisor: its processor is too old, or it is itself a virtual machine",
            None,
        ),
    ),
    (
        "whpx",
        r"No accelerator found|hr=",
        Trouble(
            "the Windows Hypervisor Platform is not switched on",
            "as administrator: `Enable-WindowsOptionalFeature -Online -FeatureName HypervisorPlatform`, then restart",
        ),
    ),
)
"""Accelerator (or any), what QEMU says, what that means."""


def _known_trouble(name: str, words: str) -> Trouble | None:
    for owner, pattern, trouble in _TROUBLES:
        if owner in {"", name} and re.search(pattern, words, re.IGNORECASE):
            return trouble
    return None


def _first_words(words: str) -> str:
    first = next((line.strip() for line in words.splitlines() if line.strip()), "")
    return re.sub(r"^qemu-system-\w+: ", "", first).rstrip(".")
