from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.install.causes import arguments, command_of, readable
from builder.install.explain import explain
from builder.install.phases import PHASES
from builder.install.signals import PhaseStarted, StepFailed
from builder.install.state import InstallState

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
PROMPT = "An error occurred. Press enter to start a shell"
CURTIN = "subiquity/Install/install/curtin_install/run_curtin_step"
BOOT = """\
error: can't find command `grub_platform'.
[    0.000000] Linux version 6.8.0-31-generic
Loading, please wait...
[   66.648329] systemd[1]: systemd 255 running in system mode
         Starting cloud-init-local.service - Cloud-init: Local Stage (pre-network)...
connecting...
waiting for cloud-init...
"""


def wrapped(command: str, log: str = "subiquity_log.88") -> str:
    return repr(["systemd-cat", "--level-prefix=false", f"--identifier={log}", "sh", "-c", command])


def step(path: str, text: str = "", end: str | None = None) -> str:
    """A step's two lines; ``end`` is the text at its end if that is another."""
    indent = " " * max(0, path.count("/") - 2)
    last = text if end is None else end
    return f"start: {indent}{path}: {text}\nfinish: {indent}{path}: {last}\n"


def failing(path: str, words: str, text: str = "") -> str:
    return step(path, text, words)


ANSWERS = step("subiquity/core_validation") + step("subiquity/Identity/load_autoinstall_data")
MIRROR = step("subiquity/Mirror/apply_autoinstall_config") + step(
    "subiquity/Install/install/configure_apt", "configuring apt"
)
STAGES = "".join(
    f"start:   {CURTIN}: executing curtin install {name} step\n"
    + step(f"{CURTIN}/cmd-install/stage-{name}", doing)
    + f"finish:   {CURTIN}: executing curtin install {name} step\n"
    for name, doing in (
        ("partitioning", "configuring storage"),
        ("extract", "writing install sources to disk"),
        ("curthooks", "configuring installed system"),
    )
)
POST = step("subiquity/Install/install/postinstall", "final system configuration")
INSTALLED = BOOT + ANSWERS + MIRROR + STAGES + POST
LATE = (
    step("subiquity/Late/run_builtin")
    + "start: subiquity/Late/run_user_supplied: \n"
    + step("subiquity/Late/run_user_supplied/command_0", "echo hello")
)
LATE_DONE = "finish: subiquity/Late/run_user_supplied: \nfinish: subiquity/Install/install: \n"
COPIED = step("subiquity/Shutdown/copy_logs_to_target")
SHUTDOWN = "start: subiquity/Shutdown/shutdown: mode=REBOOT\n"
DOWN = "[  860.406973] reboot: Power down\n"
REBOOT = "[  860.406973] reboot: Restarting system\n"
FAILED_LATE = (
    failing(
        "subiquity/Late/run_user_supplied/command_1",
        f"Command '{wrapped('false')}' returned non-zero exit status 1.",
        "false",
    )
    + f"finish: subiquity/Late/run_user_supplied: Command '{wrapped('false')}' returned non-zero exit status 1.\n"
)
ERROR_COMMANDS = step("subiquity/Error/run") + "  running tar cz /var/log\n"
CONFIRM = "Confirmation is required to continue.\n\n\n\nContinue with autoinstall? (yes|no)\n"
PANIC = """\
[    1.100000] Initramfs unpacking failed: write error
[    2.100000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
[    2.200000] ---[ end Kernel panic ]---
"""
NO_MEDIUM = """\
[    1.000000] x
Begin: Mounting root file system ...
(initramfs) Unable to find a medium containing a live file system
"""


