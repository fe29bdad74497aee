"""One large file, fetched whatever the line does: cut, slow, redirected, changed half-way, killed.

What has come is kept in ``NAME.part`` as it comes, and nothing but the digest decides whether it is whole, so a
run that was killed at any byte leaves something the next one goes on from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from builder.errors import HostError, MediumError
from builder.events import Note, Progress
from builder.media.source.web import BUSY, HOPELESS, NotThere, Unreachable, asked_to_wait, status, trouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from builder.events import Reporter
    from builder.media.source.web import Web

CHUNK = 1 << 20
LARGEST = 64 << 30
"""More bytes than any ISO has: where a server tells no length, there is an end all the same."""
ENOUGH = 64 << 10
"""Bytes between two cuts that count as progress."""
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
WHOLE, PARTIAL, RANGE_WRONG = 200, 206, 416


class ChecksumError(MediumError):
    """What came is not what was published."""


class _CutError(Exception):
    """The line was cut, or as good as cut; ``asked`` is how many seconds the server wants to be left alone."""

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


class _RefusedError(Exception):
    """This address will not give it."""


@dataclass
class _Piece:
    """What has come so far."""

    path: Path
    done: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    resumed: bool = False

    @property
    def note(self) -> Path:
        """Where it is written which version of which address this is a part of."""
        return self.path.with_name(f"{self.path.name}.json")

    def drop(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.done, self.digest, self.resumed = 0, hashlib.sha256(), False


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
    problems: list[MediumError] = []
    piece = _taken_up(target.with_name(f"{target.name}.part"), web.report)
    try:
        for url in wanted.urls:
            try:
                _from(url, wanted, piece, web)
            except MediumError as error:
                problems.append(error)
                if url != wanted.urls[-1]:
                    web.report(Note(f"{error.message} Going on to the next server.", "warning"))
                continue
            piece.path.rename(target)
            piece.note.unlink(missing_ok=True)
            _sync(target.parent)
            return url
    except OSError as error:
        raise HostError(
            f"{piece.path} cannot be written: {error.strerror or error}.",
            hint="Make room and run it again: it goes on where it stopped. Or set XDG_CACHE_HOME to a larger disk.",
        ) from error
    except KeyboardInterrupt:
        web.report(Note(f"{piece.done >> 20} MiB of {target.name} are kept; the next run goes on from there."))
        raise
    raise worst(problems)


def worst(problems: Sequence[MediumError]) -> MediumError:
    """Return the problem that says most: one with what came before one with getting it."""
    return next((one for one in problems if not isinstance(one, (Unreachable, NotThere))), problems[0])


def _taken_up(path: Path, report: Reporter) -> _Piece:
    """Return what an earlier run has left, with its digest so far."""
    piece = _Piece(path)
    if not path.exists():
        return piece
    size = path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            piece.digest.update(chunk)
            piece.done += len(chunk)
            report(Progress("Reading what is there already", piece.done, size))
    piece.resumed = piece.done > 0
    return piece


def _from(url: str, wanted: Wanted, piece: _Piece, web: Web) -> None:
    """Fetch from one address until it is whole; raise MediumError if that cannot be."""
    failed, anew = 0, False
    while True:
        before = piece.done
        try:
            whole = _once(url, wanted, piece, web)
        except _RefusedError as error:
            raise NotThere(f"{url} {error}.", hint="Look at --release and --mirror.") from error
        except HOPELESS as error:
            raise NotThere(f"{url} cannot be asked: {trouble(error)}.", hint="Look at --mirror.") from error
        except (_CutError, httpx.HTTPError) as error:
            failed = 1 if piece.done >= before + ENOUGH else failed + 1
            if failed >= web.patience.cuts:
                raise Unreachable(
                    f"{url} does not come through: {trouble(error)}.",
                    hint=f"{'What has come is kept: run' if piece.done else 'Run'} it again, or give another --mirror.",
                ) from error
            web.report(Note(f"{trouble(error)}; going on at {piece.done >> 20} MiB", "debug"))
            web.sleep(web.patience.wait(failed, error.asked if isinstance(error, _CutError) else None))
            continue
        if whole == wanted.sha256:
            return
        again = piece.resumed and not anew
        piece.drop()
        if not again:
            raise ChecksumError(
                f"{url} is not the published ISO: its SHA-256 is {whole}, SHA256SUMS says {wanted.sha256}.",
                hint="It was thrown away. A proxy or a mirror may have changed it; try again or another --mirror.",
            )
        web.report(Note("What was left of an earlier download does not fit; fetching it whole.", "warning"))
        anew = True


def _once(url: str, wanted: Wanted, piece: _Piece, web: Web) -> str:
    """Ask once for what is missing; return the SHA-256 of the whole when it has come."""
    if piece.done == wanted.size:
        return _finished(piece)
    with web.client.stream("GET", url, headers=_asking(url, piece)) as answer:
        if answer.status_code in BUSY:
            raise _CutError(f"it answers {status(answer)}", asked_to_wait(answer))
        if answer.status_code == RANGE_WRONG and piece.done:
            if answer.headers.get("content-range") == f"bytes */{piece.done}":
                return _finished(piece)
            piece.drop()
            raise _CutError("it has less than what was fetched before")
        if answer.status_code not in {WHOLE, PARTIAL}:
            raise _RefusedError(f"answers {status(answer)}")
        total = _agreed(answer, wanted, piece)
        _check_room(piece, total)
        _remember(url, answer, piece)
        with piece.path.open("ab") as out:
            _pour(answer, out, piece, total, web)
            if total is not None and piece.done != total:
                raise _CutError(f"it ended after {piece.done} of {total} bytes")
            out.flush()
            os.fsync(out.fileno())
    return piece.digest.hexdigest()


def _finished(piece: _Piece) -> str:
    with piece.path.open("ab") as out:
        os.fsync(out.fileno())
    return piece.digest.hexdigest()


def _asking(url: str, piece: _Piece) -> dict[str, str]:
    """Return the headers that ask for the rest only, if it is still the same file (RFC 9110, 13.1.5 and 14.2)."""
    headers = {"Accept-Encoding": "identity"}
    if piece.done:
        headers["Range"] = f"bytes={piece.done}-"
        try:
            told = json.loads(piece.note.read_text())
            known = told["validator"] if told["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            known = None
        if isinstance(known, str):
            headers["If-Range"] = known
    return headers


def _agreed(answer: httpx.Response, wanted: Wanted, piece: _Piece) -> int | None:
    """Return the whole file's size as the server tells it, and make ``piece`` fit what it is about to send."""
    if answer.status_code == PARTIAL:
        match = RANGE.fullmatch(answer.headers.get("content-range", ""))
        if not match or int(match[1]) != piece.done:
            piece.drop()
            raise _CutError("it sends another part than the one asked for")
        total = None if match[3] == "*" else int(match[3])
    else:
        if piece.done:
            piece.drop()
        length = answer.headers.get("content-length", "")
        total = int(length) if length.isascii() and length.isdigit() else None
    if wanted.size is not None and total is not None and total != wanted.size:
        piece.drop()
        raise _RefusedError(f"has {total} bytes, and the published ISO {wanted.size}")
    return wanted.size if total is None else total


def _remember(url: str, answer: httpx.Response, piece: _Piece) -> None:
    """Write down which version of which file the part is of, before its first byte."""
    etag = answer.headers.get("etag", "")
    strong = etag if etag.startswith('"') else None  # a weak one says nothing of bytes (RFC 9110, 8.8.1)
    aside = piece.note.with_name(f"{piece.note.name}.new")
    aside.write_text(json.dumps({"url": url, "validator": strong or answer.headers.get("last-modified")}))
    aside.replace(piece.note)


def _pour(answer: httpx.Response, out: BinaryIO, piece: _Piece, total: int | None, web: Web) -> None:
    what = f"Fetching {piece.path.name.removesuffix('.part')}"
    since, level = time.monotonic(), piece.done
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
        now = time.monotonic()
        if now - since >= web.patience.window:
            if piece.done - level < web.patience.slowest * (now - since):
                raise _CutError(f"it sends less than {web.patience.slowest} bytes a second")
            since, level = now, piece.done


def _check_room(piece: _Piece, total: int | None) -> None:
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
