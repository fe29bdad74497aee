"""What `prebake doctor` finds: real programs, real servers on loopback, and stand-ins for what cannot be had."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from builder import boot, command, doctor, host, reach, servers
from builder.autoinstall.model import ClassFile
from builder.errors import HostError
from builder.media.source import catalogue
from builder.media.source.trust import Trust
from builder.spec import Spec
from builder.vm import features, firmware, qemu
from tests.command_line import inside, prebake
from tests.isofixture import VARIANTS, medium, missing_programs
from tests.mirror import Fault, release, serving, trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.mirror import Mirror

EMULATOR = "qemu-system-x86_64"
needs_qemu = pytest.mark.skipif(shutil.which(EMULATOR) is None or shutil.which("qemu-img") is None, reason="needs QEMU")
MIB = 1 << 20


# --- QEMU


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *cases: tuple[str, str]) -> None:
    """Put a program in the place of one of QEMU's: what ``cases`` name by a word of theirs, it does otherwise."""
    real = shutil.which(name)
    rows = "".join(f'  *"{word}"*) {act};;\n' for word, act in cases)
    tool = tmp_path / "bin" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\ncase "$*" in\n{rows}esac\nexec {real} "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    if real is not None and not (tmp_path / "share").exists():  # where a QEMU looks for its firmware
        (tmp_path / "share").symlink_to(Path(real).parents[1] / "share")


@needs_qemu
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_a_distribution_s_qemu_can_do_all(arch: str) -> None:
    if shutil.which(qemu.program(arch)) is None:
        pytest.skip("needs QEMU")
    found = features.troubles(arch)
    assert {name: trouble for name, trouble in found.items() if trouble and name not in features.OPTIONAL} == {}
    assert "virtio-serial-pci" in features.devices(arch)
    assert features.version(arch) or features.OLDEST <= (0, 0)


LACKING = [
    ("--version", "echo QEMU emulator version 5.2.0; exit", "version", "QEMU 5.2 is too old: 6.0 or newer is needed"),
    ("--version", "echo QEMU; exit", "version", "QEMU does not say which version it is"),
    ("--version", "echo QEMU emulator version 6.2.0; exit", "png", "QEMU 6.2 has none: 7.1 is the first with it"),
    ("-machine help", "echo 'microvm  microvm (i386)'; exit", "machine", "this build of QEMU has no machine `q35`"),
    ("-netdev help", "printf 'socket\\nhubport\\ntap\\n'; exit", "network", "has no user-mode network"),
    (
        "-device help",
        f"{shutil.which(EMULATOR)} -device help | grep -v virtio-serial-pci; exit",
        "devices",
        "this build of QEMU lacks `virtio-serial-pci`",
    ),
    ("-device help", "echo 'library missing' >&2; exit 127", "devices", "failed with exit code 127: library missing"),
]


@needs_qemu
@pytest.mark.parametrize(("word", "act", "feature", "reason"), LACKING)
def test_what_a_build_of_qemu_lacks(
    word: str, act: str, feature: str, reason: str, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, EMULATOR, (word, act))
    found = features.troubles("amd64")
    trouble = found[feature]
    assert trouble is not None
    assert reason in trouble.reason
    assert "qemu" in str(trouble.fix)
    report = doctor.examine("amd64", tmp_path, offline=True)
    row = report["qemu"][feature]
    assert (row["usable"], row["needed"]) == (False, feature != "png")
    assert report["able"] is (feature == "png")
    text = "\n".join(doctor.lines(report))
    assert (f"No image can be made here: QEMU, {doctor.NAMES[feature]}." in text) is (feature != "png")


@needs_qemu
def test_qemu_img_without_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "qemu-img: Invalid parameter 'zstd'"
    stand_in(tmp_path, monkeypatch, "qemu-img", ("compression_type=zstd", f'echo "{words}" >&2; exit 1'))
    trouble = features.troubles("amd64")["zstd"]
    assert trouble is not None
    assert trouble.reason == f"qemu-img makes no qcow2 with zstd compression (it says: {words})"
    assert "one built by yourself needs --enable-zstd" in str(trouble.fix)
    with pytest.raises(HostError, match=r"^This host's qemu-img makes no qcow2 with zstd compression \(") as caught:
        features.check_compression("zstd")
    assert "--compression zlib" in str(caught.value.hint)
    features.check_compression("zlib")
    refused = inside("image", "--medium", "rehearsal", "--accel", "tcg", "-o", tmp_path / "output")
    assert (refused.code, refused.out) == (4, "")
    assert "makes no qcow2 with zstd" in refused.err
    assert "--compression zlib" in refused.err
    assert not (tmp_path / "output").exists()


