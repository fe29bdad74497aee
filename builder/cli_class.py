"""The command line's part about what is wanted: class files, options over them, an instructor's own answers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder import boot
from builder.autoinstall import classfile, own
from builder.autoinstall.check import check
from builder.autoinstall.lint import ruled, unique
from builder.autoinstall.machine import spec_of
from builder.autoinstall.model import ClassFile
from builder.autoinstall.password import hash_password
from builder.autoinstall.problems import Problem, refuse
from builder.autoinstall.render import render as render_answers
from builder.autoinstall.sections import requested
from builder.autoinstall.values import password as checked_password
from builder.autoinstall.values import release
from builder.errors import AnswersError, PrebakeError, UsageError
from builder.events import Note
from builder.size import parse_size
from builder.spec import GIB, Spec
from builder.talk import options, talking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.autoinstall.classfile import Class
    from builder.autoinstall.own import OwnAnswers
    from builder.autoinstall.render import Answers
    from builder.ui import Ui

PASSWORD = "PREBAKE_PASSWORD"  # noqa: S105 - the name of a variable
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
TEMPLATES = click.Path(path_type=Path, file_okay=False, exists=True)
KEYS = ("hostname", "disk", "storage", "firmware", "locale", "keyboard", "timezone", "swap", "updates", "source",
        "proxy", "release", "arch", "cloud-init", "firmware-packages")  # fmt: skip
"""Options that are called like a key of the class file."""
BESIDE = ("name", "disk", "firmware", "release", "arch", "offline", "user", "cloud-init", "firmware-packages")
"""What an autoinstall file does not say: these may be given beside it (who the user is it does say)."""

PASSWORDS = options(
    click.option("--password-file", type=FILE, help=f"Holds the password; or set {PASSWORD}.  [default: powercoders]"),
    click.option("--ask-password", is_flag=True, help="Ask for the password on the terminal."),
)
MACHINE = options(
    click.argument("class_file", metavar="[CLASS.yaml]", type=click.Path(path_type=Path), required=False),
    click.option("--user-data", type=FILE, help="Your own autoinstall file instead of prebake's answers."),
    click.option("--hostname", help="The machine's name.  [default: ubuntu]"),
    click.option("--user", help="Who can log in.  [default: ubuntu]"),
    click.option("--full-name", help="That user's full name.  [default: Ubuntu]"),
    PASSWORDS,
    click.option("--disk", metavar="SIZE", help="The disk's size.  [default: 10G]"),
    click.option("--storage", type=click.Choice(["direct", "lvm"]), help="The disk's layout.  [default: direct]"),
    click.option("--swap", metavar="SIZE", help="A swap file.  [default: none]"),
    click.option("--firmware", type=click.Choice(["bios", "uefi", "both"]), help="Boots under.  [default: both]"),
    click.option("--locale", help="Language and region.  [default: en_US.UTF-8]"),
    click.option("--keyboard", help="Keyboard layout.  [default: us]"),
    click.option("--timezone", help="Time zone.  [default: UTC]"),
    click.option("--source", type=click.Choice(["server", "minimal"]), help="How much of it.  [default: server]"),
    click.option("--updates", type=click.Choice(["none", "security", "all"]), help="Installed.  [default: security]"),
    click.option("--proxy", metavar="URL", help="For apt and snap, also on the finished machine."),
    click.option(
        "--cloud-init",
        type=click.Choice(["off", "nocloud"]),
        help="On the image: off, or on where there is a seed.  [default: off]",
    ),
    click.option("--firmware-packages", metavar="keep|remove|SIZE", help="Kept up to this.  [default: 256M]"),
    click.option(
        "--offline/--online",
        "offline",
        default=None,
        help="Fetch nothing while installing; or: end at once if the archive is not reachable.  "
        "[default: use it if it is]",
    ),
    click.option("--templates", type=TEMPLATES, help="A folder whose user-data.j2 or meta-data.j2 goes before ours."),
)


@dataclass(frozen=True)
class Wanted:
    """What a command line asks for, checked: a class or the lesson's machine, and the machine it comes to."""

    model: ClassFile
    spec: Spec
    named: bool
    own: OwnAnswers | None = None
    folders: tuple[Path, ...] = ()

    def asked(self, key: str) -> str | None:
        """Return what the class or an option says of the key "release" or "arch", None if neither does."""
        return str(getattr(self.model, key)) if key in self.model.model_fields_set else None

    def called(self, name: str) -> Spec:
        """Return the machine, called ``name`` unless the class or an option has named it."""
        return self.spec if self.named else replace(self.spec, name=name)


