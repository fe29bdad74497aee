"""A class's content as steps: their order, and that no name breaks out of its word in a real shell."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.image.provision import PLACE, Step, members, steps
from builder.resources import templates
from builder.spec import Content, File, Snap

GUEST = templates() / "guest"
NASTY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def test_steps_come_in_order() -> None:
    content = Content(
        packages=("git", "tree"),
        snaps=(Snap("lxd"), Snap("code", "latest/edge", classic=True)),
        files=(File("/a b", content="x"), File("/c", owner="ann", group="www-data", mode=0o4755)),
        commands=("echo one", "cd /srv\nls\n"),
    )
    assert list(steps(content, "/run/s")) == [
        Step("Installing packages: git tree", ("sh", "/run/s/packages.sh", "/run/s/packages.txt")),
        Step("Installing the snap lxd", ("sh", "/run/s/snap.sh", "lxd")),
        Step("Installing the snap code", ("sh", "/run/s/snap.sh", "code", "--channel=latest/edge", "--classic")),
        Step("Placing /a b", ("sh", "/run/s/place.sh", f"{PLACE}/class/file-0", "/a b", "root", "", "0644")),
        Step("Placing /c", ("sh", "/run/s/place.sh", f"{PLACE}/class/file-1", "/c", "ann", "www-data", "4755")),
        Step("Running echo one", ("sh", "/run/s/command.sh", f"{PLACE}/class/command-0")),
        Step("Running cd /srv…", ("sh", "/run/s/command.sh", f"{PLACE}/class/command-1")),
    ]
    assert list(members(content)) == [
        ("packages.txt", b"git\ntree\n"),
        ("class/file-0", b"x"),
        ("class/file-1", b""),
        ("class/command-0", b"echo one\n"),
        ("class/command-1", b"cd /srv\nls\n"),
    ]
    assert not Content()
    assert content.fetches
    assert not Content(commands=("true",)).fetches


@given(path=NASTY, owner=NASTY)
@settings(max_examples=60, deadline=None)
def test_no_value_breaks_out_of_its_word(path: str, owner: str) -> None:
    content = Content(files=(File(path, content="x", owner=owner),))
    with tempfile.TemporaryDirectory() as name:
        for script in ("place.sh",):
            Path(name, script).write_text("for word; do printf '%s\\0' \"$word\"; done\n")
        for step in steps(content, name):
            line = shlex.join(step.argv).encode("utf-8", "surrogateescape")
            argv: list[str | bytes] = ["sh", "-c", line]
            done = subprocess.run(argv, capture_output=True, check=True)
            assert done.stdout.decode().split("\0")[:-1] == list(step.argv[2:])


def test_a_file_is_placed_with_its_owner_and_mode(tmp_path: Path) -> None:
    source, target = tmp_path / "it's a source", tmp_path / "new folder/-target"
    source.write_text("text")
    me, group = os.geteuid(), os.getegid()
    argv = ["sh", str(GUEST / "place.sh"), str(source), str(target), str(me), str(group), "0640"]
    subprocess.run(argv, check=True)
    assert target.read_text() == "text"
    assert (target.stat().st_mode & 0o7777, target.stat().st_uid, target.stat().st_gid) == (0o640, me, group)


@pytest.mark.skipif(os.geteuid() != 0, reason="goes into root's home")
def test_a_command_is_a_script_of_bash_that_ends_at_the_first_failure(tmp_path: Path) -> None:
    script = tmp_path / "command"
    script.write_text('echo "$PWD"\necho {a,b}\nfalse\necho never\n')
    argv = ["sh", str(GUEST / "command.sh"), str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "/root\na b\n")


ON_A_TERMINAL = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.skipif(os.geteuid() != 0, reason="goes into root's home")
def test_a_command_that_asks_on_the_terminal_does_not_wait(tmp_path: Path) -> None:
    script = tmp_path / "command"
    script.write_text("read -r password < /dev/tty || exit 7\n")
    line = f"sh {GUEST / 'command.sh'} {script} < /dev/null 2>&1"
    argv = [sys.executable, "-c", ON_A_TERMINAL, "sh", "-c", line]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 7
    assert "No such device or address" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_folders_in_a_home_belong_to_its_owner(tmp_path: Path) -> None:
    name = pwd.getpwuid(1).pw_name
    fake = tmp_path / "bin"
    fake.mkdir()
    home = tmp_path / "home of"
    home.mkdir()
    (fake / "getent").write_text(f"#!/bin/sh\necho '{name}:x:1:1::{home}:/bin/sh'\n")
    (fake / "getent").chmod(0o755)
    source = tmp_path / "source"
    source.write_text("x")
    target = home / ".config/my app/it"
    argv = ["sh", str(GUEST / "place.sh"), str(source), str(target), name, "", "0600"]
    subprocess.run(argv, check=True, env={"PATH": f"{fake}:{os.environ['PATH']}"})
    owners = [path.stat().st_uid for path in (target, target.parent, target.parent.parent, home)]
    assert owners == [1, 1, 1, 0]


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="needs dpkg")
def test_what_is_installed_or_provided_is_there(tmp_path: Path) -> None:
    asked = tmp_path / "packages.txt"
    argv = ["sh", str(GUEST / "installed.sh"), str(asked)]
    asked.write_text("dpkg\nbash=5.2\nawk\nlibc6:amd64\nsome-task^\n")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    asked.write_text("dpkg\nno-such-package\n")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "no-such-package is not installed\n")


def test_a_system_without_snapd_is_told(tmp_path: Path) -> None:
    shell = "/bin/sh"
    done = subprocess.run(
        [shell, str(GUEST / "snap.sh"), "lxd"], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 127
    assert "has no snapd" in done.stdout
