"""The probe firmware, its assembler source, and what is made of its trials."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from builder import command
from builder.errors import HostError, UsageError
from builder.events import Event, Fallback, Note
from builder.vm import accel, kvm, probe, qemu, trial
from builder.vm.accel import Host, Probe
from builder.vm.kvm import Surroundings
from builder.vm.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

LINUX, MAC, WINDOWS = Host("Linux", "amd64"), Host("macOS", "arm64"), Host("Windows", "amd64")
SOURCES = command.__file__.replace("command.py", "vm/probe/")


def assemble(tmp_path: Path, *steps: tuple[str, ...]) -> bytes:
    for step in steps:
        if shutil.which(step[0]) is None:
            pytest.skip(f"{step[0]} is not installed")
        command.run(step, cwd=tmp_path)
    return (tmp_path / "bin").read_bytes()


def test_the_amd64_bytes_are_what_the_source_assembles_to(tmp_path: Path) -> None:
    prefix = "" if Host.here().arch == "amd64" else "x86_64-linux-gnu-"
    page = assemble(
        tmp_path,
        (f"{prefix}as", "--64", "-o", "o", f"{SOURCES}amd64.S"),
        (f"{prefix}ld", "-Ttext=0xfffff000", "-e", "reset", "--oformat=elf64-x86-64", "-o", "elf", "o"),
        (f"{prefix}objcopy", "-O", "binary", "-j", ".text", "elf", "bin"),
    )
    assert probe.image("amd64") == bytes(probe.SIZE - len(page)) + page


def test_the_arm64_bytes_are_what_the_source_assembles_to(tmp_path: Path) -> None:
    tools: tuple[tuple[str, ...], ...]
    if shutil.which("aarch64-linux-gnu-as"):
        tools = (
            ("aarch64-linux-gnu-as", "-o", "o", f"{SOURCES}arm64.S"),
            ("aarch64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", "o", "bin"),
        )
    else:
        tools = (
            ("llvm-mc", "-triple=aarch64", "-filetype=obj", "-o", "o", f"{SOURCES}arm64.S"),
            ("llvm-objcopy", "-O", "binary", "-j", ".text", "o", "bin"),
        )
    code = assemble(tmp_path, *tools)
    assert probe.image("arm64") == code + bytes(probe.SIZE - len(code))


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_a_guest_runs_under_emulation(arch: str) -> None:
    if shutil.which(qemu.program(arch)) is None:
        pytest.skip("needs QEMU")
    found = accel.probe_one("tcg", arch)
    assert found.usable
    assert found.letters == "".join(probe.STEPS[arch])
    assert found.seconds is not None
    assert found.seconds > 0
    assert found.speed == pytest.approx(accel.REFERENCE_SECONDS / found.seconds)


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_what_is_found_here_is_json_and_explained() -> None:
    found = accel.probe_all("amd64")
    assert list(found)[-1] == "tcg"
    for entry in json.loads(json.dumps({name: each.as_json() for name, each in found.items()})).values():
        assert entry["usable"] is (entry["reason"] is None)


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_firmware_that_stops_half_way_is_not_a_guest_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe, with its SSE instruction made to sleep instead: what a hanging accelerator looks like."""
    broken = probe.image("amd64").replace(bytes.fromhex("660ffec0"), bytes.fromhex("f4ebfd90"))
    assert broken != probe.image("amd64")
    monkeypatch.setattr(probe, "image", lambda _arch: broken)
    monkeypatch.setattr(trial, "SILENCE", {"tcg": 1.0})
    found = accel.probe_one("tcg", "amd64")
    assert not found.usable
    assert found.letters == "RPL"
    assert "reached long mode and stopped before SSE instructions" in str(found.reason)


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_a_wrong_result_is_not_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = probe.image("amd64").replace(bytes.fromhex("83fb2a"), bytes.fromhex("83fb2b"))
    monkeypatch.setattr(probe, "image", lambda _arch: broken)
    monkeypatch.setattr(trial, "SILENCE", {"tcg": 1.0})
    assert not accel.probe_one("tcg", "amd64").usable