def console(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def verdict(text: str, token: str | None = None) -> dict[str, Any]:
    return explain(console(text), token).to_json()


# Success


@pytest.mark.parametrize(
    "text",
    [
        INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN,
        SHUTDOWN,
        SHUTDOWN.rstrip(),
        SHUTDOWN.replace("REBOOT", "POWEROFF"),
        INSTALLED + LATE + LATE_DONE + REBOOT,
        INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN + "[FAILED] Failed unmounting cdrom.mount.\n" + DOWN,
        # 22.04: late-commands after the install, no trailing blank, two blanks a level
        INSTALLED + "finish: subiquity/Install/install\nstart: subiquity/Late/run\nfinish: subiquity/Late/run\n" + DOWN,
        INSTALLED + f"start: subiquity/Late/run: \nprebake-sentinel:installed:{TOKEN}\n",
        # An answered question does not matter later
        BOOT + CONFIRM + "yes\n" + MIRROR + STAGES + LATE + LATE_DONE + SHUTDOWN,
        # Security updates may fail
        INSTALLED
        + failing(
            "subiquity/Install/install/postinstall/run_unattended_upgrades",
            "FAILED to apply security updates",
            "downloading and installing security updates",
        )
        + LATE
        + LATE_DONE
        + DOWN,
        # Serial lines lose characters
        INSTALLED.replace(
            "finish:  subiquity/Install/install/configure_apt: configuring apt", "finish:  subiquity/Insta"
        )
        + step("subiquity/Install/install/x", "writing etc/fstab", "writig etc/fsab")
        + LATE
        + LATE_DONE
        + DOWN,
    ],
)
def test_success(text: str) -> None:
    found = verdict(text)
    assert found["verdict"] == "success"
    assert (found["cause"], found["reason"], found["hint"]) == (None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        INSTALLED + LATE,
        INSTALLED + LATE + LATE_DONE,
        INSTALLED + LATE + LATE_DONE + COPIED,
        INSTALLED + LATE + LATE_DONE + COPIED + "start: subiquity/Shutdown/shutdown: mode=REB",
        # Down in the middle of the late-commands: no proof
        INSTALLED + LATE + DOWN,
        INSTALLED + DOWN,
        BOOT + REBOOT,
        "finish: subiquity/Install/install: \n",
        "finish: subiquity/Shutdown/shutdown: mode=REBOOT\n",
        "  running echo start: subiquity/Shutdown/shutdown: mode=REBOOT\n",
    ],
)
def test_no_proof_no_success(text: str) -> None:
    found = verdict(text)
    assert found["verdict"] == "incomplete"
    assert found["cause"].startswith("ended-early: ")


def test_sentinel_with_another_token_is_ignored() -> None:
    text = INSTALLED + f"prebake-sentinel:installed:{OTHER}\nprebake-sentinel:failed:{OTHER}\n"
    assert verdict(text, TOKEN)["verdict"] == "incomplete"
    assert verdict(text + f"prebake-sentinel:installed:{TOKEN}\n", TOKEN)["verdict"] == "success"
    assert verdict(text + f"prebake-sentinel:failed:{TOKEN}\n", TOKEN)["verdict"] == "failure"


def test_sentinel_cut_off() -> None:
    text = INSTALLED + f"prebake-sentinel:installed:{TOKEN}"
    assert verdict(text)["verdict"] == "incomplete"
    assert verdict(text, TOKEN)["verdict"] == "success"
    assert verdict(text[:-1], TOKEN)["verdict"] == "incomplete"


def test_failure_after_the_sentinel_counts() -> None:
    text = INSTALLED + f"prebake-sentinel:installed:{TOKEN}\n"
    assert not explain(console(text)).final
    assert verdict(text + ERROR_COMMANDS)["verdict"] == "failure"
    assert verdict(text + PROMPT + "\n")["verdict"] == "failure"
    ended = explain(console(text + DOWN))
    assert (ended.verdict, ended.final) == ("success", True)


# Failure: (console, phase, slug, part of the reason, part of the hint)

