"""Provokes the failures a build can meet, for real, and measures how soon each is known.

`python -m tests.provoke NAME image ...` is the prebake command with one thing made wrong. What a class file can
make wrong is in one; what prebake itself would refuse or never do is patched here. `fail` runs one to its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pycdlib
import yaml

from builder import pipeline
from builder.autoinstall import render
from builder.cli import main
from builder.command import run
from builder.install import patience, watch
from builder.vm import disk
from tests.command_line import environment
from tests.journey import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Failure:
    """One way to fail.

    ``what`` is for people. ``sections`` go into the answers, ``patch`` makes prebake
    itself do what it never does, ``iso`` makes a bad copy of the medium, ``small`` is the size of the disk of this
    host in MiB. ``sign`` fits the first line of the record that shows the failure; without it the last line is it.
    ``code`` is the exit code, ``words`` what the error must say, ``slug`` the cause in the verdict.
    """

    what: str
    code: int
    words: tuple[str, ...]
    slug: str | None = None
    sign: str = ""
    sections: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    patch: Callable[[], None] | None = None
    iso: Callable[[Path, Path], None] | None = None
    small: int = 0


@dataclass(frozen=True)
class Seen:
    """How a provoked failure ended. ``sign``, ``verdict`` and ``exit`` are in seconds since the machine was started."""

    code: int
    out: str
    err: str
    folder: Path
    sign: float
    verdict: float
    exit: float

    @property
    def told(self) -> dict[str, Any]:
        """The verdict on the console."""
        found: dict[str, Any] = json.loads((self.folder / "verdict.json").read_text())
        return found


def _wrap(place: object, name: str, change: Callable[..., Any]) -> Callable[[], None]:
    """Return what replaces a function: ``change`` is called with the plain one and what that would be called with."""

    def patch() -> None:
        plain = getattr(place, name)
        setattr(place, name, lambda *given, **more: change(plain, *given, **more))

    return patch


def _unconfirmed() -> None:
    setattr(render, "KERNEL_ARGUMENTS", render.KERNEL_ARGUMENTS[1:])  # noqa: B010 - its type says that it has two


def _not_found(plain: Any, answers: render.Answers) -> dict[str, bytes]:
    found: dict[str, bytes] = plain(answers)
    return {path: data.replace(b"#cloud-config\n", b"# cloud config\n") for path, data in found.items()}


def _answers(change: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    def changed(plain: Any, *given: Any) -> Any:
        found, added = plain(*given)
        change(found)
        return found, added

    return _wrap(render, "watchable", changed)


def _unsaved(found: dict[str, Any]) -> None:
    found["shutdown"] = "halt"
    del found["error-commands"]


def _no_user(found: dict[str, Any]) -> None:
    found["identity"] = {"hostname": "vm"}


def _other_storage(found: dict[str, Any]) -> None:
    found["storage"] = {
        "config": [
            {"id": "d", "type": "disk", "path": "/dev/vda", "ptable": "gpt"},
            {"id": "p", "type": "partition", "device": "d", "size": -1},
            {"id": "f", "type": "format", "volume": "p", "fstype": "ext4"},
            {"id": "m", "type": "mount", "device": "f", "path": "/"},
        ]
    }


def _small_disk(plain: Any, path: Path, size: int | None, *given: Any, **more: Any) -> None:
    plain(path, 768 << 20 if path.name == "disk.qcow2" else size, *given, **more)


def _no_disk(plain: Any, *given: Any) -> Any:
    machine = plain(*given)
    return replace(machine, disks=machine.disks[:1])


def _little_memory(plain: Any, *given: Any) -> Any:
    return replace(plain(*given), memory_mib=96)


def _hasty(plain: Any, *given: Any, **more: Any) -> Any:
    """Give up a guest that does nothing after a minute."""
    return replace(plain(*given, **more), still=20.0)


@dataclass(frozen=True)
class Brief(patience.Patience):
    """Gives an early-command a short limit, as --stall-timeout does, and all before it the plain one."""

    def silence(self, phase: str | None) -> float:
        given = self if phase == "early-commands" else replace(self, silent=None)
        return patience.Patience.silence(given, phase)

    def idle(self, phase: str | None) -> float:
        return self.silence(phase)


def _brief(plain: Any, *given: Any, **more: Any) -> Any:
    return Brief(**vars(plain(*given, **more)))


def _killed_qemu(plain: Any, seen: watch.Watch) -> None:
    plain(seen)
    pid = seen._machine.pid
    if seen.state.phase is not None and seen.state.phase.name == "live-system" and pid:
        os.kill(pid, signal.SIGKILL)


def _empty_menu(plain: Any, medium: Any, *given: Any) -> Path:
    """Make the menu in the medium's overlay a row of line ends."""
    made: Path = plain(medium, *given)
    place, size = _extent(medium.path, "/boot/grub/grub.cfg")
    run(["qemu-io", "-f", "qcow2", "-c", f"write -P 10 {place} {-(-size // 512) * 512}", str(made)])
    return made


