"""A class's content on a running system: real packages from a real archive on loopback, files, commands, failures.

Under emulation about a minute, beside the image of the journey that it starts from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from builder import boot
from builder.bases import DISK
from builder.command import run
from builder.errors import InstallError
from builder.events import silent
from builder.image import provision
from builder.image.session import DEVICE, payload_disk, session
from builder.install.patience import patience
from builder.install.site import Site
from builder.spec import Content, File, Snap, Spec
from builder.vm import accel, disk
from builder.vm.qemu import Disk, Nic
from tests import mirror
from tests.command_line import environment
from tests.journey import CLASSES, MISSING, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]
SPEC = Spec(name="class", network="offline")
HELLO = "#!/bin/sh\necho hello from a package\n"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def archive(folder: Path) -> Iterator[str]:
    """Serve a Debian archive of one package on loopback; give the address the guest sees it at."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: prebake-hello\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A B <a@example.org>\nDescription: x\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/prebake-hello").write_text(HELLO)
    (tree / "usr/bin/prebake-hello").chmod(0o755)
    site = folder / "site"
    (site / "dists").mkdir(parents=True)
    package = site / "prebake-hello_1.0-1_all.deb"
    run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)])
    data = package.read_bytes()
    listed = f"{control}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (site / "Packages").write_text(listed)
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://10.0.2.2:{server.server_port}"
        server.shutdown()


def test_content_is_put_on_and_what_fails_is_named(built: tuple[Path, str, str], tmp_path: Path) -> None:
    source = tmp_path / "notes.bin"
    source.write_bytes(bytes(range(256)))
    files = (File("/srv/a b/notes.bin", source, owner="ubuntu", mode=0o640), File("/etc/motd", content="Hello\n"))
    content = Content(packages=("prebake-hello=1.0-1",), files=files, commands=("prebake-hello", "sha256sum /srv/a*/*"))
    probe = accel.choose("auto", "amd64")
    overlay = tmp_path / "overlay.qcow2"
    disk.create(overlay, None, backing=built[0], backing_format="qcow2")
    disks = (Disk(overlay, boot=1), payload_disk(tmp_path / "payload.tar", provision.members(content)))
    machine = replace(boot.plain_machine(SPEC, "amd64", probe.name, tmp_path), disks=disks, nic=Nic(restrict=False))
    said: list[str] = []
    with (
        archive(tmp_path) as address,
        session(machine, "class", SPEC.user, Site(tmp_path, tmp_path, patience(probe.speed), silent)) as system,
    ):
        sources = f"rm -f /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] {address} ./' > /etc/apt/sources.list"
        system.shell.must(["sh", "-c", sources], seconds=60)
        provision.provision(system, content, DEVICE, lambda event: said.append(str(event)))
        checks = {one.name: one.good for one in provision.proof(system, content)}
        assert checks == dict.fromkeys(["packages of the class", "file /srv/a b/notes.bin", "file /etc/motd"], True)
        listed = f"{system.scripts}/{provision.PACKAGES}"
        system.shell.must(["sh", "-c", f"cp {listed} /root/ && echo prebake-goodbye > {listed}"], seconds=60)
        gone = provision.proof(system, Content(packages=("prebake-goodbye",), files=(File("/none"),)))
        assert [one.good for one in gone] == [False, False]
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        console = (tmp_path / "class.log").read_bytes().decode()
        assert "hello from a package" in console
        assert f"{digest}  /srv/a b/notes.bin" in console
        assert len(said) == 5
        assert system.shell.run(f"ls {provision.PLACE}", seconds=60).code == 2

        system.shell.must(["sh", "-c", f"echo nosuch > {listed}"], seconds=60)
        with pytest.raises(
            InstallError, match=r"step 1 of 1 failed with exit code 100: Installing packages: nosuch"
        ) as caught:
            provision.provision(system, Content(packages=("nosuch",)), DEVICE, silent)
        assert any("Unable to locate package nosuch" in row for row in caught.value.console)
        with pytest.raises(
            InstallError, match=r"step 1 of 1 failed with exit code 127: Installing the snap lxd"
        ) as caught:
            provision.provision(system, Content(snaps=(Snap("lxd"),)), DEVICE, silent)
        assert any("has no snapd" in row for row in caught.value.console)
        with pytest.raises(InstallError, match=r"step 1 of 1 failed with exit code 1: Placing /x"):
            provision.provision(system, Content(files=(File("/x", source, owner="nobody-at-all"),)), DEVICE, silent)
        script = "printf 'echo to-be-seen\\nexit 42\\n' > /tmp/bad"
        system.shell.must(["sh", "-c", script], seconds=60)
        outcome = system.shell.run(f"sh {system.scripts}/command.sh /tmp/bad", seconds=60)
        assert (outcome.code, outcome.output.strip()) == (42, "to-be-seen")
        system.power_off()