@needs_qemu
def test_without_qemu_img_the_program_is_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / EMULATOR).symlink_to(str(shutil.which(EMULATOR)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    trouble = features.troubles("amd64")["zstd"]
    assert trouble is not None
    assert trouble.reason == "The program `qemu-img` is not installed"
    assert "qemu-img" in str(trouble.fix)
    report = doctor.examine("amd64", tmp_path, offline=True)
    assert report["able"] is False
    assert "Programs, qemu-img; Programs, qemu-io" in "\n".join(doctor.lines(report)).replace("\n", " ")


def test_without_qemu_every_accelerator_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = doctor.examine("amd64", tmp_path, offline=True)
    assert (report["able"], report["accel"], report["qemu"]) == (False, None, {})
    for row in report["accelerators"].values():
        assert row["reason"] == f"The program `{EMULATOR}` is not installed."
        assert "sudo dnf install qemu-system-x86-core" in row["fix"]
    assert "no accelerator works" in "\n".join(doctor.lines(report)).replace("\n", " ")
    with pytest.raises(HostError, match="is not installed"):
        features.troubles("amd64")


@pytest.mark.parametrize(
    ("tool", "upgrade", "module", "uefi"),
    [
        ("apt-get", "sudo apt-get install --only-upgrade qemu-system-x86 (in Debian 12", None, "apt-get install ovmf"),
        ("dnf", "sudo dnf upgrade qemu-system-x86-core", "qemu-device-display-virtio-gpu-pci", "edk2-ovmf"),
        ("pacman", "sudo pacman -Syu", "qemu-hw-display-virtio-gpu-pci", "sudo pacman -S edk2-ovmf"),
        ("zypper", "sudo zypper update qemu-x86", "qemu-hw-display-virtio-gpu-pci", "qemu-ovmf-x86_64"),
        ("apk", "sudo apk add --upgrade qemu-system-x86_64", "qemu-hw-display-virtio-gpu-pci", "sudo apk add ovmf"),
        ("brew", "brew upgrade qemu", None, "brew install qemu"),
    ],
)
def test_the_fix_is_this_platform_s_own(
    tool: str, upgrade: str, module: str | None, uefi: str, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (tool, EMULATOR, "qemu-system-aarch64"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho QEMU emulator version 4.2.1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    old = features.troubles("amd64")["version"]
    assert old is not None
    assert str(old.fix).startswith(upgrade)
    assert " · " not in str(old.fix)
    lacking = features.troubles("arm64")["devices"]
    assert lacking is not None
    assert "`virtio-gpu-pci`" in lacking.reason
    if module:
        assert module in str(lacking.fix)
    hint = firmware.install_hint("amd64")
    assert uefi in hint
    assert " · " not in hint
    setpriv = command.install_hint("setpriv")
    assert setpriv is not None
    assert (" · " in setpriv) is (tool == "brew")  # which does not have it


# --- memory and disks


def proc(root: Path, available: int | None, groups: str = "", files: Mapping[str, object] | None = None) -> Path:
    """Make a /proc and a /sys; ``available`` in MiB."""
    text = "MemTotal: 9999999 kB\n" + ("" if available is None else f"MemAvailable:   {available * 1024} kB\n")
    contents = {"proc/meminfo": text, "proc/self/cgroup": groups, **(files or {})}
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("", {}, 8000),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/a/memory.current": 5}, 8000),
        (
            "0::/a/b\n",
            {
                "sys/fs/cgroup/a/b/memory.max": 6000 * MIB,
                "sys/fs/cgroup/a/b/memory.current": 3000 * MIB,
                "sys/fs/cgroup/a/b/memory.stat": f"file 9\ninactive_file {1000 * MIB}\n",
                "sys/fs/cgroup/a/memory.max": 9000 * MIB,
                "sys/fs/cgroup/a/memory.current": 3000 * MIB,
            },
            4000,
        ),
        (
            "0::/a/b\n",
            {"sys/fs/cgroup/memory.max": 2048 * MIB, "sys/fs/cgroup/memory.current": 4096 * MIB},
            0,
        ),
        (
            "12:memory:/docker/x\n4:cpu:/\n0::/\n",  # the path is the host's, and the folder the container's
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 2048 * MIB,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 48 * MIB,
            },
            2000,
        ),
        (
            "12:memory:/\n",
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 48 * MIB,
            },
            8000,
        ),
    ],
)
def test_available_memory_is_the_tightest_limit(
    groups: str, files: dict[str, object], left: int, tmp_path: Path
) -> None:
    assert host.available(proc(tmp_path, 8000, groups, files)) == left * MIB


