"""The command line: parses and prints, nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder import __version__, boot, cli_media, doctor, pipeline
from builder.cli_class import (
    FILE,
    FOLDER,
    MACHINE,
    render_command,
    schema_command,
    unfinished,
    validate_command,
    wanted_of,
)
from builder.cli_media import MEDIUM, medium_of
from builder.cli_verify import ACCEL, CPUS, MEMORY, verify_command
from builder.errors import HostError, UsageError
from builder.events import Note, silent
from builder.image.strangers import LEVELS
from builder.install.saved import explain_saved
from builder.media.image import inspect
from builder.reach import settled
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder
from builder.story import IsoJob, Job
from builder.talk import talking
from builder.vm import accel, features
from builder.vm.disk import COMPRESSIONS
from builder.workspace import check_place, existing_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.media.changes import Change
    from builder.ui import Ui


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="prebake")
def cli() -> None:
    """Turn an Ubuntu live-server ISO into a ready disk image, unattended."""


cli.add_command(cli_media.releases_command)
cli.add_command(cli_media.cache_group)
cli.add_command(render_command)
cli.add_command(validate_command)
cli.add_command(schema_command)
cli.add_command(verify_command)


@cli.command()
@MEDIUM
@MACHINE
@click.option("-o", "--output", type=FOLDER, default=Path("output"), show_default=True, help="DIR/NAME/NAME.qcow2.")
@click.option("--name", help="The image's name.  [default: what the medium is called]")
@ACCEL
@MEMORY
@CPUS
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Longest install.")
@click.option("--stall-timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Longest silence.")
@click.option("--step-timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Longest step of a class.")
@click.option(
    "--prove",
    type=click.Choice(LEVELS),
    default="quick",
    show_default=True,
    help="Boot the image once per firmware, or on every kind of disk and card.",
)
@click.option("--fresh", is_flag=True, help="Install the system even if the same one is in the cache.")
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default="zstd",
    show_default=True,
    help="zlib takes longer, and can be read by QEMU before 5.1 and by other hypervisors' tools.",
)
@click.option("--force", is_flag=True, help="Replace an image of that name, once the new one is whole.")
@click.option("--keep", is_flag=True, help="After a failure keep the disk with the evidence.")
@click.option("--console", is_flag=True, help="Show the guest's serial console as it comes.")
@talking
def image(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Make a disk image, of a class or the lesson's machine; print its path."""
    wanted = wanted_of(given, ui)
    unfinished(wanted, ui)
    early = wanted.spec.name if wanted.named else given["medium"]
    if early:
        check_place(given["output"] / early, force=given["force"])
    given |= {"release": wanted.model.release, "arch": wanted.model.arch}
    if given["iso"] is None:
        accel.choose(given["accel"], given["arch"], silent)
        features.check_compression(given["compression"])
        boot.suited(wanted.spec, given["arch"])
    needs = wanted.own.needs if wanted.own else ""
    spec = settled(wanted.spec, wanted.model.arch, ui, needs=needs) if given["iso"] is None else wanted.spec
    with medium_of(given, ui) as medium:
        spec = replace(spec, name=early or name_of(medium.path))
        if given["iso"] is not None:  # a wrong path is told before a network that does not answer
            spec = settled(spec, wanted.model.arch, ui, needs=needs)
        job = Job(
            spec=spec,
            iso=medium.path,
            origin=medium.origin,
            output=given["output"],
            release=wanted.asked("release"),
            arch=wanted.asked("arch"),
            own=wanted.own,
            folders=wanted.folders,
            accel=given["accel"],
            force=given["force"],
            keep=given["keep"],
            install_seconds=given["timeout"],
            silent_seconds=given["stall_timeout"],
            step_seconds=given["step_timeout"],
            prove=given["prove"],
            fresh=given["fresh"],
            compression=given["compression"],
        )
        ui.result(str(pipeline.build_image(job, ui)))


