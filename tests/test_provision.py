"""A class's content as steps: their order, and that no name breaks out of its word in a real shell."""

from __future__ import annotations

import os
import shlex
import subprocess
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
        Step("Installing packages: git tree", ("sh", "/run/s/packages.sh", "git", "tree")),
        Step("Installing the snap lxd", ("sh", "/run/s/snap.sh", "lxd")),
        Step("Installing the snap code", ("sh", "/run/s/snap.sh", "code", "--channel=latest/edge", "--classic")),
        Step("Placing /a b", ("sh", "/run/s/place.sh", f"{PLACE}/class/file-0", "/a b", "root", "", "0644")),
        Step("Placing /c", ("sh", "/run/s/place.sh", f"{PLACE}/class/file-1", "/c", "ann", "www-data", "4755")),
        Step("Running echo one", ("sh", "/run/s/command.sh", f"{PLACE}/class/command-0")),
        Step("Running cd /srv…", ("sh", "/run/s/command.sh", f"{PLACE}/class/command-1")),
    ]
    assert list(members(content)) == [
        ("class/file-0", b"x"),
        ("class/file-1", b""),
        ("class/command-0", b"echo one\n"),
        ("class/command-1", b"cd /srv\nls\n"),
    ]
    assert not Content()
    assert content.fetches
    assert not Content(commands=("true",)).fetches


@given(path=NASTY, owner=NASTY, package=NASTY)
@settings(max_examples=60, deadline=None)
def test_no_value_breaks_out_of_its_word(path: str, owner: str, package: str) -> None:
    content = Content(packages=(package,), files=(File(path, content="x", owner=owner),))
    with tempfile.TemporaryDirectory() as name:
        for script in ("packages.sh", "place.sh"):
            Path(name, script).write_text("for word; do printf '%s\\0' \"$word\"; done\n")
        for step in steps(content, name):
            line = shlex.join(step.argv).encode("utf-8", "surrogateescape")
            argv = ["sh", "-c", line]
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


def test_a_system_without_snapd_is_told(tmp_path: Path) -> None:
    shell = "/bin/sh"
    done = subprocess.run(
        [shell, str(GUEST / "snap.sh"), "lxd"], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 127
    assert "has no snapd" in done.stdout