def test_too_little_memory(tmp_path: Path) -> None:
    assert host.memory(proc(tmp_path, 8000)).trouble is None
    found = host.memory(proc(tmp_path, 3000))
    assert found.free == 3000 * MIB
    assert found.trouble is not None
    assert found.trouble.reason == (
        "3000 MiB are available, and the default machine takes 4096 MiB, QEMU about 512 MiB beside it"
    )
    assert "close other programs" in str(found.trouble.fix)
    assert "`--memory 2304`" in str(found.trouble.fix)
    assert "container" not in str(found.trouble.fix)


def test_too_little_memory_in_a_container(tmp_path: Path) -> None:
    limit = {"sys/fs/cgroup/memory.max": 1024 * MIB, "sys/fs/cgroup/memory.current": 24 * MIB}
    found = host.memory(proc(tmp_path, 8000, "0::/\n", limit))
    assert found.free == 1000 * MIB
    assert found.trouble is not None
    assert "raise the limit of the container" in str(found.trouble.fix)
    assert "build with a smaller machine" not in str(found.trouble.fix)  # none fits


@pytest.mark.parametrize(
    ("installed", "reason"), [(None, None), (16384, None), (2048, "2048 MiB are installed, and the default machine")]
)
def test_memory_that_is_not_known_is_not_too_little(
    installed: int | None, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_installed", lambda: None if installed is None else installed * MIB)
    found = host.memory(proc(tmp_path, None))
    assert found.free is None
    assert (found.trouble is None) is (reason is None)
    if found.trouble is not None:
        assert str(reason) in found.trouble.reason
    monkeypatch.setattr(host, "memory", lambda: found)
    report = doctor.examine("amd64", tmp_path, offline=True)
    if reason is None:
        assert "how much is available is not known here" in "\n".join(doctor.lines(report))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_the_memory_of_this_host() -> None:
    found = host.memory()
    assert found.free is not None
    assert 0 < found.free <= (host._installed() or 0)


def test_one_file_system_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not/yet"))
    assert list(host.rooms(tmp_path / "output")) == ["output"]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts small file systems")
def test_each_full_file_system_has_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: tmp_path / name for name in ("output", "temporary", "cache")}
    for where in folders.values():
        where.mkdir()
        command.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)])
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(folders["temporary"]))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folders["cache"]))
        result = inside("doctor", "--offline", "--json", "-o", folders["output"] / "not/yet")
        text = inside("doctor", "--offline", "-o", folders["output"]).out
    finally:
        for where in folders.values():
            command.run(["umount", str(where)])
    told = json.loads(result.out)
    rows = {"output": told["disk"], **told["other_disks"]}
    for name, wanted, fix in (
        ("output", "12 wanted", "build elsewhere: `-o DIR`"),
        ("temporary", "1 wanted", "`export TMPDIR=DIR`"),
        ("cache", "4 wanted", "`prebake cache prune` makes room"),
    ):
        row = rows[name]
        assert row["usable"] is False
        assert row["reason"].startswith(f"0.0 GiB free in {folders[name]}")
        assert row["reason"].endswith(wanted)
        assert fix in row["fix"]
        assert fix in text
        assert row["free"] == 8 * MIB


# --- servers


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server that is all of Ubuntu's at once, in an environment without proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving({**release("24.04.3"), "/ubuntu/dists/": b"lists"}) as server:
        monkeypatch.setattr(reach, "ARCHIVES", dict.fromkeys(("amd64", "arm64"), f"{server.url}/ubuntu"))
        monkeypatch.setattr(servers, "KEY_SERVERS", (f"{server.url}/key?{{fingerprint}}",))
        yield server


def asked(mirror: str, known: Trust) -> tuple[str, str]:
    """Return reason and fix of the one server of ISOs, empty where it answers."""
    found = servers.look("amd64", [mirror], known)[0]
    assert found.purpose == "the ISO"
    return ("", "") if found.trouble is None else (found.trouble.reason, str(found.trouble.fix))


def test_servers_that_answer(mirror: Mirror, tmp_path: Path) -> None:
    found = servers.look("amd64", [mirror.url], trust(tmp_path / "trust"))
    assert [(one.purpose, one.trouble) for one in found] == [
        ("the ISO", None),
        ("packages, asked for as the guest does", None),
    ]
    assert mirror.times("/24.04/SHA256SUMS") == 1  # the question of a build
    assert ClassFile.model_fields["release"].default == servers.RELEASE


