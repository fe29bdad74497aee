"""The doors for people: what make runs on a machine that lacks things."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from builder.command import INSTALL_COMMANDS, PACKAGES, install_hint, run

ROOT = Path(__file__).parent.parent
SETUP = ROOT / "scripts/host-setup"


def bare(tmp_path: Path, *more: str) -> dict[str, str]:
    """An environment with next to no programs, and no package manager."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("id", "ls", "grep", "env", *more):
        path = shutil.which(name)
        assert path
        (tools / name).symlink_to(path)
    return {"PATH": str(tools), "PYTHON": sys.executable}


def test_without_apt_it_prints_the_line_for_each_system(tmp_path: Path) -> None:
    done = run([str(SETUP), "image"], env=bare(tmp_path), ok=(0, 4))
    said = done.stderr.decode()
    if Path("/usr/sbin/qemu-img").exists():
        return
    assert done.returncode == 4
    assert "qemu-system-x86_64" in said.splitlines()[0]
    for line in (
        "apt:    sudo apt-get install",
        "dnf:    sudo dnf install",
        "pacman: sudo pacman -S",
        "brew:   brew in",
    ):
        assert line in said
    assert not done.stdout


def test_as_an_ordinary_user_without_sudo_it_installs_nothing(tmp_path: Path) -> None:
    env = bare(tmp_path)
    for name, body in (("id", "echo 1000"), ("apt-get", "echo installed >> $0.log"), ("sudo", "exit 1")):
        tool = tmp_path / "bin" / name
        tool.unlink(missing_ok=True)
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    done = run([str(SETUP), "rehearsal"], env=env, ok=(4,))
    said = done.stderr.decode()
    assert "newuidmap" in said
    assert "mmdebstrap" in said
    assert "needs Linux" in said
    assert not (tmp_path / "bin/apt-get.log").exists()


def test_where_it_may_it_installs_what_is_missing(tmp_path: Path) -> None:
    env = bare(tmp_path)
    log = tmp_path / "apt.log"
    for name, body in (("id", "echo 0"), ("apt-get", f"echo \"$@\" >> '{log}'")):
        tool = tmp_path / "bin" / name
        tool.unlink(missing_ok=True)
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    run([str(SETUP), "rehearsal"], env=env)
    update, install = log.read_text().splitlines()
    assert update.startswith("update")
    for package in ("qemu-system-x86", "qemu-utils", "ovmf", "mmdebstrap", "squashfs-tools-ng", "xorriso", "mtools"):
        assert f" {package}" in install


def test_every_program_a_room_starts_has_a_package() -> None:
    for program, names in PACKAGES.items():
        assert set(names) <= set(INSTALL_COMMANDS)
        assert program
        assert "Install it:" in (install_hint(program) or "")
    assert install_hint("no-such-program") is None
    assert os.access(SETUP, os.X_OK)
