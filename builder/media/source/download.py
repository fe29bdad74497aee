"""One large file, fetched whatever the line does: cut, slow, redirected, changed half-way, killed.

What has come is kept in ``NAME.part`` as it comes, and nothing but the digest decides whether it is whole, so a
run that was killed at any byte leaves something the next one goes on from.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from builder.errors import HostError, MediumError
from builder.events import Note, Progress
from builder.media.source.piece import Piece, taken_up
from builder.media.source.web import (
    BUSY,
    HOPELESS,
    NotThere,
    Pace,
    Unreachable,
    answered,
    asked_to_wait,
    length,
    status,
    trouble,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from builder.media.source.web import Web

LARGEST = 64 << 30
"""More bytes than any ISO has: where a server tells no length, there is an end all the same."""
ENOUGH = 64 << 10
"""Bytes between two cuts that count as progress."""
RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
WHOLE, PARTIAL, RANGE_WRONG = 200, 206, 416


class ChecksumError(MediumError):
    """What came is not what was published."""


class _CutError(Exception):
    """The line was cut, or as good as cut; ``asked`` is how many seconds the server wants to be left alone."""

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


class _RefusedError(Exception):
    """This address will not give it; ``shorter`` says that it has less than what has come already."""

    def __init__(self, reason: str, *, shorter: bool = False) -> None:
        super().__init__(reason)
        self.shorter = shorter


class _ShorterError(NotThere):
    """An address has less than what has come already."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: the addresses that have it, best first, its SHA-256, and its size in bytes if it is known."""

    urls: Sequence[str]
    sha256: str
    size: int | None = None