def _extent(iso: Path, path: str) -> tuple[int, int]:
    """Return where a file's data begins on a medium, and how long it is (bytes)."""
    image = pycdlib.PyCdlib()
    image.open(str(iso))
    try:
        record = image.get_record(rr_path=path)
        return record.extent_location() * 2048, record.get_data_length()
    finally:
        image.close()


def _spoiled(iso: Path, copy: Path) -> None:
    """Copy a medium, and spoil a part of the system on it that is not read before it is copied to the disk."""
    place, size = _extent(iso, "/casper/ubuntu-server-minimal.squashfs")
    run(["cp", "--reflink=auto", str(iso), str(copy)])
    with copy.open("r+b") as out:
        out.seek(place + int(size * 0.97))
        out.write(b"\xaa" * (2 << 20))


LATE = "echo to-the-log; exit 7"
HOG = (
    'python3 -c \'import pathlib, time; x = b"x" * (300 << 20); pathlib.Path("/run/hog").touch(); time.sleep(600)\' & '
    "until [ -e /run/hog ]; do sleep 1; done; echo f > /proc/sysrq-trigger; wait $!"
)
"""Has the kernel's own out-of-memory killer act, which a full memory alone may only do after minutes of thrashing.

systemd then ends the installer as a whole.
"""
FAILURES: dict[str, Failure] = {
    "no autoinstall": Failure(
        "the word `autoinstall` is missing on the kernel command line",
        9,
        ("waits for a person", "autoinstall"),
        "unconfirmed",
        "Continue with autoinstall",
        patch=_unconfirmed,
    ),
    "answers not found": Failure(
        "the answers are not found",
        9,
        ("waits for a person", "#cloud-config"),
        "interactive",
        "Continue in",
        patch=_wrap(render.Answers, "files", _not_found),
    ),
    "answers invalid": Failure(
        "the answers are invalid",
        8,
        ("'identity' section",),
        "malformed-answers",
        patch=_answers(_no_user),
        sign="Malformed",
    ),
    "answers invalid, no error-commands": Failure(
        "the answers are invalid, and no error-command can save the logs",
        8,
        ("'shutdown' section",),
        "malformed-answers",
        "Press enter",
        patch=_answers(_unsaved),
    ),
    "early-command": Failure(
        "an early-command fails",
        8,
        ("'early-commands'", "exit status 3", "echo looking; exit 3"),
        "early-command-failed",
        "exit status 3",
        sections={"early-commands": ["echo looking; exit 3"]},
    ),
    "late-command": Failure(
        "a late-command fails",
        8,
        ("'late-commands'", "exit status 7", LATE),
        "late-command-failed",
        "exit status 7",
        sections={"late-commands": [LATE]},
        arguments=("--keep",),
    ),
    "package missing": Failure(
        "a package does not exist",
        8,
        ("Unable to locate package no-such-package",),
        "no-such-package",
        "exit status 100",
        patch=_answers(lambda found: found.update(packages=["no-such-package"])),
    ),
    "disk too small": Failure(
        "the disk is too small (and prebake does not look first)",
        8,
        ("No space left on device",),
        "disk-full",
        "install_fail",
        patch=_wrap(disk, "create", _small_disk),
    ),
    "no disk": Failure(
        "the machine has no disk",
        8,
        ("Failed to find matching device",),
        "no-matching-disk",
        "Failed to find matching device",
        patch=_wrap(pipeline, "installer", _no_disk),
    ),
    "storage for the other firmware": Failure(
        "the disk's layout is for the other firmware",
        8,
        ("SELECT_BOOT_DISK",),
        "no-boot-disk",
        "SELECT_BOOT_DISK",
        patch=_answers(_other_storage),
    ),
    "medium damaged": Failure(
        "the medium is damaged", 8, ("medium could not be read",), "medium-damaged", "install_fail", iso=_spoiled
    ),
    "installer killed": Failure(
        "the installer's process is killed",
        8,
        ("The installer's own process was killed",),
        "installer-killed",
        sections={"early-commands": ["(sleep 12; kill -9 $PPID) > /dev/null 2>&1 &"]},
    ),
    "hung": Failure(
        "the guest hangs: its installer is stopped (given 1 minute here instead of 4)",
        9,
        ("said nothing and done nothing", "It hangs"),
        "hung",
        sections={"early-commands": ["(sleep 12; kill -STOP $PPID) > /dev/null 2>&1 &"]},
        patch=_wrap(pipeline, "patience", _hasty),
    ),
    "kernel panic": Failure(
        "the kernel panics",
        8,
        ("sysrq triggered crash",),
        "kernel-panic",
        "panic",
        sections={"early-commands": ["echo c > /proc/sysrq-trigger"]},
    ),
    "out of memory": Failure(
        "the guest runs out of memory",
        8,
        ("ran out of memory", "Out of memory: Killed process"),
        "out-of-memory",
        sections={"early-commands": [HOG]},
    ),
    "silent": Failure(
        "the guest says nothing more (--stall-timeout 20)",
        9,
        ("Nothing more came", "it rests", "--stall-timeout"),
        sections={"early-commands": ["sleep 100000"]},
        arguments=("--stall-timeout", "20"),
        patch=_wrap(pipeline, "patience", _brief),
    ),
    "reboot loop": Failure(
        "the guest reboots, again and again if it could",
        8,
        ("rebooted before the installer had said that it was done", "again and again"),
        sections={"early-commands": ["reboot -f"]},
    ),
    "qemu killed": Failure(
        "QEMU is killed", 7, ("QEMU died", "signal 9"), patch=_wrap(watch.Watch, "_show", _killed_qemu)
    ),
    "host disk full": Failure(
        "this host's disk is full",
        4,
        ("disk is full",),
        patch=_wrap(pipeline, "check_free", lambda *_: None),
        small=150,
    ),
    "little memory": Failure(
        "the machine has too little memory",
        8,
        ("memory",),
        "out-of-memory",
        patch=_wrap(pipeline, "plain_machine", _little_memory),
    ),
    "boot menu lost": Failure(
        "the boot loader finds no menu",
        8,
        ("grub>",),
        "boot-loader",
        "grub>",
        patch=_wrap(pipeline, "boot_medium", _empty_menu),
    ),
}