FAILURES: dict[str, tuple[str, str, str, str | None, str]] = {
    "version": (
        BOOT
        + failing("subiquity/core_validation", "Malformed autoinstall in 'version or interactive-sections' section")
        + PROMPT,
        "answers",
        "malformed-answers",
        "version",
        "version: 1",
    ),
    "identity": (
        BOOT
        + failing("subiquity/Identity/load_autoinstall_data", "Malformed autoinstall in 'identity' section")
        + PROMPT,
        "answers",
        "malformed-answers",
        "Malformed autoinstall in 'identity' section",
        "password",
    ),
    "section": (
        BOOT
        + failing("subiquity/Late/load_autoinstall_data", "Malformed autoinstall in 'late-commands' section")
        + PROMPT,
        "answers",
        "malformed-answers",
        "late-commands",
        "`late-commands`",
    ),
    "schema words of 22.04": (
        BOOT
        + "finish:   subiquity/Updates/load_autoinstall_data: 'justno' is not one of ['security', 'all']\n"
        + PROMPT,
        "answers",
        "malformed-answers",
        "'justno' is not one of ['security', 'all']",
        "prebake validate",
    ),
    "misplaced keys": (
        BOOT
        + "error: subiquity/load_autoinstall_config/read_config: 'identity' is valid autoinstall but not found under "
        "'autoinstall'.\n"
        + failing(
            "subiquity/load_autoinstall_config",
            "Misplaced autoinstall directives resulted in a cloud-init schema validation failure.",
        )
        + PROMPT,
        "answers",
        "misplaced-keys",
        "'identity' is valid autoinstall",
        "under `autoinstall:`",
    ),
    "unknown source": (
        BOOT
        + ANSWERS
        + step("subiquity/Source/load_autoinstall_data")
        + step("subiquity/load_autoinstall_config")
        + "finish:  subiquity/ErrorReporter/1.2.unknown/add_info: written to /var/crash/1.2.unknown.crash\n"
        + PROMPT,
        "answers",
        "unknown-source",
        None,
        "install-sources.yaml",
    ),
    "nothing said": (BOOT + PROMPT, "answers", "answers-rejected", None, "prebake validate"),
    "nothing said after an early-command": (
        BOOT + "running early commands\n  running exit 7\n" + PROMPT,
        "early-commands",
        "early-command-failed",
        None,
        "|| true",
    ),
    "early-command": (
        BOOT
        + failing(
            "subiquity/Early/run_user_supplied/command_0",
            f"Command '{wrapped('echo early; exit 7', 'subiquity_echo.1')}' returned non-zero exit status 7.",
            "echo early; exit 7",
        )
        + ERROR_COMMANDS
        + PROMPT,
        "early-commands",
        "early-command-failed",
        "'echo early; exit 7' returned non-zero exit status 7",
        "|| true",
    ),
    "mirror": (
        BOOT
        + failing("subiquity/Mirror/apply_autoinstall_config", "aborting install since no mirror is usable")
        + PROMPT,
        "mirror",
        "no-usable-mirror",
        "no mirror is usable",
        "{fallback: offline-install}",
    ),
    "apt": (
        BOOT
        + failing(
            "subiquity/Install/install/configure_apt",
            "Command '['apt-get', 'update']' returned non-zero exit status 100.",
            "configuring apt",
        )
        + PROMPT,
        "mirror",
        "package-lists",
        "'apt-get update' returned non-zero exit status 100",
        "mirror",
    ),
    "no disk": (
        BOOT
        + failing(
            "subiquity/Filesystem/apply_autoinstall_config", "Failed to find matching device for {'serial': 'NOSUCH'}"
        )
        + PROMPT,
        "partitioning",
        "no-matching-disk",
        "{'serial': 'NOSUCH'}",
        "`storage`",
    ),
    "boot disk": (
        BOOT
        + failing(
            "subiquity/Storage/apply_autoinstall_config",
            "autoinstall config did not match requirement SELECT_BOOT_DISK: Select a boot disk",
        )
        + ERROR_COMMANDS
        + DOWN,
        "partitioning",
        "no-boot-disk",
        "SELECT_BOOT_DISK",
        "grub_device",
    ),
    "root": (
        BOOT
        + failing(
            "subiquity/Storage/apply_autoinstall_config",
            "autoinstall config did not match requirement MOUNT_ROOT: Mount a filesystem at /",
        )
        + PROMPT,
        "partitioning",
        "storage-requirement",
        "MOUNT_ROOT",
        "at /",
    ),
    "small disk": (
        BOOT
        + failing(
            "subiquity/Filesystem/convert_autoinstall_config", "requested size larger than gap", "converting config"
        )
        + PROMPT,
        "partitioning",
        "disk-too-small",
        "larger than gap",
        "larger disk",
    ),
    "block probe": (
        BOOT + ANSWERS + "start:  subiquity/ErrorReporter/1.2.block_probe_fail/add_info: \n" + PROMPT,
        "answers",
        "block-probe",
        "block_probe_fail",
        "22.04.3",
    ),
    "stage without words": (
        BOOT
        + ANSWERS
        + MIRROR
        + f"start:   {CURTIN}: executing curtin install curthooks step\n"
        + f"start:     {CURTIN}/cmd-install/stage-curthooks: configuring installed system\n"
        + step(f"{CURTIN}/cmd-install/stage-curthooks/builtin/cmd-curthooks/installing-kernel", "installing kernel")
        + f"finish:   {CURTIN}: \nfinish:  subiquity/Install/install/curtin_install: \n"
        + "finish: subiquity/Install/install: \n"
        + PROMPT,
        "curthooks",
        "curtin-stage-failed",
        "installing kernel",
        "curtin-install.log",
    ),
    "curtin of 22.04": (
        BOOT
        + MIRROR
        + step("subiquity/Install/install/curtin_install/cmd-install/stage-extract", "writing install sources to disk")
        + "finish:   subiquity/Install/install/curtin_install: Command '['python3', '-m', 'curtin', 'install']' "
        "returned non-zero exit status 3.\n" + PROMPT,
        "extract",
        "curtin-failed",
        "'python3 -m curtin install' returned non-zero exit status 3",
        "curtin-install.log",
    ),
    "package": (
        INSTALLED
        + failing(
            "subiquity/Install/install/postinstall/install_nosuch",
            "Command '['python3', '-m', 'curtin', 'system-install', '-t', '/target', '--', 'nosuch']' "
            "returned non-zero exit status 100.",
            "installing nosuch",
        )
        + PROMPT,
        "packages",
        "package-failed",
        "nosuch' returned non-zero exit status 100",
        "pool",
    ),
    "late-command": (
        INSTALLED + LATE + FAILED_LATE + "start: subiquity/Meta/status_GET: \n" + PROMPT + "\n" + ANSWERS,
        "late-commands",
        "late-command-failed",
        "Command 'false' returned non-zero exit status 1.",
        "/target",
    ),
    "late-command, only the last words left": (
        INSTALLED
        + LATE
        + f"finish: subiquity/Install/install: Command execution failure: {wrapped('exit 3')}\n"
        + PROMPT,
        "late-commands",
        "late-command-failed",
        "Command execution failure: exit 3",
        "/target",
    ),
    "powered off by an error-command": (
        INSTALLED + LATE + FAILED_LATE + DOWN,
        "late-commands",
        "late-command-failed",
        "'false'",
        "/target",
    ),
    "powered off, events of the error lost": (
        INSTALLED + LATE + LATE_DONE + "  running poweroff -f\n" + DOWN,
        "late-commands",
        "installer-error",
        None,
        "/var/log/installer",
    ),
    "failed sentinel": (
        INSTALLED + LATE + f"start: subprebake-sentinel:failed:{TOKEN}\n",
        "late-commands",
        "installer-error",
        None,
        "/var/log/installer",
    ),
    "panic": (
        PANIC,
        "kernel",
        "out-of-memory",
        "write error",
        "memory",
    ),
    "plain panic": (
        INSTALLED + "[   99.100000] Kernel panic - not syncing: Attempted to kill init!\n",
        "packages",
        "kernel-panic",
        "Attempted to kill init!",
        "lines before",
    ),
    "out of memory": (
        INSTALLED + "[   99.100000] Out of memory: Killed process 1234 (python3) total-vm:1kB\n",
        "packages",
        "out-of-memory",
        "Killed process 1234",
        "memory",
    ),
    "grub": (
        "error: no such device: 0001-0002.\nEntering rescue mode...\ngrub rescue> ",
        "boot-loader",
        "boot-loader",
        "no such device",
        "boot order",
    ),
    "no medium": (
        NO_MEDIUM,
        "live-system",
        "no-medium",
        "Unable to find a medium",
        "checksum",
    ),
    "initramfs": ("[    1.000000] x\n(initramfs) ", "live-system", "initramfs-shell", "(initramfs)", "casper"),
    "emergency": (
        BOOT + "You are in emergency mode. After logging in, type\nPress Enter for maintenance\n",
        "cloud-init",
        "emergency-mode",
        "emergency mode",
        "unit",
    ),
    "installer crash": (
        BOOT
        + ANSWERS
        + "generating crash report\nTraceback (most recent call last):\n  File x\nKeyError: 'y'\n"
        + PROMPT,
        "answers",
        "installer-error",
        "KeyError: 'y'",
        "/var/crash",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure(name: str) -> None:
    text, phase, slug, reason, hint = FAILURES[name]
    found = verdict(text)
    assert found["verdict"] == "failure"
    assert found["phase"] == phase
    assert found["cause"].startswith(f"{slug}: ")
    if reason is None:
        assert found["reason"] is None
    else:
        assert reason in found["reason"]
    assert hint in found["hint"]
    assert "(not shown)" not in found["cause"]
    assert found["lines"]


@pytest.mark.parametrize("name", FAILURES)
def test_nothing_undoes_a_final_failure(name: str) -> None:
    state = InstallState()
    state.feed(console(FAILURES[name][0] + "\n"))
    before = state.verdict()
    if before.final:
        state.feed(console(SHUTDOWN + DOWN + f"prebake-sentinel:installed:{TOKEN}\n"))
        assert state.verdict() == before


def test_error_commands_are_a_failure_but_may_still_save_evidence() -> None:
    found = explain(console(INSTALLED + LATE + FAILED_LATE + ERROR_COMMANDS))
    assert (found.verdict, found.final) == ("failure", False)


def test_crash_report_alone_is_only_a_hint() -> None:
    text = INSTALLED + "start:  subiquity/ErrorReporter/1.2.install_fail/add_info: \n"
    assert verdict(text)["verdict"] == "incomplete"
    assert verdict(text + LATE + LATE_DONE + SHUTDOWN)["verdict"] == "success"
    assert verdict(text + LATE + LATE_DONE + DOWN)["verdict"] == "failure"


def test_incomplete_after_a_failed_step_tells_it() -> None:
    found = verdict(INSTALLED + LATE + FAILED_LATE)
    assert (found["verdict"], found["phase"]) == ("incomplete", "late-commands")
    assert "late-command-failed" in found["cause"]


def test_complaints_of_early_commands_are_not_the_reason() -> None:
    early = "running early commands\n  running apt-get install x || true\nE: Unable to locate package x\n"
    found = verdict(BOOT + early + INSTALLED + LATE + FAILED_LATE + PROMPT)
    assert found["cause"].startswith("late-command-failed: ")


def test_many_complaints_do_not_hide_the_reason() -> None:
    flood = "".join(f"tar: {number}: No space left on device\n" for number in range(200))
    found = verdict(INSTALLED + flood + LATE + FAILED_LATE + PROMPT)
    assert found["cause"].startswith("late-command-failed: ")


def test_complaints_of_error_commands_are_the_reason() -> None:
    log = "E: Unable to locate package nosuch\n"
    lost = f"start:   {CURTIN}: executing curtin install curthooks step\nfinish:   {CURTIN}: \n"
    found = verdict(BOOT + MIRROR + lost + ERROR_COMMANDS + log + PROMPT)
    assert found["cause"].startswith("no-such-package: ")
    assert "nosuch" in found["reason"]


def test_early_commands_announced_again_are_no_error_commands() -> None:
    early = "running early commands\n  running echo x\nx\n"
    # A client that starts again repeats the whole history.
    text = BOOT + early + INSTALLED + "connecting...\n" + early + INSTALLED + LATE + LATE_DONE
    assert verdict(text + DOWN)["verdict"] == "success"


def test_early_commands_of_before_the_client_came_are_no_error_commands() -> None:
    assert verdict(BOOT + "  running echo x\n" + INSTALLED + LATE + LATE_DONE + DOWN)["verdict"] == "success"


def test_power_off_by_an_error_command_before_the_install() -> None:
    assert verdict(BOOT + "  running poweroff -f\n" + DOWN)["verdict"] == "failure"
    assert verdict(BOOT + "running early commands\n  running poweroff -f\n" + DOWN)["verdict"] == "incomplete"


# Stalled


def test_unanswered_question_stalls() -> None:
    found = verdict(BOOT + ANSWERS + CONFIRM + "start: subiquity/Meta/status_GET: \n")
    assert found["verdict"] == "stalled"
    assert found["cause"].startswith("unconfirmed: ")
    assert "autoinstall" in found["hint"]
    assert verdict(BOOT + CONFIRM + "no\n\n\nContinue with autoinstall? (yes|no)")["verdict"] == "stalled"


@pytest.mark.parametrize("answer", ["yes\n", "start: subiquity/Meta/confirm_POST: \n", MIRROR])
def test_answered_question_does_not_stall(answer: str) -> None:
    assert verdict(BOOT + ANSWERS + CONFIRM + answer)["verdict"] == "incomplete"


def test_interactive_screen_stalls() -> None:
    found = explain(console(BOOT) + b"\x1b[2J\x1b[1;1H====\x1b[3;1H[ Continue in rich mode  > ]\x1b[4;1H").to_json()
    assert found["verdict"] == "stalled"
    assert "interactive" in str(found["reason"])


# Other ends


def test_empty_console() -> None:
    assert verdict("") == {
        "verdict": "incomplete",
        "phase": None,
        "cause": "no-output: Nothing reached the console.",
        "reason": None,
        "hint": "Check that the medium boots with this firmware and that the kernel has a serial `console=`.",
        "lines": [],
    }


def test_login_of_an_installed_system() -> None:
    found = verdict("[    1.000000] Linux version 6\nUbuntu 24.04 LTS demo ttyS0\n\ndemo login: ")
    assert found["verdict"] == "incomplete"
    assert found["cause"].startswith("no-installer: ")
    assert found["lines"][-1] == "demo login:"


def test_lines_are_the_last_meaningful_ones() -> None:
    noise = "start: subiquity/Meta/status_GET: \nfinish: subiquity/Network/_send_update: CHANGE ens3\n\n"
    text = "".join(f"line {number}\n{noise}" for number in range(40)) + "same\n" * 5 + PROMPT + "\n" + "after\n" * 3
    assert verdict(text)["lines"] == [*(f"line {number}" for number in range(27, 40)), "same", PROMPT]


def test_long_lines_are_cut() -> None:
    found = verdict("x" * 100_000 + "\n" + failing("subiquity/Late/run/command_0", "y" * 5000) + PROMPT)
    assert max(map(len, found["lines"])) <= 400
    assert len(found["reason"]) <= 1000


# What the installer makes of commands


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            f"Command '{wrapped('echo a; exit 3')}' returned non-zero exit status 3.",
            "Command 'echo a; exit 3' returned",
        ),
        ("Command '" + wrapped('echo "it\'s"\nfalse') + "' returned", "Command 'echo \"it's\"\nfalse' returned"),
        (
            "Command '['systemd-cat', '--x', 'curtin', 'in-target', '--', 'a b']' died",
            "'curtin in-target -- 'a b'' died",
        ),
        (f"Command execution failure: {wrapped('false')}", "failure: false"),
        ("Installing packages on target system: ['grub-pc']", "Installing packages on target system: ['grub-pc']"),
        ("Command '['never ends", "Command '['never ends"),
    ],
)
def test_readable(text: str, plain: str) -> None:
    assert plain in readable(text)


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"])), max_size=6))
def test_arguments_reads_what_python_writes(argv: list[str]) -> None:
    assert arguments(repr(argv)) == tuple(argv)
    assert isinstance(command_of(tuple(argv)), str)