def download(wanted: Wanted, target: Path, web: Web) -> str:
    """Fetch ``wanted`` to ``target`` and return the address it came from.

    It is written to ``target``.part and renamed when it is whole, on the disk, and has the digest that was
    published; nothing is copied. Raises ChecksumError if no address gives what was published, Unreachable if
    none can be reached, NotThere if none has it, and HostError if the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    piece = taken_up(target.with_name(f"{target.name}.part"), web.report)
    anew = Piece(target.with_name(f"{target.name}.part.whole"))
    try:
        if piece.done > (wanted.size or LARGEST):
            piece.drop()
        anew.drop()
        url = _brought(wanted, piece, anew, web)
        (anew if anew.done else piece).path.rename(target)
        for one in (piece, anew):
            one.drop()
        _sync(target.parent)
    except OSError as error:
        raise HostError(
            f"{piece.path} cannot be written: {error.strerror or error}.",
            hint="Make room and run it again: it goes on where it stopped. Or set XDG_CACHE_HOME to a larger disk.",
        ) from error
    except KeyboardInterrupt:
        web.report(Note(f"{piece.done >> 20} MiB of {target.name} are kept; the next run goes on from there."))
        raise
    return url


def _brought(wanted: Wanted, piece: Piece, anew: Piece, web: Web) -> str:
    """Return the address that makes ``piece`` whole, or gives all of ``anew``.

    What an address has that is shorter than what has come already may be a part, or a page in the place of the
    file; or what has come is wrong. So the others are asked first, and then it is fetched whole, aside: nothing
    good is thrown away for it.
    """
    problems: list[MediumError] = []
    shorter: list[str] = []
    for url in wanted.urls:
        try:
            _from(url, wanted, piece, web)
        except MediumError as error:
            problems.append(error)
            if isinstance(error, _ShorterError):
                shorter.append(url)
            if url != wanted.urls[-1]:
                web.report(Note(f"{error.message} Going on to the next server.", "warning"))
            continue
        return url
    more: list[MediumError] = []
    for url in shorter:
        web.report(Note(f"Fetching all that {url} has, to see whether it is right and what came before is wrong."))
        try:
            _from(url, wanted, anew, web)
        except MediumError as error:
            more.append(error)
            anew.drop()
            continue
        return url
    raise worst(problems if any(isinstance(one, Unreachable) for one in problems) else [*problems, *more])


def worst(problems: Sequence[MediumError]) -> MediumError:
    """Return the problem that says most: one with what came before one with getting it."""
    return next((one for one in problems if not isinstance(one, (Unreachable, NotThere))), problems[0])


def _from(url: str, wanted: Wanted, piece: Piece, web: Web) -> None:
    """Fetch from one address until it is whole; raise MediumError if that cannot be.

    Only what goes beyond all that ever came counts as progress, so a server that makes us begin anew again and
    again comes to an end.
    """
    failed, again, most, dropped = 0, False, piece.done, piece.drops
    piece.resumed = piece.done > 0  # what is there came from elsewhere, or at another time
    while True:
        try:
            whole = _once(url, wanted, piece, web)
        except _RefusedError as error:
            kind = _ShorterError if error.shorter else NotThere
            raise kind(f"{url} {error}.", hint="Look at --release and --mirror.") from error
        except HOPELESS as error:
            raise NotThere(f"{url} cannot be asked: {trouble(error)}.", hint="Look at --mirror.") from error
        except (_CutError, httpx.HTTPError) as error:
            failed = 1 if piece.done >= most + ENOUGH else failed + 1
            most = max(most, piece.done)
            if max(failed, piece.drops - dropped) >= web.patience.cuts:
                raise Unreachable(
                    f"{url} does not come through: {trouble(error)}.",
                    hint=f"{'What has come is kept: run' if piece.done else 'Run'} it again, or give another --mirror.",
                ) from error
            web.report(Note(f"{trouble(error)}; going on at {piece.done >> 20} MiB", "debug"))
            web.sleep(web.patience.wait(failed, error.asked if isinstance(error, _CutError) else None))
            continue
        if whole == wanted.sha256:
            return
        mixed = piece.resumed
        piece.drop()
        if again or not mixed:
            raise ChecksumError(
                f"{url} is not the published ISO: its SHA-256 is {whole}, SHA256SUMS says {wanted.sha256}.",
                hint="It was thrown away. A proxy or a mirror may have changed it; try again or another --mirror.",
            )
        web.report(Note("What came before does not fit the rest; fetching it whole.", "warning"))
        failed, again, most, dropped = 0, True, 0, piece.drops


def _once(url: str, wanted: Wanted, piece: Piece, web: Web) -> str:
    """Ask once for what is missing; return the SHA-256 of the whole when it has come."""
    if piece.done == wanted.size:
        return piece.finished()
    with answered(web.client, url, _asking(url, piece)) as answer:
        if answer.status_code in BUSY:
            raise _CutError(f"it answers {status(answer)}", asked_to_wait(answer))
        if answer.status_code == RANGE_WRONG and piece.done:
            if answer.headers.get("content-range") == f"bytes */{piece.done}":
                return piece.finished()
            raise _RefusedError(f"has less than the {piece.done} bytes that have come already", shorter=True)
        if answer.status_code not in {WHOLE, PARTIAL}:
            raise _RefusedError(f"answers {status(answer)}")
        if answer.headers.get("content-type", "").lower().startswith("text/html"):
            raise _RefusedError("answers with a page, not with an ISO")
        total = _agreed(answer, wanted, piece)
        _check_room(piece, total)
        piece.remember(url, answer)
        with piece.path.open("ab") as out:
            _pour(answer, out, piece, total, web)
            if total is not None and piece.done != total:
                raise _CutError(f"it ended after {piece.done} of {total} bytes")
        return piece.finished()


def _asking(url: str, piece: Piece) -> dict[str, str]:
    """Return the headers that ask for the rest only, if it is still the same file (RFC 9110, 13.1.5 and 14.2)."""
    headers = {"Accept-Encoding": "identity"}
    if piece.done:
        headers["Range"] = f"bytes={piece.done}-"
        known = piece.validator(url)
        if known is None:
            piece.resumed = True
        else:
            headers["If-Range"] = known
    return headers


def _agreed(answer: httpx.Response, wanted: Wanted, piece: Piece) -> int | None:
    """Return the whole file's size as the server tells it, and make ``piece`` fit what it is about to send."""
    if answer.status_code == PARTIAL:
        match = RANGE.fullmatch(answer.headers.get("content-range", ""))
        if not match or int(match[1]) != piece.done:
            piece.drop()
            raise _CutError("it sends another part than the one asked for")
        total = None if match[3] == "*" else int(match[3])
    else:
        total = length(answer)
    if wanted.size is not None and total is not None and total != wanted.size:
        raise _RefusedError(f"has {total} bytes, and the published ISO {wanted.size}")
    if total is not None and total > LARGEST:
        raise _RefusedError(f"has {total} bytes, more than any ISO")
    if total is not None and total < piece.done:
        reason = f"has {total} bytes, less than the {piece.done} that have come already"
        raise _RefusedError(reason, shorter=True)
    if answer.status_code == WHOLE and piece.done:
        piece.drop()
    return wanted.size if total is None else total


def _pour(answer: httpx.Response, out: BinaryIO, piece: Piece, total: int | None, web: Web) -> None:
    what = f"Fetching {piece.path.name.split('.part')[0]}"
    pace = Pace(web.patience, piece.done)
    for chunk in answer.iter_raw():
        room = (LARGEST if total is None else total) - piece.done
        if len(chunk) > room:
            piece.drop()
            raise _RefusedError(f"sends more than the {total or LARGEST} bytes it should have")
        out.write(chunk)
        out.flush()  # a killed run leaves all that came
        piece.digest.update(chunk)
        piece.done += len(chunk)
        web.report(Progress(what, piece.done, total or 0))
        pace.check(piece.done)


def _check_room(piece: Piece, total: int | None) -> None:
    missing = (total or 0) - piece.done
    free = shutil.disk_usage(piece.path.parent).free
    if free < missing:
        raise HostError(
            f"The ISO still takes {missing >> 20} MiB, and only {free >> 20} MiB are free in {piece.path.parent}.",
            hint="Make room (`prebake cache list` shows what is kept), or set XDG_CACHE_HOME to a larger disk.",
        )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
