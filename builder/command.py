"""The one place that starts programs: argument lists only, never a shell."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from builder.errors import HostError, PrebakeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATIENCE = 10.0
"""Seconds a program has to clean up when prebake is interrupted."""
FULL = "No space left on device"
TAIL_LINES = 15
"""How much of a failed program's words an error repeats."""

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "qemu-system-x86_64": {
        "apt": "qemu-system-x86",
        "dnf": "qemu-system-x86-core",
        "pacman": "qemu-system-x86",
        "zypper": "qemu-x86",
        "apk": "qemu-system-x86_64",
        "brew": "qemu",
    },
    "qemu-system-aarch64": {
        "apt": "qemu-system-arm",
        "dnf": "qemu-system-aarch64-core",
        "pacman": "qemu-system-aarch64",
        "zypper": "qemu-arm",
        "apk": "qemu-system-aarch64",
        "brew": "qemu",
    },
    "qemu-img": {
        "apt": "qemu-utils",
        "dnf": "qemu-img",
        "pacman": "qemu-img",
        "zypper": "qemu-tools",
        "apk": "qemu-img",
        "brew": "qemu",
    },
    "qemu-io": {
        "apt": "qemu-utils",
        "dnf": "qemu-img",
        "pacman": "qemu-img",
        "zypper": "qemu-tools",
        "apk": "qemu-img",
        "brew": "qemu",
    },
    "setpriv": {
        "apt": "util-linux",
        "dnf": "util-linux",
        "pacman": "util-linux",
        "zypper": "util-linux",
        "apk": "setpriv",
    },
    "xorriso": {
        "apt": "xorriso",
        "dnf": "xorriso",
        "pacman": "libisoburn",
        "zypper": "xorriso",
        "apk": "xorriso",
        "brew": "xorriso",
    },
    "mmdebstrap": {"apt": "mmdebstrap", "dnf": "mmdebstrap", "pacman": "mmdebstrap"},
    "tar2sqfs": {"apt": "squashfs-tools-ng", "dnf": "squashfs-tools-ng", "pacman": "squashfs-tools-ng"},
    "mkfs.vfat": dict.fromkeys(("apt", "dnf", "pacman", "zypper", "apk"), "dosfstools"),
    "mcopy": dict.fromkeys(("apt", "dnf", "pacman", "zypper", "apk"), "mtools"),
}
"""Which package holds a program, by package manager."""

INSTALL_COMMANDS: Mapping[str, str] = {
    "apt": "sudo apt-get install",
    "dnf": "sudo dnf install",
    "pacman": "sudo pacman -S",
    "zypper": "sudo zypper install",
    "apk": "sudo apk add",
    "brew": "brew install",
}


@dataclass(frozen=True)
class Finished:
    """How a program ended: its arguments, its exit code and what it wrote."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


class CommandError(PrebakeError):
    """A program ended with an exit code that says it failed."""

    def __init__(self, finished: Finished) -> None:
        tail = (finished.stderr or finished.stdout).decode("utf-8", "replace").strip().splitlines()
        words = "\n".join(f"    {line}" for line in tail[-TAIL_LINES:])
        super().__init__(
            f"`{shlex.join(finished.argv)}` failed with exit code {finished.returncode}"
            + (f":\n{words}" if words else ".")
        )
        self.finished = finished


def failure(finished: Finished) -> PrebakeError:
    """Return the error for a program that failed: HostError where the host's disk is full, else CommandError."""
    words = (finished.stderr + finished.stdout).decode("utf-8", "replace")
    if FULL in words:
        return HostError(
            f"This host's disk is full: `{finished.argv[0]}` could not write.\n    {words.strip().splitlines()[-1]}",
            hint="Make room, or work elsewhere: -o DIR.",
        )
    return CommandError(finished)


def install_hint(program: str) -> str | None:
    """How to get ``program`` with this host's package managers, or None if that is not known."""
    names = PACKAGES.get(program)
    return None if names is None else how_to_install(names)


def how_to_install(names: Mapping[str, str]) -> str:
    """Say how to install a package; ``names`` are its names by package manager, as `managers` takes them."""
    return "Install it: " + " · ".join(f"{INSTALL_COMMANDS[one]} {names[one]}" for one in managers(names))


def managers(names: Mapping[str, str], *, only_here: bool = False) -> list[str]:
    """Return the package managers of ``names`` (keys of INSTALL_COMMANDS) that this host has.

    All of them where it has none, unless ``only_here``.
    """
    here = [manager for manager in names if _has_manager(manager)]
    return here if here or only_here else list(names)


def _has_manager(manager: str) -> bool:
    return shutil.which({"apt": "apt-get"}.get(manager, manager)) is not None


def find(program: str) -> str:
    """Return the full path of ``program``, or raise HostError that says how to install it."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise HostError(f"The program `{program}` is not installed.", hint=install_hint(program))
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment programs get: this one, in the C locale so that their words can be read."""
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


@functools.cache
def dies_with_parent(number: str = "KILL") -> tuple[str, ...]:
    """Return the program and options to put before another's, so that the kernel ends that if prebake is killed.

    It is sent the signal ``number`` when the thread that started it ends, and with it prebake. Only Linux has that,
    through util-linux's setpriv; elsewhere it is empty.
    """
    program = shutil.which("setpriv")
    if sys.platform != "linux" or program is None:
        return ()
    prefix = (program, "--pdeathsig", number)
    tried = subprocess.run((*prefix, program, "--version"), capture_output=True, check=False)
    return () if tried.returncode else prefix


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    timeout: float | None = None,
    ok: tuple[int, ...] = (0,),
) -> Finished:
    """Run a program to its end.

    ``argv[0]`` is looked up on the PATH. ``stdin`` is bytes, an open file, or nothing at all; ``stdout`` is
    an open file that takes the output, which is captured otherwise. ``timeout`` is in seconds. Where the system has
    that, the program is asked to end if prebake is killed.

    Raises HostError if the program is not installed and CommandError if it ends with a code not in ``ok``
    or takes too long.
    """
    full = (find(argv[0]), *argv[1:])
    with subprocess.Popen(
        (*dies_with_parent("TERM"), *full),
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin or subprocess.DEVNULL,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, err = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            note = f"no answer within {timeout:g} s".encode()
            raise CommandError(Finished(full, -1, out or b"", (err or b"") + note)) from None
        except BaseException:
            _stop(process)
            raise
    finished = Finished(full, process.returncode, out or b"", err or b"")
    if finished.returncode not in ok:
        raise failure(finished)
    return finished


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a program that is no longer wanted; it may clean up (mmdebstrap unmounts) before it is killed."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def spawn(
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that lives on, in a session of its own so that Ctrl-C reaches only prebake.

    ``pass_fds`` are open files that it gets under the same numbers.

    Where `dies_with_parent` has a way it ends at the latest with the thread that calls this; where it has none,
    `builder.vm.bound` keeps it from outliving prebake. Raises HostError if it is not installed.
    """
    program = find(argv[0])
    return subprocess.Popen(
        (*dies_with_parent(), program, *argv[1:]),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment(env),
        start_new_session=True,
        pass_fds=pass_fds,
    )