@pytest.mark.parametrize(
    ("host", "guest", "names"),
    [
        (LINUX, "amd64", ("kvm", "tcg")),
        (LINUX, "arm64", ("tcg",)),
        (MAC, "arm64", ("hvf", "tcg")),
        (MAC, "amd64", ("tcg",)),
        (WINDOWS, "amd64", ("whpx", "tcg")),
        (Host("FreeBSD", "amd64"), "amd64", ("tcg",)),
    ],
)
def test_candidates(host: Host, guest: str, names: tuple[str, ...]) -> None:
    assert accel.candidates(host, guest) == names


def verdicts(monkeypatch: pytest.MonkeyPatch, *found: Probe) -> None:
    by_name = {each.name: each for each in found}
    monkeypatch.setattr(accel, "probe_one", lambda name, _arch, _host: by_name[name])


def test_auto_takes_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts(monkeypatch, Probe("kvm", usable=True))
    said: list[Event] = []
    assert accel.choose("auto", "amd64", said.append, LINUX).name == "kvm"
    (note,) = said
    assert note == Note("Guests run on kvm. An image of Ubuntu Server takes about 5 to 10 minutes (an estimate).")


def test_auto_falls_back_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts(monkeypatch, Probe("kvm", usable=False, reason="it sulks", fix="feed it"), Probe("tcg", usable=True))
    said: list[Event] = []
    assert accel.choose("auto", "amd64", said.append, LINUX).name == "tcg"
    (note,) = said
    assert isinstance(note, Fallback)
    assert note.level == "warning"
    assert (note.accelerator, note.why, note.fix) == ("tcg", "kvm is not usable: it sulks.", "feed it")
    assert "ten times slower" in note.cost
    for part in (note.why, note.cost, str(note.fix)):
        assert part in note.text


@pytest.mark.parametrize(
    ("seconds", "minutes", "ground"),
    [
        (0.15, (30, 50), "measured here, 1.00 of"),
        (0.20, (40, 65), "measured here, 0.75 of"),
        (0.01, (5, 10), "measured here, 15.00 of"),
        (99.0, (60, 100), "measured here, 0.00 of"),
        (None, (30, 50), "(an estimate; with"),
    ],
)
def test_what_emulation_means_for_time(seconds: float | None, minutes: tuple[int, int], ground: str) -> None:
    found = Probe("tcg", usable=True, seconds=seconds)
    assert found.minutes == minutes
    told = accel.takes(found)
    assert f"about {minutes[0]} to {minutes[1]} minutes (an estimate" in told
    assert ground in told
    assert "with hardware 5 to 10" in told


def test_a_foreign_guest_is_emulated_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts(monkeypatch, Probe("tcg", usable=True))
    said: list[Event] = []
    accel.choose("auto", "arm64", said.append, LINUX)
    assert "No hardware accelerator runs arm64 guests" in str(said)


def test_what_was_asked_for_and_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts(monkeypatch, Probe("kvm", usable=False, reason="it sulks", fix="feed it"))
    with pytest.raises(HostError, match="it sulks") as caught:
        accel.choose("kvm", "amd64", host=LINUX)
    assert caught.value.exit_code == 4
    assert caught.value.hint == "Feed it; or use `--accel tcg` (emulation, about ten times slower)."


def test_what_belongs_elsewhere_is_an_error() -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs QEMU")
    with pytest.raises(HostError, match="hvf belongs to macOS, and this is Linux"):
        accel.choose("hvf", "amd64", host=LINUX)


def test_nonsense_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        accel.choose("warp", "amd64")
    with pytest.raises(UsageError):
        accel.choose("auto", "pdp11")


def test_without_qemu_the_host_is_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="qemu-system-x86_64"):
        accel.probe_all("amd64")