def test_ubuntu_s_own_servers_are_asked_and_the_key_s_if_it_is_not_at_hand(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "OLD", f"{mirror.url}/old")
    monkeypatch.setattr(catalogue, "OLD", f"{mirror.url}/old")
    monkeypatch.setattr(catalogue, "RELEASES", {"amd64": mirror.url})
    mirror.files["/old/24.04/x"] = b""
    mirror.always["/key?ABC"] = Fault(status=503)
    nowhere = Trust(tmp_path, pin="ABC", keyrings=())
    found = {one.purpose: one for one in servers.look("amd64", (), nowhere)}
    assert [one.trouble for one in found.values()][:2] == [None, None]
    key = found["the key that proves the ISO"]
    assert key.server == mirror.url
    assert key.trouble is not None
    assert key.trouble.reason.startswith("it answers 503")
    assert "`--signing-key FILE`" in str(key.trouble.fix)
    assert "old point releases" in found


@pytest.mark.parametrize(
    ("status", "reason", "fix"),
    [
        (503, "it answers 503 Service Unavailable", "try again later"),
        (407, "it answers 407 Proxy Authentication Required", "HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"),
        (404, "it answers 404 Not Found", "Look at `--mirror`"),
    ],
)
def test_a_server_that_answers_with_an_error(
    status: int, reason: str, fix: str, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.files.clear()
    for path in ("/24.04/SHA256SUMS", "/"):
        mirror.always[path] = Fault(status=status)
    told, way = asked(mirror.url, trust(tmp_path))
    assert told == reason
    assert fix in way
    assert "`--iso FILE` takes an ISO you have" in way


def test_a_name_that_is_not_known(mirror: Mirror, tmp_path: Path) -> None:
    assert mirror.url
    told, way = asked("http://no-such-host.invalid", trust(tmp_path))
    assert told.startswith("the name no-such-host.invalid is not known here: ")
    assert "look at the DNS" in way
    assert "export HTTPS_PROXY=http://HOST:PORT" in way
    assert "`--iso FILE`" in way


@pytest.fixture
def closed() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_closed_door(mirror: Mirror, closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, way = asked(closed, trust(tmp_path))
    assert told.startswith("the connection is refused: ")
    assert "a firewall may be in the way" in way
    monkeypatch.setattr(reach, "ARCHIVES", {"amd64": closed})
    found = servers.look("amd64", [mirror.url], trust(tmp_path))
    assert found[1].trouble is not None
    assert "refused" in found[1].trouble.reason
    assert "`--offline`" in str(found[1].trouble.fix)


def test_a_proxy_that_does_not_let_through(
    mirror: Mirror, closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", mirror.url.replace("//", "//eve:secret@"))
    told, way = asked("https://releases.example", trust(tmp_path))
    assert told == f"the proxy {mirror.url} gives no way there: 403 Forbidden"
    assert "mend HTTPS_PROXY, HTTP_PROXY or ALL_PROXY" in way
    assert "NO_PROXY=releases.example" in way
    monkeypatch.setenv("HTTPS_PROXY", closed)
    told, _ = asked("https://releases.example", trust(tmp_path))
    assert told.startswith(f"the proxy {closed} gives no way there: ")
    monkeypatch.setenv("HTTPS_PROXY", "gopher://nowhere")
    told, way = asked("https://releases.example", trust(tmp_path))
    assert told.startswith("The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used: ")
    assert "http://HOST:PORT" in way


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_certificate_that_nobody_vouches_for(mirror: Mirror, tmp_path: Path) -> None:
    public, secret = tmp_path / "public.pem", tmp_path / "secret.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command.run([*argv, "-keyout", str(secret), "-out", str(public), "-days", "2", *names])
    assert mirror.url
    with serving({}, certificate=(public, secret)) as sealed:
        told, way = asked(sealed.url.replace("http:", "https:"), trust(tmp_path))
    assert told.startswith("TLS fails: ")
    assert "self-signed certificate" in told
    assert "is the clock right" in way
    assert "export SSL_CERT_FILE=FILE" in way


def test_a_server_that_says_nothing(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirror.url
    monkeypatch.setattr(servers, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        told, way = asked(f"http://127.0.0.1:{mute.getsockname()[1]}", trust(tmp_path))
    assert told == "no answer within 5 seconds"
    assert "`--iso FILE`" in way


def test_no_network_is_no_reason_to_be_unable(mirror: Mirror, closed: str, tmp_path: Path) -> None:
    assert mirror.url
    report = doctor.examine("amd64", tmp_path, mirrors=[closed])
    row = report["network"][closed]
    assert (row["usable"], row["needed"], row["purpose"]) == (False, False, "the ISO")
    assert report["able"] is doctor.examine("amd64", tmp_path, offline=True)["able"]


# --- the command


@needs_qemu
def test_the_report_as_json(mirror: Mirror) -> None:
    result = inside("doctor", "--json", "--mirror", mirror.url)
    told = json.loads(result.out)
    assert result.code == (0 if told["able"] else HostError.exit_code)
    assert {"able", "arch", "accel", "accelerators", "qemu", "programs", "firmware", "cpus", "memory", "disk"} <= set(
        told
    )
    rows: list[Any] = [told["memory"], told["disk"]]
    for name in ("accelerators", "qemu", "programs", "firmware", "other_disks", "network"):
        rows += told[name].values()
    for row in rows:
        assert {"usable", "reason", "fix", "needed"} <= set(row)
        assert row["usable"] is (row["reason"] is None)
    assert told["accelerators"]["tcg"]["usable"] is True
    assert set(told["network"]) >= {mirror.url, f"{mirror.url}/ubuntu"}
    assert json.loads(inside("doctor", "--json", "--offline").out)["network"] == {}


@needs_qemu
def test_the_report_for_a_person(mirror: Mirror, closed: str) -> None:
    text = inside("doctor", "--mirror", mirror.url, "--mirror", closed).out
    rows = text.splitlines()
    for title in ("Accelerators", "QEMU", "Programs", "Firmware", "Memory and disks", "Servers"):
        assert title in rows
    marked = [row for row in rows if row.startswith(("  ok ", "  warn ", "  NO "))]
    assert all(row[7] == " " != row[8] for row in marked)
    assert all(len(row) < 41 or row[40] == " " for row in marked if len(row.split()[1]) <= 32)
    assert any(row.startswith(f"  warn  {closed.partition('://')[2]}") for row in rows)
    told = " ".join(text.split())
    assert "about" in told
    assert "minutes" in rows[-1] + rows[-2]
    assert "Images can be made here" in told


def test_a_command_in_a_fix_stays_in_one_line() -> None:
    rule = "`" + "word " * 60 + "`"
    rows = doctor._wrapped("        -> ", f"do {'this and ' * 20}then {rule}, and be glad")
    assert any(rule in row for row in rows)
    assert all(len(row) <= doctor.WIDTH for row in rows if rule not in row)
    assert all(row.startswith(" " * 11) for row in rows[1:])


@needs_qemu
@pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())}")
def test_a_build_in_ci_that_falls_back_is_loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command to the log: KVM is busy, emulation works, and the machine itself then does not start."""
    stand_in(
        tmp_path,
        monkeypatch,
        EMULATOR,
        ("-accel kvm", 'echo "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy" >&2; exit 1'),
        ("-blockdev", 'echo "no machine today" >&2; exit 1'),
    )
    iso = medium(VARIANTS[0])
    words = ("image", "--iso", iso, "-o", tmp_path / "output", "--offline")
    result = prebake(*words, env={"CI": "true", "GITHUB_ACTIONS": "true", "PATH": os.environ["PATH"]})
    rows = result.err.splitlines()
    assert (result.code, result.out) == (7, ""), result.err
    assert "NO HARDWARE VIRTUALISATION: THE GUEST IS EMULATED" in rows
    assert any(row.startswith("::warning title=No hardware virtualisation%3A") for row in rows)
    assert rows[-1].startswith("warning: No hardware virtualisation")
    plain = prebake(*words, env={"PATH": os.environ["PATH"]}).err
    assert "NO HARDWARE VIRTUALISATION" not in plain
    assert "warning: " in plain
    assert "minutes" in plain


def test_a_host_without_uefi_firmware_is_told_what_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the doctor, and by a build before anything is fetched."""
    missing = HostError("There is no UEFI firmware.", hint="Install it.")
    monkeypatch.setattr(firmware, "find", MagicMock(side_effect=missing))
    row = doctor._firmware("amd64")
    assert (row["usable"], row["needed"]) == (False, True)
    assert "--firmware bios" in row["fix"]
    with pytest.raises(HostError) as caught:
        boot.suited(Spec(name="x"), "amd64")
    assert caught.value.hint == "Install it. Or, for an image that starts under BIOS alone: --firmware bios."
    assert boot.suited(Spec(name="x", both=False), "amd64") == Spec(name="x", both=False)
    assert not boot.suited(Spec(name="x"), "arm64").both