# Following an install


def test_following_an_install() -> None:
    state = InstallState(TOKEN)
    assert (state.phase, state.progress, state.last_output) == (None, 0.0, None)
    names: list[str] = []
    titles = set()
    before = 0.0
    for number, line in enumerate((INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN).splitlines(keepends=True)):
        found = state.feed(console(line), at=float(number))
        names += [event.name for event in found if isinstance(event, PhaseStarted)]
        titles |= {state.step}
        assert state.last_output == number
        assert before <= state.progress <= 1.0
        before = state.progress
    order = [phase.name for phase in PHASES]
    assert names == sorted(names, key=order.index)
    assert {"kernel", "answers", "mirror", "partitioning", "extract", "curthooks", "packages", "shutdown"} <= set(names)
    assert state.progress == 1.0
    assert state.verdict().final
    state.feed(b"", at=1e6)
    assert state.last_output != 1e6


def test_steps_within_configuring() -> None:
    state = InstallState()
    path = f"{CURTIN}/cmd-install/stage-curthooks/builtin/cmd-curthooks/installing-kernel"
    state.feed(console(f"start:   {path}: installing kernel\n"))
    assert state.phase is not None
    assert (state.phase.name, state.step) == ("curthooks", "Installing the kernel")


def test_an_early_command_has_the_time_of_early_commands() -> None:
    """The answers loaded before it are no sign that all are read: those for the rest come later."""
    state = InstallState()
    state.feed((BOOT + step("subiquity/core_validation") + step("subiquity/Early/load_autoinstall_data")).encode(), 1.0)
    assert state.phase is not None
    assert state.phase.name == "cloud-init"
    state.feed(b"start: subiquity/Early/run:\nstart:  subiquity/Early/run/command_0: sleep 9\n", 2.0)
    assert state.phase.name == "early-commands"
    state.feed(step("subiquity/Identity/load_autoinstall_data").encode(), 3.0)
    assert state.phase.name == "answers"