@pytest.mark.parametrize(
    ("name", "came", "reason"),
    [
        ("kvm", Trial("", 1, "qemu: ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy"), "KVM is busy"),
        ("kvm", Trial("", None, ""), "never ran an instruction, though it had 1 s for it"),
        ("kvm", Trial("", None, "", up=False), "QEMU did not come up within 10 seconds"),
        ("kvm", Trial("", None, "KVM internal error. Suberror: 1"), r"never ran an instruction \(QEMU says: KVM int"),
        (
            "kvm",
            Trial("", -6, "error: failed to set MSR 0x10a to 0x69"),
            r"crashed \(SIGABRT\) before .*MSR 0x10a",
        ),
        ("kvm", Trial("", -200, ""), r"QEMU crashed \(signal 200\)"),
        ("tcg", Trial("", None, "", up=False), "QEMU did not come up within 60 seconds"),
        ("kvm", Trial("RP", None, "qemu-system-x86_64: error: oops"), "reached protected mode .*oops"),
        ("kvm", Trial("RPLST", None, ""), "stopped before its end"),
        ("kvm", Trial("RPLST", 0, ""), "stopped before its end"),
        ("kvm", Trial("", 134, "failed to set MSR 0x10a"), "exit code 134 before .*MSR 0x10a"),
        ("hvf", Trial("", 1, "qemu-system-x86_64: -accel hvf: invalid accelerator hvf"), "does not have it"),
        ("hvf", Trial("", 1, "Error: ret = HV_DENIED (0xfae94007)"), "macOS denies"),
        ("whpx", Trial("", 1, "whpx: No accelerator found, hr=00000000"), "not switched on"),
    ],
)
def test_failed_trials_are_explained(name: str, came: Trial, reason: str) -> None:
    assert not trial.passed("amd64", came)
    told = trial.explain(name, "amd64", came)
    assert re.search(reason, told.reason)


VMX, NESTED = frozenset({"vmx"}), frozenset({"hypervisor"})


@pytest.mark.parametrize(
    ("code", "here", "reason", "fix", "cause"),
    [
        (errno.ENOENT, Surroundings("amd64", VMX), "kvm_intel is not loaded", "modprobe kvm_intel", "module"),
        (errno.ENODEV, Surroundings("amd64", frozenset({"svm"})), "kvm_amd is not", "modprobe kvm_amd", "module"),
        (errno.ENOENT, Surroundings("amd64", NESTED), "virtual machine", "switch nested", "nested"),
        (errno.ENOENT, Surroundings("arm64"), "virtual machine", "switch nested", "nested"),
        (errno.ENOENT, Surroundings("amd64"), "firmware", "BIOS", "setup"),
        (errno.ENOENT, Surroundings("amd64", VMX, container=True), "container", "--device /dev/kvm", "container"),
        (errno.ENOENT, Surroundings("amd64", wsl=True), "WSL", "nestedVirtualization=true", "nested"),
        (errno.EACCES, Surroundings("amd64", user="eve"), "not be opened by eve", "usermod -aG kvm eve", "permission"),
        (errno.EACCES, Surroundings("amd64", user="eve"), "not be opened by eve", "udevadm trigger", "permission"),
        (errno.EACCES, Surroundings("amd64", member=True), "session is older", "log out", "permission"),
        (errno.EPERM, Surroundings("amd64", container=True), "container may not", "--device", "permission"),
        (errno.EPERM, Surroundings("amd64", user="root"), "container may not", "--device", "permission"),
        (errno.EBUSY, Surroundings("amd64"), "busy", "stop the virtual machines", "busy"),
        (errno.EIO, Surroundings("amd64"), os.strerror(errno.EIO), "None", ""),
    ],
)
def test_why_kvm_does_not_open(code: int, here: Surroundings, reason: str, fix: str, cause: str) -> None:
    told = kvm.explain(code, here)
    assert reason in told.reason
    assert fix in str(told.fix)
    assert told.cause == cause


