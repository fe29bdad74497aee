"""A class's content on a running system: real packages from a real archive on loopback, files, commands, failures.

Under emulation about a minute, beside the image of the journey that it starts from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builder import boot
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
from tests.journey import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