# Properties

WHOLE = [INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN + DOWN, *(each[0] for each in FAILURES.values())]
KERNEL = b"[   12.345678] usb 1-1: new high-speed device\r\n"


def may_be_torn(raw: bytes, at: int) -> bool:
    """Kernel messages are written whole, and so are line ends."""
    start = raw.rfind(b"\n", 0, at) + 1
    return at == start or (raw[start : start + 1] != b"[" and raw[at - 1 : at] != b"\r")


@settings(deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_kernel_lines_anywhere_change_nothing(text: str, data: st.DataObject) -> None:
    raw = console(text)
    places = [at for at in range(len(raw)) if may_be_torn(raw, at)]
    expected = explain(raw)
    for at in sorted(data.draw(st.lists(st.sampled_from(places), max_size=4)), reverse=True):
        raw = raw[:at] + KERNEL + raw[at:]
    found = explain(raw)
    assert (found.verdict, found.cause, found.reason) == (expected.verdict, expected.cause, expected.reason)


@settings(deadline=None)
@given(st.sampled_from(WHOLE), st.integers(1, 400))
def test_chunks_change_nothing(text: str, size: int) -> None:
    raw = console(text)
    state = InstallState()
    for at in range(0, len(raw), size):
        state.feed(raw[at : at + size])
    assert state.verdict() == explain(raw)


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(WHOLE).map(console)), max_size=4).map(b"".join))
def test_never_raises(raw: bytes) -> None:
    found = explain(raw).to_json()
    assert list(found) == ["verdict", "phase", "cause", "reason", "hint", "lines"]
    assert found["verdict"] in ("success", "failure", "stalled", "incomplete")
    assert json.loads(json.dumps(found)) == found


