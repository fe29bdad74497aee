"""The installer itself: waits for cloud-init, reads the answers, installs, and tells its clients."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from . import answers as answers_module
from . import target
from .answers import Answers, AnswersError, check_core, check_identity, check_section, locate
from .events import (
    ANSWER,
    CONFIRM,
    DONE,
    FAILED,
    INTERACTIVE,
    RUN,
    RUNNING,
    WAITING,
    CurtinError,
    line,
    say,
    set_state,
    step,
)
from .run import run
from .storage import TARGET, Executor, plan

if TYPE_CHECKING:
    from collections.abc import Callable

LOGS = Path("/var/log/installer")
CRASH = Path("/var/crash")
INSTALL = "subiquity/Install/install"
CURTIN = f"{INSTALL}/curtin_install"
STAGE = f"{CURTIN}/run_curtin_step"
CLOUD_INIT_LIMIT = 600.0
MIRROR_TRIES = 2


class Server:
    """One installation, from the answers to the shutdown."""

    def __init__(self) -> None:
        self.cmdline = Path("/proc/cmdline").read_text().split()
        self.answers: Answers = {}

    def main(self) -> None:
        """Run to the end; a failure leaves the machine waiting at a prompt for ever."""
        RUN.mkdir(parents=True, exist_ok=True)
        LOGS.mkdir(parents=True, exist_ok=True)
        run(["dmesg", "-n", "1"])
        run(["kill", "-s", "SIGRTMIN+21", "1"])
        set_state(WAITING)
        wait_for_cloud_init()
        try:
            found, text = locate(self.cmdline)
            if found is None:
                set_state(INTERACTIVE)
                return
            (LOGS / "autoinstall-user-data").touch(mode=0o600)
            (LOGS / "autoinstall-user-data").write_text(text)
            set_state(RUNNING)
            self.answers = found
            self.validate()
            self.install()
        except Exception as error:  # noqa: BLE001 - whatever it is, the console must say it and wait
            (LOGS / "subiquity-traceback.txt").write_text(traceback.format_exc())
            self.fail(error)
            set_state(FAILED)
            return
        self.shut_down()

    def validate(self) -> None:
        """Read the answers section by section, run the early commands in between."""
        for name in ("Reporting", "Integrity", "Error"):
            with step(f"subiquity/{name}/load_autoinstall_data"):
                pass
        check_section("error-commands", self.answers)
        with step("subiquity/core_validation"):
            unknown = check_core(self.answers)
        for name in unknown:
            key = "subiquity/core_validation/top_level_keys"
            say(line("warning", key, f"Unrecognized top-level key '{name}'"))
            self.answers.pop(name)
        check_section("early-commands", self.answers)
        self.commands("early", "subiquity/Early/run_user_supplied", echo=True)
        with step("subiquity/load_autoinstall_config"):
            for name in answers_module.SECTIONS:
                title = "".join(part.capitalize() for part in name.split("-"))
                with step(f"subiquity/{title}/load_autoinstall_data"):
                    check_section(name, self.answers)
            check_identity(self.answers)
        with step("subiquity/apply_autoinstall_config"):
            with step("subiquity/Network/apply_autoinstall_config"):
                pass
            with step("subiquity/Mirror/apply_autoinstall_config"):
                self.test_mirror()
            with step("subiquity/Filesystem/apply_autoinstall_config"):
                self.actions, self.chosen = plan(self.answers)

    def test_mirror(self) -> None:
        """With a default route, try the mirror the answers name; what an unusable one means is their choice.

        This medium knows no mirror of its own.
        """
        routes = Path("/proc/net/route").read_text().splitlines()[1:]
        if not any(row.split()[1] == "00000000" for row in routes):
            return
        apt = self.answers.get("apt", {})
        for row in apt.get("mirror-selection", {}).get("primary", apt.get("primary", [])):
            place = urlsplit(str(row.get("uri", "")) if isinstance(row, dict) else "")
            for _ in range(MIRROR_TRIES if place.hostname else 0):
                try:
                    socket.create_connection((place.hostname, place.port or 80), timeout=5).close()
                except OSError:
                    continue
                return
        if apt.get("fallback", "offline-install") == "abort":
            raise AnswersError("aborting install since no mirror is usable")

    def install(self) -> None:
        """Ask if need be, then do what cannot be undone."""
        if "autoinstall" not in self.cmdline:
            self.confirm()
        with step(INSTALL):
            with step(f"{INSTALL}/configure_apt", "configuring apt"):
                pass
            self.curtin()
            with step(f"{INSTALL}/postinstall", "final system configuration"):
                for name in self.answers.get("packages", []):
                    target.install_package(name, f"{INSTALL}/postinstall")
                with step(f"{INSTALL}/postinstall/configure_cloud_init", "configuring cloud-init"):
                    target.configure(self.answers)
                with step(f"{INSTALL}/postinstall/restore_apt_config", "restoring apt configuration"):
                    pass
            self.commands("late", "subiquity/Late/run_user_supplied", echo=False)

    def confirm(self) -> None:
        """Wait until somebody types yes on a console."""
        ANSWER.unlink(missing_ok=True)
        set_state(CONFIRM)
        while not ANSWER.exists():
            time.sleep(0.2)
        set_state(RUNNING)
        for name in ("mark_configured_POST", "confirm_POST"):
            say(line("start", f"subiquity/Meta/{name}"))

    def curtin(self) -> None:
        """Do the three disk stages; when one fails the console does not say why, only a crash file does."""
        storage = Executor(self.actions, self.chosen, f"{STAGE}/cmd-install/stage-partitioning/builtin/cmd-block-meta")
        squashfs = target.source(self.answers)
        hooks = f"{STAGE}/cmd-install/stage-curthooks/builtin/cmd-curthooks"
        stages: list[tuple[str, str, Callable[[], None]]] = [
            ("partitioning", "configuring storage", storage.run),
            ("extract", "writing install sources to disk", lambda: target.extract(squashfs)),
            (
                "curthooks",
                "configuring installed system",
                lambda: target.curthooks(self.answers, storage, hooks),
            ),
        ]
        with step(CURTIN, "installing system"):
            for name, title, work in stages:
                with step(STAGE, f"executing curtin install {name} step"):
                    self.stage(name, title, work)

    def stage(self, name: str, title: str, work: Callable[[], None]) -> None:
        """Run one stage; an error becomes one without words, and a crash file."""
        try:
            with step(f"{STAGE}/cmd-install/stage-{name}", title):
                try:
                    work()
                except Exception as error:
                    raise CurtinError from error
        except CurtinError as error:
            report = f"{time.time():.9f}.install_fail"
            CRASH.mkdir(parents=True, exist_ok=True)
            (CRASH / f"{report}.crash").write_text(
                "ProblemType: Bug\nTraceback:\n" + "".join(traceback.format_exception(error.__cause__))
            )
            self.report = report
            raise

    def commands(self, kind: str, path: str, *, echo: bool) -> None:
        """Run the user's commands of one kind; only early and error commands are heard on the console."""
        orders = self.answers.get(f"{kind}-commands", [])
        if orders and kind == "early":
            say("running early commands")
        failed = None
        for number, order in enumerate(orders):
            argv = ["sh", "-c", order] if isinstance(order, str) else list(order)
            shown = order if isinstance(order, str) else " ".join(order)
            if echo:
                say(f"  running {shown}")
            try:
                with step(f"{path}/command_{number}", shown):
                    self.command(argv, echo=echo)
            except AnswersError as error:
                failed = failed or error
                if kind != "error":
                    raise
        if failed:
            (LOGS / "error-commands.txt").write_text(str(failed))

    def command(self, argv: list[str], *, echo: bool) -> None:
        """Run one of the user's commands with the environment the real installer gives it."""
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "TARGET_MOUNT_POINT": str(TARGET)},
        )
        with (LOGS / "subiquity-server-debug.log").open("a", encoding="utf-8") as log:
            log.write(f"{argv}: {done.returncode}\n{done.stdout}")
        if echo and done.stdout:
            say(done.stdout.rstrip("\n"))
        if done.returncode:
            named = [
                "systemd-cat",
                "--level-prefix=false",
                f"--identifier=subiquity_log.{os.getpid()}",
                *argv,
            ]
            raise AnswersError(f"Command '{named}' returned non-zero exit status {done.returncode}.")

    def fail(self, error: Exception) -> None:
        """Write the crash report's line, run the error commands."""
        if isinstance(error, CurtinError):
            path = f"subiquity/ErrorReporter/{self.report}/add_info"
            say(line("start", path))
            say(line("finish", path, f"written to {CRASH}/{self.report}.crash"))
        if isinstance(self.answers.get("error-commands"), list):
            with step("subiquity/Error/run"):
                self.commands("error", "subiquity/Error/run_user_supplied", echo=True)

    def shut_down(self) -> None:
        """Copy the logs to the target, then power off or reboot as asked."""
        with step("subiquity/Shutdown/copy_logs_to_target"):
            shutil.copytree(LOGS, TARGET / "var/log/installer", dirs_exist_ok=True)
            shutil.copy2("/run/cloud-init/result.json", TARGET / "var/log/installer")
            integrity = Path("/run/casper-md5check.json")
            if integrity.exists():
                shutil.copy2(integrity, TARGET / "var/log/installer")
        run(["umount", "--recursive", str(TARGET)])
        mode = str(self.answers.get("shutdown", "reboot"))
        say(line("start", "subiquity/Shutdown/shutdown", f"mode={mode.upper()}"))
        set_state(DONE)
        run(["systemctl", mode])


def wait_for_cloud_init() -> None:
    """Wait until cloud-init is done or known to be off, 600 s at most, as the real installer does."""
    end = time.monotonic() + CLOUD_INIT_LIMIT
    while time.monotonic() < end:
        if Path("/run/cloud-init/result.json").exists() or Path("/run/cloud-init/disabled").exists():
            return
        time.sleep(0.2)


if __name__ == "__main__":
    Server().main()