@contextlib.contextmanager
def _small(folder: Path, size: int) -> Iterator[None]:
    if not size:
        yield
        return
    run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)])
    try:
        yield
    finally:
        run(["umount", str(folder)])


def fail(name: str, iso: Path, folder: Path) -> Seen:
    """Provoke one failure in ``folder``, with the command a person types, and return how it ended."""
    failure = FAILURES[name]
    told: dict[str, Any] = {"extends": str(CLASSES / "plain.yaml"), "name": "x"}
    if failure.sections:
        told["autoinstall"] = failure.sections
    (folder / "class.yaml").write_text(yaml.safe_dump(told))
    if failure.iso is not None:
        copy = folder / "medium.iso"
        failure.iso(iso, copy)
        iso = copy
    output = folder / "output"
    output.mkdir()
    with _small(output, failure.small):
        argv = [sys.executable, "-m", "tests.provoke", name, "image", str(folder / "class.yaml"), "--offline"]
        argv += ["--iso", str(iso), "-o", str(output), "--cpus", "1", *failure.arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT, stdin=subprocess.DEVNULL
        )
        end = time.time()
        failed = output / "x.failed"
        times = _times(failed / "events.jsonl", failure.sign, end)
    if failure.iso is not None:
        iso.unlink()
    return Seen(done.returncode, done.stdout, done.stderr, failed, *times)


def _times(events: Path, sign: str, end: float) -> tuple[float, float, float]:
    if not events.exists():
        return 0.0, 0.0, 0.0
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    began = next(row["time"] for row in rows if row["event"] == "began")
    verdict = next(row["t"] for row in rows if row["event"] == "verdict")
    before = [row for row in rows if row["event"] not in {"began", "verdict", "qemu"}]
    seen = [row["t"] for row in before if re.search(sign, str(row.get("line", "")))] if sign else []
    return seen[0] if seen else before[-1]["t"] if before else 0.0, verdict, end - began


if __name__ == "__main__":
    chosen = FAILURES[sys.argv.pop(1)]
    if chosen.patch is not None:
        chosen.patch()
    main()