def wanted_of(
    given: dict[str, Any], ui: Ui, *, name: str = "image", login: bool = True, guided: bool = False
) -> Wanted:
    """Return what the options and the class file ask for.

    With ``login`` the password has to be known, for prebake will log in with it; its hash alone will not do. With
    ``guided`` the layout of the disk is the installer's own, for nobody knows the computer.

    Raises AnswersError that lists all that is wrong, UsageError for options that exclude each other.
    """
    path: Path | None = given.get("class_file")
    if path is not None and given.get("user_data") is not None:
        raise UsageError("A class file and --user-data exclude each other.", hint="Give one of them.")
    overrides = overrides_of(given)
    said = [key for key in ("templates", *overrides) if given.get("user_data") and given.get(key) and key not in BESIDE]
    said += [option for option in ("user", "full_name") if given.get("user_data") and given.get(option)]
    if said:
        option = f"--{said[0].replace('_', '-')}"
        raise UsageError(f"{option} and --user-data exclude each other.", hint=f"Say it in {given['user_data'].name}.")
    found = classfile.load(path, overrides) if path is not None else None
    model = found.model if found else classfile.plain(overrides)
    password = password_of(given)
    if password is not None:
        refuse(list(ruled(checked_password, password, ("password",))), "The password")
    if login and model.user.password_hash and given.get("user_data") is None:
        place = found.located(Problem(("user", "password-hash"), "")).place if found else None
        where = str(place or "The class")
        password = own.check_password(model.user.password_hash, password or model.user.password, where)
    called = given.get("name") or (found.name if found else None)
    sizes = {key: given[key] for key in ("memory", "cpus") if given.get(key) is not None}
    spec = spec_of(model, called or name, password=password, **sizes)
    spec = replace(spec, both=spec.both and not guided)
    answers = None
    if given.get("user_data") is not None:
        answers = own.load(given["user_data"], None if given.get("iso") else requested(model.release))
        spec = own.spec_for(answers, spec, password, login=login)
        for warning in answers.warnings:
            ui(Note(str(warning), "warning"))
    folders = (given["templates"],) if given.get("templates") else ()
    wanted = Wanted(model, spec, called is not None, answers, folders)
    try:
        warnings = check(spec, login=login, own=answers is not None)
        if not given.get("iso"):  # otherwise the medium tells
            boot.check_release(spec, model.release if model.release.count(".") > 1 else None)
        for warning in (*warnings, *answers_of(wanted, seen=not given.get("iso")).warnings):
            ui(Note(str(found.located(warning) if found else warning), "warning"))
    except AnswersError as error:
        located_check(error, found)
        raise
    return wanted


def unfinished(wanted: Wanted, ui: Ui) -> None:
    """Say what of a class is not done: what this version does not do yet, and firmware that cannot be had."""
    if "firmware" in wanted.model.model_fields_set and len(wanted.model.firmware) > 1 and not wanted.spec.both:
        why = "the file decides" if wanted.own else "its own storage section decides"
        why = why if wanted.model.arch == "amd64" else "arm64 knows UEFI alone"
        one = wanted.spec.firmware.upper() if wanted.model.arch == "amd64" else "UEFI"
        ui(Note(f"The image boots under {one} only, not under both: {why}.", "warning"))
    if wanted.spec.exports:
        ui(Note(f"Exports are not made yet: {', '.join(wanted.spec.exports)}.", "warning"))


def located_check(error: AnswersError, found: Class | None) -> None:
    """Give the problems of a machine their places in its class file, in the error's message too."""
    if found is None:
        return
    placed = [found.located(one) for one in error.problems if isinstance(one, Problem)]
    if placed:
        error.problems = tuple(placed)
        error.message = "\n    ".join(str(one) for one in placed)


def overrides_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return what the options say, by the class file's keys."""
    if given.get("disk"):
        parse_size(given["disk"])  # what is no size at all is a matter of the command line
    said = {key: given.get(key.replace("-", "_")) for key in KEYS}
    found: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    user = {key: given[option] for key, option in (("name", "user"), ("full-name", "full_name")) if given.get(option)}
    if user:
        found["user"] = user
    if given.get("name"):
        found["name"] = given["name"]
    if given.get("offline") is not None:
        found["offline"] = given["offline"]
    return found


def password_of(given: dict[str, Any]) -> str | None:
    """Return the password from its file, a prompt or its variable; never from an option, which all can read."""
    path: Path | None = given.get("password_file")
    if path is not None:
        try:
            return path.read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The password file {path} cannot be read: {error}.") from error
    if given.get("ask_password"):
        if not sys.stdin.isatty():
            raise UsageError("--ask-password needs a terminal.", hint=f"Use --password-file, or set {PASSWORD}.")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return os.environ.get(PASSWORD)