def another(built: tuple[Path, str, str], iso: Path, folder: Path, run: str, *more: object) -> CompletedProcess[str]:
    """Build another class of the system that ``built`` has left in its cache, with the command a person types."""
    cache = built[0].parents[2] / "cache"
    told = {"extends": str(CLASSES / "offline.yaml"), "name": "another", "hostname": "ubuntu", "run": [run]}
    (folder / "another.yaml").write_text(yaml.safe_dump(told))
    with mirror.serving(published(iso)) as server:
        argv = mirror.pinned_command(
            server, cache, "image", folder / "another.yaml", "-o", folder / "output", "--cpus", "1", *more
        )
        env = environment({"XDG_CACHE_HOME": str(cache)})
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env=env, cwd=folder, stdin=subprocess.DEVNULL
        )


def test_another_class_installs_nothing(built: tuple[Path, str, str], iso: Path, tmp_path: Path) -> None:
    """One boot for the class, two for the proof: about three minutes."""
    done = another(built, iso, tmp_path, "echo here > /srv/class; cat /etc/machine-id > /srv/id")
    assert done.returncode == 0, done.stderr
    assert "Nothing is installed: the same system was" in " ".join(done.stderr.split())
    image = tmp_path / "output/another/another.qcow2"
    assert done.stdout.strip() == str(image)
    assert disk.info(image).backing is None
    told = json.loads((image.parent / "manifest.json").read_text())["prebake"]
    assert told["base"]["reused"] is True
    assert not {"remaster", "install", "settle"} & set(told["seconds"])
    before = json.loads((built[0].parent / "manifest.json").read_text())["prebake"]
    assert told["base"]["made"] == before["base"]["made"]
    assert told["image"]["compression"] == "zstd"
    logs = image.parent / "logs"
    assert b"prebake-sentinel:installed:" in (logs / "console.log").read_bytes(), "how its system was installed"
    assert b" login: " in (logs / "class.log").read_bytes()
    for path in image.parent.rglob("*"):
        if path.is_file() and path != image:
            assert not any(word in path.read_bytes() for word in (b"powercoders", b"$6$")), path


@pytest.mark.parametrize(
    ("run", "more", "code", "words"),
    [
        ("fallocate -l 100G /srv/much", (), 8, ("step 5 of 5", "disk is full", "--disk")),
        pytest.param(
            *("echo before; sleep 100000", ("--step-timeout", "20"), 9, ("step 5 of 5", "before", "--step-timeout")),
            marks=pytest.mark.rare,
        ),
    ],
)
def test_a_class_that_fails_leaves_the_system_as_it_was(  # noqa: PLR0917
    built: tuple[Path, str, str],
    iso: Path,
    tmp_path: Path,
    run: str,
    more: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    """A class that fills the disk, and one that hangs: a minute each."""
    place = built[0].parents[2] / "cache/prebake/bases"
    (base,) = place.glob(f"[!.]*/{DISK}")
    before = hashlib.sha256(base.read_bytes()).digest()
    done = another(built, iso, tmp_path, run, *more)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    said = " ".join(done.stderr.split())
    for each in words:
        assert each in said
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["another.failed"]
    kept = {path.name for path in (tmp_path / "output/another.failed").iterdir()}
    assert {"console.log", "console.cast", "class.log", "error.txt", "user-data", "host.json"} <= kept
    assert hashlib.sha256(base.read_bytes()).digest() == before