@cli.command()
@MEDIUM
@MACHINE
@click.option("-o", "--output", type=FILE, help="The new ISO.  [default: output/NAME-autoinstall.iso]")
@click.option("--force", is_flag=True, help="Replace a file of that name, once the new one is whole.")
@click.option("--diff", is_flag=True, help="Write nothing; print which sectors would change, and what lies there.")
@click.option("--json", "as_json", is_flag=True, help="With --diff: print it as JSON.")
@talking
def iso(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Write the ISO with the answers inside, for a stick, a disc or bare metal; print its path."""
    wanted = wanted_of(given, ui, login=False, guided=True)
    if wanted.spec.network == "offline" or wanted.spec.updates == "none":
        words = "A machine that starts from this ISO uses the network it finds, for updates too: nobody keeps it in."
        ui(Note(words, "warning"))
    given |= {"release": wanted.model.release, "arch": wanted.model.arch}
    if given["output"] is not None and not given["diff"]:
        check_place(given["output"], force=given["force"])
    with medium_of(given, ui) as medium:
        source = medium.path
        name = wanted.spec.name if wanted.named else name_of(source)
        job = IsoJob(wanted.called(name), source, wanted.own, wanted.folders)
        if given["diff"]:
            _print_changes(pipeline.remaster_changes(job, ui), ui, as_json=given["as_json"])
            return
        target = given["output"] or Path("output") / f"{name}-autoinstall.iso"
        if target.exists() and target.samefile(source):
            raise UsageError(f"{target} is the source itself.", hint="Name another file with -o.")
        ui.result(str(pipeline.write_remastered_iso(job, target, ui, force=given["force"])))


@cli.command()
@click.option("-o", "--output", type=FILE, help="Copy the medium here.  [default: it stays in the cache]")
@click.option("--mirror", metavar="URL", help="Debian's mirror.  [default: this host's own, or mmdebstrap's]")
@click.option("--plain", is_flag=True, help="Let the kernel talk on the console, as on Ubuntu's own ISO.")
@click.option(
    "--users",
    type=click.Choice(["first-boot", "install"]),
    default="first-boot",
    show_default=True,
    help="When the installer makes the user: as until 24.04.3, or as since 24.04.4.",
)
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@talking
def rehearsal(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Make the rehearsal medium from Debian's packages; print its path."""
    target: Path | None = given["output"]
    if target is not None:
        check_place(target, force=given["force"])
    made = rehearsal_iso(
        cache_folder(), ui, mirror=given["mirror"], quiet=not given["plain"], create_users=given["users"]
    )
    if target is not None:
        pipeline.copy_whole(made, target, ui)
    ui.result(str(target or made))


@cli.command()
@click.argument("log", metavar="FILE|FOLDER|-", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@talking
def explain(ui: Ui, *, log: Path, as_json: bool) -> None:
    """Say what a saved serial console shows: success, failure, stalled or incomplete, and why.

    Packed, recorded (.cast, typescript) and stamped logs are taken too, also those of Packer and of CI services.
    """
    verdict = explain_saved(log).to_json()
    if as_json:
        ui.result(json.dumps(verdict, indent=2))
        return
    for key in ("verdict", "phase", "cause", "reason", "hint"):
        if verdict[key]:
            ui.result(f"{key + ':':9}{verdict[key]}")
    for row in verdict["lines"] or ():
        ui.result(f"  | {row}")


@cli.command("doctor")
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), default="amd64", show_default=True)
@click.option("-o", "--output", type=FOLDER, default=Path("output"), show_default=True, help="Where images will be.")
@cli_media.MIRROR
@click.option("--offline", is_flag=True, help="Ask no server.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@talking
def doctor_command(ui: Ui, *, arch: str, output: Path, mirrors: tuple[str, ...], offline: bool, as_json: bool) -> None:
    """Say what this host can do, and name the fix for what it cannot."""
    found = doctor.examine(arch, existing_parent(output), mirrors=mirrors, offline=offline)
    ui.result(json.dumps(found, indent=2) if as_json else "\n".join(doctor.lines(found)))
    if not found["able"]:
        sys.exit(HostError.exit_code)


def _print_changes(changes: Sequence[Change], ui: Ui, *, as_json: bool) -> None:
    if as_json:
        ui.result(json.dumps([dataclasses.asdict(one) for one in changes], indent=2))
        return
    for one in changes:
        ui.result(f"{one.first}-{one.last}  {one.what}")


def name_of(path: Path) -> str:
    """Return a name for the image from the medium's volume id."""
    return re.sub(r"[^a-z0-9.]+", "-", inspect(path).volume_id.lower()).strip("-.") or "image"


def main() -> None:
    """Run the command line."""
    cli(prog_name="prebake")


if __name__ == "__main__":
    main()