def test_cut_anywhere_success_only_after_the_proof() -> None:
    raw = console(INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN + DOWN)
    proof = raw.index(b"mode=REBOOT") + len(b"mode=REBOOT")
    for end in range(len(raw)):
        assert explain(raw[:end]).verdict == ("success" if end >= proof else "incomplete"), end


# Recorded consoles, where they are at hand

TRANSCRIPTS = Path(__file__).parents[2] / "shared" / "transcripts"
EXPECTED = TRANSCRIPTS / "expected.jsonl"
recorded = pytest.mark.skipif(not EXPECTED.exists(), reason="no recorded consoles here")


@cache
def expectations() -> tuple[dict[str, str], ...]:
    return tuple(json.loads(line) for line in EXPECTED.read_text().splitlines()) if EXPECTED.exists() else ()


@recorded
@pytest.mark.parametrize("expected", expectations(), ids=lambda each: each["file"])
def test_recorded(expected: dict[str, str]) -> None:
    found = explain((TRANSCRIPTS / expected["file"]).read_bytes()).to_json()
    wanted = expected["verdict"]
    assert found["verdict"] == (wanted if wanted != "n/a" else "incomplete")
    assert found["phase"] == expected.get("phase", found["phase"])
    assert expected.get("reason_contains", "") in str(found["reason"])


