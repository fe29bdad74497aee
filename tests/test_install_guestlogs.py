"""What the guest's own logs say of a failure, and how it reaches the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.install.guestlogs import CURTIN, JOURNAL, READ, SERVER, TRACEBACK, last_exception, said
from builder.install.saved import explain_saved
from builder.install.state import InstallState

if TYPE_CHECKING:
    from pathlib import Path

    from builder.install.verdict import Verdict

CRASH = "var/crash/1795416026.123.install_fail.crash"
STAMP = "Nov 25 03:07:22 ubuntu-server"
INSTALL = "subiquity/Install/install"
STAGE = f"{INSTALL}/curtin_install/run_curtin_step"
CURTIN_FAILS = f"""start: {INSTALL}:
start:  {INSTALL}/curtin_install: installing system
start:   {STAGE}: executing curtin install extract step
start:     {STAGE}/cmd-install/stage-extract: writing install sources to disk
finish:     {STAGE}/cmd-install/stage-extract: writing install sources to disk
finish:   {STAGE}:
finish:  {INSTALL}/curtin_install:
finish: {INSTALL}:
start:  subiquity/ErrorReporter/1795416026.123.install_fail/add_info:
finish:  subiquity/ErrorReporter/1795416026.123.install_fail/add_info: written to /{CRASH}
An error occurred. Press enter to start a shell
"""
FULL = """Running command ['unsquashfs', '-dest', '/target', 'x.squashfs'] with allowed return codes [0] (capture=both)
        Unexpected error while running command.
        Command: ['unsquashfs', '-dest', '/target', 'x.squashfs']
        Exit code: 1
        Reason: -
        Stdout: Parallel unsquashfs: Using 2 processors
        Stderr: write_file: failed to write file /target/usr/bin/x, because No space left on device
                FATAL ERROR: write_file: failed to create file