@click.command("render")
@MACHINE
@click.option("--release", help="For the installer of this release.  [default: 24.04]")
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), help="The processor's.  [default: amd64]")
@click.option("--show-hash", is_flag=True, help="Print the password's hash instead of asterisks.")
@talking
def render_command(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Print the user-data that would be used."""
    wanted = wanted_of(given, ui, login=False)
    answers = answers_of(wanted)
    for line in answers.added:
        ui(Note(f"Added to {wanted.own.path}: {line}")) if wanted.own else None
    ui.result((answers.user_data if given["show_hash"] else answers.masked()).rstrip("\n"))


def answers_of(wanted: Wanted, *, seen: bool = True) -> Answers:
    """Return the answers for the release that is asked for, or, if it is not to be ``seen``, for the newest."""
    tty = boot.SERIAL[wanted.model.arch]
    if wanted.own is not None:
        return own.answers_of(wanted.own, tty=tty, watched=True)
    spec = wanted.spec
    hashed = spec.user.password_hash or hash_password(spec.user.password)
    installer = requested(wanted.model.release) if seen else None
    return render_answers(spec, password_hash=hashed, tty=tty, installer=installer, folders=wanted.folders)


@click.command("validate")
@click.argument("paths", metavar="[CLASS.yaml|FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--user-data", "answers", multiple=True, type=FILE, help="An autoinstall file to check; may be repeated.")
@click.option("--release", help="The release whose installer reads the --user-data.  [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@talking
def validate_command(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Check class files, folders of them and autoinstall files, and what they render to; exit 3 if any is bad."""
    if given["release"]:
        refuse(list(ruled(release, given["release"], ("--release",))), "The command line")
    if not given["paths"] and not given["answers"]:
        raise UsageError("Nothing to check is named.", hint="Name class files, a folder of them, or --user-data FILE.")
    rows = [_checked_class(path, ui) for path in _classes_in(given["paths"])]
    rows += [_checked_answers(path, given["release"]) for path in given["answers"]]
    if given["as_json"]:
        ui.result(
            json.dumps([{**row, "problems": [one.to_json() for one in row["problems"]]} for row in rows], indent=2)
        )
    else:
        _print_table(rows, ui)
    if not all(row["good"] for row in rows):
        sys.exit(AnswersError.exit_code)


def _classes_in(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(one for one in path.iterdir() if one.suffix in {".yaml", ".yml"} and one.is_file())
        if not found:
            raise UsageError(f"There is no class file (*.yaml) in the folder `{path}`.")
        yield from found


def _row(path: Path, problems: Sequence[Problem], message: str = "") -> dict[str, Any]:
    errors = [one for one in problems if one.severity == "error"]
    if message and not errors:
        problems = [*problems, Problem((), message)]
    return {"file": str(path), "good": not message and not errors, "problems": list(problems)}


def _checked_class(path: Path, ui: Ui) -> dict[str, Any]:
    model = None
    try:
        model = wanted_of({"class_file": path}, ui, login=False).model
    except PrebakeError as error:
        problems = [one for one in getattr(error, "problems", ()) if isinstance(one, Problem)]
        row = _row(path, problems, error.message)
    else:
        row = _row(path, [])
    if model is not None:
        adds: dict[str, Sequence[object]] = {
            "packages": model.packages,
            "snaps": model.snaps,
            "files": model.files,
            "commands": model.run,
        }
        row |= {"release": model.release, "arch": model.arch, "disk": model.disk}
        row |= {"adds": {key: len(value) for key, value in adds.items() if value}}
    return row


def _checked_answers(path: Path, release: str | None) -> dict[str, Any]:
    try:
        found = own.examine(path, requested(release) if release else None)
    except AnswersError as error:
        return _row(path, [one for one in error.problems if isinstance(one, Problem)], error.message)
    return _row(path, unique(found.problems))


def _print_table(rows: Sequence[dict[str, Any]], ui: Ui) -> None:
    width = max(len("FILE"), *(len(row["file"]) for row in rows))
    ui.result(f"{'FILE':{width}}  {'RELEASE':9}{'ARCH':7}{'DISK':>7}  {'ADDS':34}VERDICT")
    for row in rows:
        disk = f"{row['disk'] / GIB:.0f}G" if "disk" in row else ""
        adds = ", ".join(f"{count} {what}" for what, count in row.get("adds", {}).items())
        errors = sum(one.severity == "error" for one in row["problems"])
        verdict = "good" if row["good"] else f"{errors} problem{'s' if errors != 1 else ''}"
        known = f"{row.get('release', ''):9}{row.get('arch', ''):7}{disk:>7}  {adds:34}"
        ui.result(f"{row['file']:{width}}  {known}{verdict}")
    for row in rows:
        for one in row["problems"]:
            where = "" if one.place else f"{row['file']}: "
            ui.say(f"{'warning: ' if one.severity == 'warning' else ''}{where}{one}")


@click.command("class-schema")
@talking
def schema_command(ui: Ui) -> None:
    """Print the JSON Schema of the class file, for editors that complete and check."""
    ui.result(json.dumps(schema(), indent=2))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the class file."""
    found = ClassFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