@recorded
@pytest.mark.parametrize("expected", expectations(), ids=lambda each: each["file"])
def test_recorded_by_chunks(expected: dict[str, str]) -> None:
    raw = (TRANSCRIPTS / expected["file"]).read_bytes()
    for size in (1, 977):
        state = InstallState()
        for at in range(0, len(raw), size):
            state.feed(raw[at : at + size])
        assert state.verdict() == explain(raw)


@recorded
@pytest.mark.parametrize(
    "expected", [each for each in expectations() if each["verdict"] == "success"], ids=lambda each: each["file"]
)
def test_recorded_success_cut_off_is_incomplete(expected: dict[str, str]) -> None:
    raw = (TRANSCRIPTS / expected["file"]).read_bytes()
    proof = raw.index(b"mode=POWEROFF") + len(b"mode=POWEROFF")
    state = InstallState()
    for at in range(0, proof, 41):
        found = state.feed(raw[at : min(at + 41, proof - 1)])
        assert not [event for event in found if isinstance(event, StepFailed)]
        assert state.verdict().verdict == "incomplete"
    state.feed(raw[proof - 1 :])
    assert state.verdict().verdict == "success"
    state = InstallState()
    state.feed(raw[: proof - 2000])
    for end in range(proof - 2000, proof - 1):
        state.feed(raw[end : end + 1])
        assert state.verdict().verdict == "incomplete"


@recorded
def test_recorded_question() -> None:
    raw = (TRANSCRIPTS / "vm-noautoinstall.raw").read_bytes()
    question = b"Continue with autoinstall? (yes|no)"
    first = raw.index(question) + len(question)
    second = raw.rindex(question) + len(question)
    assert explain(raw[:first]).verdict == "stalled"
    assert explain(raw[:second]).verdict == "stalled"
    assert explain(raw[: raw.index(b"confirm_POST") + 20]).verdict == "incomplete"
