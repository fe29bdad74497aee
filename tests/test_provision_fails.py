"""Steps of a class that hang, fail, or fill the disk, in a real shell at the other end of the line: a second each."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from builder.errors import InstallError, StalledError
from builder.events import silent
from builder.image import provision
from builder.image.session import payload
from builder.image.shell import RootShell
from builder.install.patience import patience
from builder.resources import templates
from builder.spec import Content, File
from builder.vm.serial import SerialLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="goes into root's home")
ROOMY = "/dev/vda2 10218772 3435000 6243248 36% /"
FULL = "/dev/vda2 10218772 10210580 8192 100% /"
HALF = "/dev/vda2 10218772 9900000 318772 97% /"


@contextmanager
def guest(folder: Path, df: str, step: float) -> Iterator[Any]:
    """Give a session whose shell is one of this host's; ``df`` is what df does there, ``step`` the limit of a step."""
    fake = folder / "bin"
    fake.mkdir()
    (fake / "df").write_text(f"#!/bin/sh\n{df}\n")
    (fake / "df").chmod(0o755)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            shell = subprocess.Popen(
                ["/bin/sh"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=theirs.fileno(),
                env={**os.environ, "PATH": f"{fake}:{os.environ['PATH']}"},
                start_new_session=True,
            )
        try:
            line = SerialLine(ours, io.BytesIO(), lambda _: None)
            limits = replace(patience(12.0), step=step, answer=2.0)
            root = RootShell(line, user="ann", password="x")
            yield SimpleNamespace(shell=root, limits=limits, scripts=str(templates() / "guest"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def put_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: Content, *, df: str = f"echo '{ROOMY}'", step: float = 20.0
) -> None:
    monkeypatch.setattr(provision, "PLACE", str(folder / "place"))
    payload(folder / "payload.tar", provision.members(content))
    with guest(folder, df, step) as system:
        provision.provision(system, content, str(folder / "payload.tar"), silent)


def failure(folder: Path, monkeypatch: pytest.MonkeyPatch, *commands: str, df: str = f"echo '{ROOMY}'") -> InstallError:
    with pytest.raises(InstallError) as caught:
        put_on(folder, monkeypatch, Content(commands=commands), df=df)
    return caught.value


def test_what_goes_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    content = Content(files=(File(str(target), content="x"),), commands=(f"echo more >> {target}", "true"))
    put_on(tmp_path, monkeypatch, content)
    assert target.read_text() == "xmore\n"
    assert not (tmp_path / "place").exists()


def test_a_step_that_hangs_is_named_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = ("true", "seq 40\nprintf 'Accept the licence? [y/N] '\nsleep 3")
    with pytest.raises(StalledError) as caught:
        put_on(tmp_path, monkeypatch, Content(commands=commands), step=1.0)
    error = caught.value
    assert error.message == "The class's step 2 of 2 has not ended after 1 s: Running seq 40…."
    assert error.console[-2:] == ("40", "Accept the licence? [y/N]")
    assert error.exit_code == 9
    assert "input" in str(error.hint)
    assert "network" in str(error.hint)
    assert "--step-timeout" in str(error.hint)


@pytest.mark.parametrize(("said", "told"), [("", ()), ("echo one", ("one",))])
def test_only_its_own_words_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: tuple[str, ...]
) -> None:
    with pytest.raises(StalledError) as caught:
        put_on(tmp_path, monkeypatch, Content(commands=("echo before", f"{said}\nsleep 3")), step=1.0)
    assert caught.value.console == told
    assert caught.value.message.endswith(" It has said nothing.") == (not told)


def test_a_step_that_asks_gets_nothing_and_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(tmp_path, monkeypatch, "read -r answer || { echo nobody answers; exit 3; }")
    assert error.message.startswith("The class's step 1 of 1 failed with exit code 3: Running read -r answer")
    assert error.console == ("nobody answers",)
    assert error.hint == provision.MEND


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(tmp_path, monkeypatch, "echo no luck; exit 2", df=f"echo Filesystem x; echo '{FULL}'")
    assert "failed with exit code 2: Running echo no luck; exit 2. The disk is full: 8 MiB of 9.7 GiB" in error.message
    assert error.hint == provision.LARGER
    assert error.console == ("no luck",)


def test_files_that_do_not_fit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provision, "PLACE", str(tmp_path / "place"))
    content = Content(files=(File("/x", content="x"),))
    with guest(tmp_path, f"echo '{FULL}'", 20.0) as system, pytest.raises(InstallError) as caught:
        provision.provision(system, content, str(tmp_path / "no.tar"), silent)
    assert "could not be unpacked. The disk is full" in caught.value.message
    assert "no.tar" in "".join(caught.value.console)


@pytest.mark.parametrize(
    "df",
    [
        "sleep 3",
        "kill -9 $PPID",
        "echo df: not found; exit 127",
        "echo '/dev/vda2 many few 0% /'",
        "echo '/dev/vda2 10218772 10210580 8192 100% /srv'",
        "echo 'Kernel panic - not syncing: x'",
    ],
)
def test_a_guest_that_does_not_answer_why_leaves_the_error_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, df: str
) -> None:
    error = failure(tmp_path, monkeypatch, "echo no luck; exit 2", df=df)
    assert error.message == "The class's step 1 of 1 failed with exit code 2: Running echo no luck; exit 2."
    assert error.hint == provision.MEND
    assert error.console == ("no luck",)


@pytest.mark.parametrize(
    ("told", "words", "full"),
    [
        (ROOMY, "", False),
        (FULL, "", True),
        (HALF, "", False),
        (HALF, "cannot write: No space left on device", True),
        (HALF, "E: You don't have enough free space in /var/cache/apt/archives/.", True),
        (ROOMY, "write /boot/x: No space left on device", False),
        ("/dev/mapper/a--b-root 10218772 10218772 0 100% /", "", True),
        ("", "No space left on device", False),
        (f"[   1.0] late words\n{FULL}\n", "", True),
    ],
)
def test_when_a_disk_is_full(told: str, words: str, *, full: bool) -> None:
    """dpkg gives back what it could not unpack as a whole, so that a disk it filled has room again."""
    assert bool(provision.full_disk(told, words)) == full


def test_a_step_gets_a_third_of_an_install_or_what_is_asked_for() -> None:
    assert patience(1.0).step == patience(1.0).install / 3
    assert patience(1.0, install=30).step == 10
    assert patience(1.0, install=30, step=7).step == 7