curtin: Installation failed with exception: Unexpected error while running command.
Command: ['curtin', 'extract']
Exit code: 3
Reason: -
Stdout: ''
Stderr: ''
"""


def verdict(console: str, logs: dict[str, str]) -> Verdict:
    state = InstallState()
    state.feed(console.replace("\n", "\r\n").encode())
    before = state.verdict()
    state.learn(said(logs))
    after = state.verdict()
    assert (after.verdict, after.final) == (before.verdict, before.final), "logs explain, they do not judge"
    return after


def test_curtins_log_says_what_the_console_does_not() -> None:
    assert verdict(CURTIN_FAILS, {}).reason == (
        "executing curtin install extract step: writing install sources to disk"
    )
    found = verdict(CURTIN_FAILS, {CURTIN: FULL})
    assert found.phase == "extract"
    assert (found.cause or "").startswith("disk-full: ")
    assert found.reason is not None
    assert found.reason.startswith("unsquashfs failed with exit code 1: write_file: failed to write file")


def test_an_unknown_failure_of_curtins_keeps_its_stage_and_its_words() -> None:
    log = FULL.replace("No space left on device", "of the weather")
    found = verdict(CURTIN_FAILS, {CURTIN: log})
    assert (found.cause or "").startswith("curtin-stage-failed: ")
    assert "of the weather" in (found.reason or "")


@pytest.mark.parametrize("where", [CURTIN, JOURNAL])
def test_apt_is_heard_wherever_it_speaks(where: str) -> None:
    line = "E: Unable to locate package no-such"
    text = (
        f"Reading package lists...\n        {line}\n" if where == CURTIN else f"{STAMP} subiquity_log.812[44]: {line}\n"
    )
    path = f"{INSTALL}/postinstall/install_no-such"
    console = (
        f"start:   {path}: installing no-such\n"
        f"finish:   {path}: Command '['curtin', 'system-install', 'no-such']' returned non-zero exit status 100.\n"
        "An error occurred. Press enter to start a shell\n"
    )
    assert (verdict(console, {}).cause or "").startswith("package-failed: ")
    found = verdict(console, {where: text})
    assert (found.cause or "").startswith("no-such-package: ")
    assert found.reason == line


def test_a_section_that_does_not_fit_is_told_with_the_value_that_does_not() -> None:
    console = "start: subiquity/core_validation: \nAn error occurred. Press enter to start a shell\n"
    log = (
        "DEBUG root:40 finish: subiquity/Updates/load_autoinstall_data: FAIL: Malformed autoinstall in "
        "'updates' section\nTraceback (most recent call last):\n  File \"x.py\", line 1, in <module>\n"
        "jsonschema.exceptions.ValidationError: 'justno' is not one of ['security', 'all']\n\nFailed\n"
    )
    found = verdict(console, {SERVER: log})
    assert (found.cause or "").startswith("malformed-answers: ")
    assert "`updates`" in (found.cause or "")
    assert found.reason == "Malformed autoinstall in 'updates' section: 'justno' is not one of ['security', 'all']"


def test_what_kernel_and_systemd_say_of_the_machine_counts_first() -> None:
    console = (
        "running early commands\n  running make-it-so\n"
        "start:  subiquity/Early/run_user_supplied/command_0: make-it-so\n"
        "finish:  subiquity/Early/run_user_supplied/command_0: Command '['sh', '-c', 'make-it-so']' returned non-zero "
        "exit status 137.\nAn error occurred. Press enter to start a shell\n"
    )
    assert (verdict(console, {}).cause or "").startswith("early-command-failed: ")
    row = f"{STAMP} kernel: Out of memory: Killed process 812 (python3) total-vm:3912412kB, anon-rss:3801220kB\n"
    found = verdict(console, {JOURNAL: row * 3, TRACEBACK: "Traceback (most recent call last):\n  x\nValueError: y\n"})
    assert (found.cause or "").startswith("out-of-memory: ")
    assert (found.reason or "").startswith("Out of memory: Killed process 812 (python3)")
    assert found.phase == "early-commands"
    row = f"{STAMP} kernel: SQUASHFS error: zlib decompression failed, data probably corrupt\n"
    assert (verdict(CURTIN_FAILS, {JOURNAL: row, CURTIN: FULL}).cause or "").startswith("medium-damaged: ")
    row = f"{STAMP} echo[12]: Out of memory: Killed process 812 (python3)\n"
    assert (verdict(console, {JOURNAL: row}).cause or "").startswith("early-command-failed: ")


def test_the_last_line_of_a_traceback() -> None:
    text = (
        "Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'x'\n\n"
        "During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n"
        '  File "b.py", line 2\nsubiquity.server.errors.StorageException: no place\n'
    )
    assert last_exception(text) == "subiquity.server.errors.StorageException: no place"
    apport = "ProblemType: Bug\nTraceback:\n " + text.replace("\n", "\n ")
    assert last_exception(apport) == "subiquity.server.errors.StorageException: no place"
    assert last_exception("no such thing") == ""
    found = verdict(CURTIN_FAILS, {CRASH: apport})
    assert found.reason == "subiquity.server.errors.StorageException: no place"


@given(st.dictionaries(st.sampled_from([*READ, CRASH]), st.text(max_size=300)))
def test_logs_of_any_kind_do_no_harm(logs: dict[str, str]) -> None:
    said(logs)


@given(st.lists(st.sampled_from([*FULL.splitlines(), "E: x", f"{STAMP} kernel: SQUASHFS error: x", " Traceback:"])))
def test_logs_cut_and_mixed_do_no_harm(rows: list[str]) -> None:
    text = "\n".join(rows)
    for words in said(dict.fromkeys(READ, text)):
        assert words.text
        assert "\n" not in words.text


def test_an_installer_that_was_killed_is_known_by_systemds_word() -> None:
    unit = "snap.subiquity.subiquity-server.service"
    row = f"{STAMP} systemd[1]: {unit}: Main process exited, code=killed, status=9/KILL\n"
    assert (verdict(CURTIN_FAILS, {JOURNAL: row, CURTIN: FULL}).cause or "").startswith("installer-killed: ")
    row = row.replace(unit, "cron.service")
    assert (verdict(CURTIN_FAILS, {JOURNAL: row, CURTIN: FULL}).cause or "").startswith("disk-full: ")


def test_explain_reads_the_guests_logs_in_a_folder_of_evidence(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text(CURTIN_FAILS)
    assert (explain_saved(tmp_path).cause or "").startswith("curtin-stage-failed: ")
    path = tmp_path / "guest" / CURTIN
    path.parent.mkdir(parents=True)
    path.write_text(FULL)
    assert (explain_saved(tmp_path).cause or "").startswith("disk-full: ")
    (tmp_path / "console.log").write_text("start: subiquity/Shutdown/shutdown: mode=REBOOT\n")
    assert explain_saved(tmp_path).verdict == "success"