@pytest.mark.parametrize(
    ("here", "fix"),
    [
        (Surroundings("amd64", NESTED), "have nested virtualisation mended in the hypervisor around this computer"),
        (Surroundings("amd64", VMX), "update the kernel and the computer's firmware"),
        (Surroundings("amd64", NESTED, wsl=True), "wsl --update"),
        (Surroundings("arm64"), "if this is itself a virtual machine, mend the hypervisor around it"),
    ],
)
def test_a_device_that_opens_under_which_guests_hang_has_a_fix_of_its_own(here: Surroundings, fix: str) -> None:
    told = trial.explain("kvm", here.arch, Trial("", None, ""), here)
    assert told.reason.startswith("/dev/kvm opens, but no guest runs under it: the test guest never ran")
    assert fix in str(told.fix)
    assert told.cause == "hangs"
    others = [kvm.explain(code, here) for code in (errno.ENOENT, errno.EACCES, errno.EBUSY)]
    assert not {told.fix, told.reason} & {part for other in others for part in (other.fix, other.reason)}


def stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str = "", *, instead_of_kvm: bool = False
) -> None:
    """Put a program in QEMU's place that does ``before``, then is QEMU; it may say kvm and mean emulation."""
    real = command.find("qemu-system-x86_64")
    swap = "s/^kvm$/tcg/;s/^host$/qemu64/" if instead_of_kvm else ""
    tool = tmp_path / "bin/qemu-system-x86_64"
    tool.parent.mkdir()
    tool.write_text(
        f"""#!/bin/sh
{before}
for word; do
    shift
    set -- "$@" "$(printf '%s\\n' "$word" | sed '{swap}')"
done
exec {real} "$@"
"""
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_a_device_that_opens_under_which_a_real_guest_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device opens, a machine can be made, the guest starts, and its first instruction is never followed."""
    stand_in(tmp_path, monkeypatch, instead_of_kvm=True)
    monkeypatch.setattr(kvm, "open_trouble", lambda _arch: None)
    monkeypatch.setattr(probe, "image", lambda _arch: b"\xf4\xeb\xfd\x90" * (probe.SIZE // 4))
    found = accel.probe_one("kvm", "amd64", LINUX)
    assert (found.usable, found.letters, found.cause) == (False, "", "hangs")
    assert "/dev/kvm opens, but no guest runs under it: the test guest never ran an inst" in str(found.reason)
    assert found.as_json()["cause"] == "hangs"


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_a_slow_start_of_qemu_is_not_held_against_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU comes up long after the guest's time is over, and only then does that begin."""
    stand_in(tmp_path, monkeypatch, "sleep 2")
    monkeypatch.setattr(trial, "SILENCE", {"tcg": 0.5})
    monkeypatch.setattr(probe, "image", lambda _arch: b"\xf4\xeb\xfd\x90" * (probe.SIZE // 4))
    came = trial.run_trial("tcg", "amd64")
    assert (came.up, came.letters, came.code) == (True, "", None)
    told = trial.explain("tcg", "amd64", came)
    assert told.reason.endswith("the test guest never ran an instruction, though it had 0.5 s for it")


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_qemu_that_does_not_come_up_is_told_from_a_guest_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "exec sleep 30")
    monkeypatch.setattr(trial, "START", {"tcg": 0.5})
    found = accel.probe_one("tcg", "amd64")
    assert "QEMU did not come up within 0.5 seconds" in str(found.reason)


def test_an_unknown_error_is_quoted() -> None:
    assert os.strerror(errno.EIO) in kvm.explain(errno.EIO, Surroundings("amd64")).reason


def test_opening_the_device(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert kvm.open_trouble("amd64", device) is not None
    device.touch()
    assert kvm.open_trouble("amd64", device) is None
    if os.geteuid():
        device.chmod(stat.S_IRUSR)
        assert kvm.open_trouble("amd64", device) is not None


def test_cpu_flags() -> None:
    assert kvm.cpu_flags("processor\t: 0\nflags\t\t: fpu vmx sse\n\nflags\t: svm\n") == {"fpu", "vmx", "sse"}
    assert kvm.cpu_flags("") == frozenset()
