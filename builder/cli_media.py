"""The command line's part about media: which one, from where, and what is kept."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from builder import larder
from builder.cli_class import FILE
from builder.errors import MediumError, UsageError
from builder.events import Note
from builder.media.source import local, releases
from builder.media.source.acquire import Acquired, Request, acquire
from builder.media.source.catalogue import OLD, servers
from builder.media.source.catalogue import catalogue as catalogue_of
from builder.media.source.download import worst
from builder.media.source.origin import Origin
from builder.media.source.releases import Listed
from builder.media.source.shelf import Kept, Shelf
from builder.media.source.trust import Trust
from builder.media.source.web import NotThere, Unreachable, Web, open_client
from builder.rehearsal.build import rehearsal_iso
from builder.size import parse_size
from builder.store import cache_folder, shared
from builder.talk import options, talking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.ui import Ui

ARCHITECTURES = ("amd64", "arm64")
OLDEST = "22.04"
"""The first series whose media prebake can change."""

KEPT = {"leftover": "Cannot be removed:"}

MIRROR = click.option(
    "--mirror", "mirrors", multiple=True, metavar="URL", help="Ask this server instead; several are asked in turn."
)
MEDIUM = options(
    click.option("--iso", type=FILE, help="A live-server ISO you have; a SHA256SUMS beside it is heeded."),
    click.option("--sha256", metavar="HEX", help="What the --iso has to have."),
    click.option("--medium", type=click.Choice(["rehearsal"]), help="The rehearsal medium, made on the spot."),
    click.option("--release", help="Fetch its newest ISO: a series, 24.04.3, lts or latest.  [default: 24.04]"),
    click.option("--arch", type=click.Choice(ARCHITECTURES), help="The processor's.  [default: amd64]"),
    MIRROR,
    click.option("--cached", is_flag=True, help="Ask no server; use what was fetched before."),
    click.option("--signing-key", type=FILE, help="Ubuntu's CD image signing key.  [default: the host's keyring]"),
    click.option("--insecure-skip-signature", is_flag=True, help="Take an ISO that nothing proves to be Ubuntu's."),
)


@contextmanager
def medium_of(given: dict[str, Any], ui: Ui) -> Iterator[Acquired]:
    """Provide the ISO that the options name: one at hand, the rehearsal medium, or one fetched now."""
    digest = None if given["sha256"] is None else local.check_digest(given["sha256"])
    if given["iso"] is not None:
        if given["medium"] is not None:
            raise UsageError("--iso and --medium exclude each other.", hint="Give one of them.")
        path: Path = given["iso"]
        if not path.exists():
            raise MediumError(f"There is no ISO at `{path}`.", hint="Look at the path; without --iso one is fetched.")
        yield Acquired(path, local.examine(path, trust_of(given), ui, sha256=digest))
    elif digest is not None:
        raise UsageError(
            "--sha256 goes with --iso.", hint="What is fetched is compared with Ubuntu's own SHA256SUMS anyway."
        )
    elif given["medium"] == "rehearsal":
        mirror = next(iter(given["mirrors"]), None)
        path = rehearsal_iso(cache_folder(), ui, mirror=mirror)
        with shared(cache_folder() / "rehearsal/locks" / f"{path.name}.use"):
            yield Acquired(path, Origin())
    else:
        with acquire(request_of(given), cache_folder(), ui) as acquired:
            yield acquired


def trust_of(given: dict[str, Any]) -> Trust:
    """Return whom the options believe."""
    return Trust(cache_folder(), given.get("signing_key"), skip=bool(given.get("insecure_skip_signature")))


def request_of(given: dict[str, Any]) -> Request:
    """Return what the options want fetched."""
    return Request(given["release"], given["arch"], trust_of(given), given["mirrors"], cached=given["cached"])


@click.command("releases")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="Only this one.  [default: both]")
@MIRROR
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@talking
def releases_command(ui: Ui, *, arch: str | None, mirrors: tuple[str, ...], as_json: bool) -> None:
    """Show which releases there are, the newest point release of each, and what is kept here."""
    kept = Shelf(cache_folder()).all()
    try:
        with open_client() as client:
            found = _listed((arch,) if arch else ARCHITECTURES, mirrors, Web(client, ui))
    except (NotThere, Unreachable) as error:
        found = [_as_listed(one) for one in kept if arch in {None, one.arch}]
        if not found:
            raise
        ui(Note(f"{error.message} Showing only what is kept here.", "warning"))
    there = {(one.version, one.arch) for one in kept}
    found.sort(key=lambda one: (releases.version_key(one.series), one.arch))
    if as_json:
        rows = [
            {
                **dataclasses.asdict(one),
                "lts": releases.is_lts(one.series),
                "cached": (one.version, one.arch) in there,
                "supported": _supported(one),
            }
            for one in found
        ]
        ui.result(json.dumps(rows, indent=2))
        return
    ui.result(f"{'SERIES':8}{'NEWEST':14}{'ARCH':8}{'SIZE':>10}  KEPT HERE")
    for one in found:
        size = f"{one.size / 1e6:.0f} MB" if one.size else "?"
        here = "yes" if (one.version, one.arch) in there else "no"
        remark = "" if _supported(one) else f"  too old: from {OLDEST} on"
        ui.result(f"{one.series:8}{one.title:14}{one.arch:8}{size:>10}  {here}{remark}")


def _supported(one: Listed) -> bool:
    return releases.version_key(one.series) >= releases.version_key(OLDEST)


def _as_listed(one: Kept) -> Listed:
    size = one.path.stat().st_size
    return Listed(releases.series_of(one.version), one.version, one.arch, one.path.name, "", size, one.sha256)


def _listed(architectures: Sequence[str], mirrors: Sequence[str], web: Web) -> list[Listed]:
    """Return what the servers show; Ubuntu's old releases are listed only if they are asked for as a mirror.

    A mirror may have one architecture only; raises NotThere or Unreachable if no server shows anything.
    """
    problems: list[MediumError] = []
    down: set[str] = set()
    found: dict[tuple[str, str], Listed] = {}
    for arch, server in ((each, server) for each in architectures for server in servers(each, mirrors)):
        if (server == OLD and not mirrors) or server in down:
            continue
        try:
            shown = catalogue_of(server, arch, web)
        except (Unreachable, NotThere) as error:
            problems.append(error)
            down |= {server} if isinstance(error, Unreachable) else set()
            continue
        for one in shown:
            old = found.get((one.series, arch))
            if old is None or releases.version_key(one.version) > releases.version_key(old.version):
                found[one.series, arch] = one
    if not found:
        raise worst(problems)
    for problem in problems:
        if isinstance(problem, Unreachable):
            web.report(Note(problem.message, "warning"))
    return list(found.values())


@click.group("cache")
def cache_group() -> None:
    """Show what is kept to be used again, and prune it."""


@cache_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@talking
def cache_list(ui: Ui, *, as_json: bool) -> None:
    """Show what is kept, how large it is and when it was last used; and what killed runs have left elsewhere."""
    items = larder.contents(cache_folder())
    if as_json:
        rows = [{**_row(item), "superseded": item.superseded} for item in items]
        ui.result(json.dumps({"folder": str(cache_folder()), "items": rows}, indent=2))
        return
    for item in items:
        remark = "  superseded" if item.superseded and item.kind not in {"part", "leftover"} else ""
        name = str(item.path) if item.kind == "leftover" else item.name
        day = time.strftime("%Y-%m-%d", time.localtime(item.used))
        ui.result(f"{item.kind:10}{item.size / 1e6:>9.1f} MB  {day}  {name}  {item.detail}{remark}".rstrip())
    ui.say(f"{sum(item.size for item in items) / 1e6:.1f} MB in {cache_folder()}")


@cache_group.command("prune")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="What was not used for so long.")
@click.option("--max-size", metavar="SIZE", help="What was used longest ago, until this much is left, as in 20G.")
@click.option("--all", "everything", is_flag=True, help="Everything but keys.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@talking
def cache_prune(ui: Ui, **given: Any) -> None:  # noqa: ANN401 - what click parsed
    """Remove what is superseded, half-fetched or left by killed runs, or what the options name; what is used stays."""
    most = None if given["max_size"] is None else parse_size(given["max_size"])
    items = larder.contents(cache_folder())
    going = larder.chosen(items, everything=given["everything"], days=given["older_than"], most=most)
    rows: list[dict[str, Any]] = []

    def tell(item: larder.Item, gone: bool) -> None:
        rows.append({**_row(item), "removed": gone})
        if not given["as_json"]:
            verb = ("Would remove" if given["dry_run"] else "Removed") if gone else KEPT.get(item.kind, "In use, kept:")
            name = str(item.path) if item.kind == "leftover" else item.name
            ui.result(f"{verb} {name} ({item.size / 1e6:.1f} MB)")

    if given["dry_run"]:
        for item in going:
            tell(item, True)  # noqa: FBT003 - as above
    else:
        larder.prune(going, tell)
    if given["as_json"]:
        ui.result(json.dumps(rows, indent=2))
    else:
        ui.say(f"{sum(row['size'] for row in rows if row['removed']) / 1e6:.1f} MB")


def _row(item: larder.Item) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "name": item.name,
        "path": str(item.path),
        "size": item.size,
        "used": item.used,
        "detail": item.detail or None,
    }
