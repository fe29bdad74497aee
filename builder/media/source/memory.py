"""What was seen under a good signature, so that nobody can turn a release back.

iso/seen.json has an entry for the ISO of each point release ("24.04.3/amd64"), for the newest of each series
("newest of 24.04/amd64"), and for what a word meant last ("newest of lts/amd64"). Whatever was asked for, all of
them count: what is older than anything seen of its series is no newest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from builder.errors import MediumError
from builder.events import Note
from builder.media.source.releases import DIGEST, VERSION, is_pinned, series_of, version_key
from builder.store import locked, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.events import Reporter


class RolledBackError(MediumError):
    """A server offers less than what was there before."""


@dataclass(frozen=True)
class Seen:
    """An ISO that was offered: its version, its SHA-256, when its list was signed (ISO 8601; empty if it was not)."""

    version: str
    sha256: str
    signed: str

    @property
    def rank(self) -> tuple[tuple[int, ...], str]:
        """What orders them: the version, then the time of signing."""
        return version_key(self.version), self.signed


def superseding(known: Mapping[str, Seen], asked: str, arch: str, one: Seen) -> Seen | None:
    """Return what was seen already that makes ``one`` a step back for who asked for ``asked``, None if nothing does.

    That is a newer point release of its series, or of what the word ``asked`` meant, unless ``asked`` names one
    point release; and another ISO of the same version, in a list that was signed later.
    """
    here = [seen for key, seen in known.items() if key.endswith(f"/{arch}")]
    rebuilt = [
        seen for seen in here if seen.version == one.version and seen.sha256 != one.sha256 and seen.signed > one.signed
    ]
    newer = []
    if not is_pinned(asked):
        newer = [seen for seen in here if series_of(seen.version) == series_of(one.version)]
        newer += [seen for key, seen in known.items() if key == f"newest of {asked}/{arch}"]
    newer = [seen for seen in newer if version_key(seen.version) > version_key(one.version)]
    return max(newer or rebuilt, key=lambda seen: seen.rank, default=None)


def added(known: Mapping[str, Seen], asked: str, arch: str, one: Seen) -> dict[str, Seen]:
    """Return what is known with ``one`` in it, offered for ``asked``; nothing in it becomes older."""
    names = [one.version, f"newest of {series_of(one.version)}"]
    if not is_pinned(asked):
        names.append(f"newest of {asked}")
    news = {}
    for name in dict.fromkeys(names):
        key = f"{name}/{arch}"
        news[key] = max(one, known.get(key, one), key=lambda seen: seen.rank)
    return {**known, **news}


class Memory:
    """The record below the cache folder ``cache``."""

    def __init__(self, cache: Path) -> None:
        self.path = cache / "iso/seen.json"
        self._lock = cache / "iso/locks/seen"

    def seen(self, report: Reporter) -> dict[str, Seen]:
        """Return what was seen; a damaged record is put aside, and a warning says so."""
        with locked(self._lock):
            return self._read(report)

    def admit(self, asked: str, arch: str, one: Seen, place: str, report: Reporter) -> None:
        """Look whether ``one``, which ``place`` offers for ``asked``, is no step back, and remember it if it is signed.

        Both is one step: of two builds at a time, neither forgets what the other saw. Raises RolledBackError.
        """
        with locked(self._lock):
            known = self._read(report)
            better = superseding(known, asked, arch, one)
            if better is not None:
                raise _rolled_back(one, better, place)
            wider = added(known, asked, arch, one) if one.signed else known
            if wider != known:
                self._write(wider)

    def _read(self, report: Reporter) -> dict[str, Seen]:
        try:
            known, whole = _understood(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError:
            known, whole = {}, False
        if not whole:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            self.path.replace(aside)
            report(
                Note(
                    f"{self.path}, the record of releases seen, is damaged: a server that turns one back may go "
                    f"unnoticed. It was put aside as {aside.name}; {len(known)} entries of it still count.",
                    "warning",
                )
            )
            self._write(known)
        return known

    def _write(self, known: Mapping[str, Seen]) -> None:
        told = {key: asdict(value) for key, value in known.items()}
        write_whole(self.path, (json.dumps(told, indent=2, sort_keys=True) + "\n").encode())


def _rolled_back(one: Seen, better: Seen, place: str) -> RolledBackError:
    if better.version != one.version:
        return RolledBackError(
            f"{place} offers {one.version} as the newest, but {better.version} has been seen already: "
            "the server is behind, or somebody turns releases back.",
            hint=f"Ask another --mirror, or pin it if you want it: --release {one.version}.",
        )
    return RolledBackError(
        f"{place} offers another ISO of {better.version} than the one seen already, in a list that was "
        f"signed earlier ({one.signed or 'not signed'}; the one seen: {better.signed}).",
        hint="Ask another --mirror.",
    )


def _understood(data: bytes) -> tuple[dict[str, Seen], bool]:
    """Return the entries of a record that are whole, and whether all are."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return {}, False
    if not isinstance(told, dict):
        return {}, False
    known = {key: seen for key, value in told.items() if (seen := _entry(value))}
    return known, len(known) == len(told)


def _entry(value: Any) -> Seen | None:  # noqa: ANN401 - whatever the record holds
    try:
        seen = Seen(**value)
        datetime.fromisoformat(seen.signed)
        fits = VERSION.fullmatch(seen.version) and DIGEST.fullmatch(seen.sha256)
    except (TypeError, ValueError):
        return None
    return seen if fits else None
