"""From what somebody wants, "24.04", to the genuine ISO on this host's shelf."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from builder.errors import MediumError
from builder.events import Note
from builder.media.source import releases
from builder.media.source.catalogue import OLD, catalogue, places, servers
from builder.media.source.download import Wanted, download, worst
from builder.media.source.memory import Seen, superseding
from builder.media.source.origin import Origin
from builder.media.source.shelf import Kept, Shelf, digest_of
from builder.media.source.web import NotThere, Patience, Unreachable, Web, open_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.events import Reporter
    from builder.media.source.releases import Published
    from builder.media.source.signature import Signature
    from builder.media.source.trust import Trust


@dataclass(frozen=True)
class Request:
    """What is wanted, and whom to ask and believe.

    ``release`` is a series, a point release, a code name, "lts" or "latest"; ``mirrors`` replace Ubuntu's
    servers; with ``cached`` no server is asked at all.
    """

    release: str
    arch: str
    trust: Trust
    mirrors: Sequence[str] = ()
    cached: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Acquired:
    """An ISO at hand, and where it came from."""

    path: Path
    origin: Origin


@dataclass(frozen=True)
class Offer:
    """What a server offers, proven: the ISO, the address of its folder, the list it is in, and its signature.

    ``size`` in bytes is the catalogue's word, None if it was not asked or says nothing of this ISO.
    """

    iso: Published
    place: str
    sums: bytes
    proof: bytes | None
    signature: Signature | None
    size: int | None = None

    @property
    def signed(self) -> str | None:
        """When its list was signed, in ISO 8601."""
        return self.signature.made.isoformat() if self.signature else None


@contextmanager
def acquire(request: Request, cache: Path, report: Reporter) -> Iterator[Acquired]:
    """Provide the newest genuine ISO of what ``request`` names; while it is used it is not pruned.

    It is fetched if it is not on the shelf; what is there is read and compared with the published SHA-256. Where
    no server can be reached, the newest one kept is proven again from what is kept beside it, and a warning says
    so: not if a server has proven what is the newest and only does not give it, and nothing older than what was
    ever seen.

    Raises MediumError (in its subclasses: unsigned or wrongly signed, rolled back, not there, unreachable, another
    checksum) and HostError if the disk is full.
    """
    releases.check_release(request.release)
    shelf = Shelf(cache)
    if request.trust.skip:
        report(Note("The signature of SHA256SUMS is not checked: this ISO is not proven to be Ubuntu's.", "warning"))
    with ExitStack() as use:
        kept = _from_shelf(request, shelf, use, report) if request.cached else _asked_for(request, shelf, use, report)
        if kept is None:
            raise MediumError(
                f"No proven ISO of {request.release} for {request.arch} is kept in {shelf.folder}.",
                hint="`prebake cache list` shows what is; without --cached it is fetched.",
            )
        report(Note(f"Medium: {kept.path}"))
        yield Acquired(kept.path, kept.origin)


def _asked_for(request: Request, shelf: Shelf, use: ExitStack, report: Reporter) -> Kept:
    with open_client() as client:
        web = Web(client, report, request.patience)
        try:
            offer = _found(request, shelf, web)
        except Unreachable as error:
            report(Note(f"{error.message} Looking for one fetched before.", "warning"))
            kept = _from_shelf(request, shelf, use, report)
            if kept is None:
                raise
            return kept
        return _brought(offer, request, shelf, use, web)


def _found(request: Request, shelf: Shelf, web: Web) -> Offer:
    """Return the first server's offer that is proven; raise what says most of why there is none."""
    problems: list[MediumError] = []
    bases = servers(request.arch, request.mirrors)
    for base in bases:
        if base == OLD and not request.mirrors and (request.release in releases.WORDS or not _all_not_there(problems)):
            continue  # it would offer an old one where a newer is only out of reach
        try:
            offer = _offered(base, request, web)
            one = Seen(offer.iso.version, offer.iso.sha256, offer.signed or "")
            shelf.memory.admit(request.release, request.arch, one, offer.place, web.report)
        except MediumError as error:
            problems.append(error)
            if base != bases[-1] and not isinstance(error, NotThere):
                web.report(Note(f"{error.message} Going on to the next server.", "warning"))
            continue
        return offer
    raise _summed_up(problems, request)


def _offered(base: str, request: Request, web: Web) -> Offer:
    release = request.release
    sizes: dict[str | None, int | None] = {}
    if not releases.RELEASE.fullmatch(release):
        release, sizes = _series(base, request, web)
        web.report(Note(f"{request.release} is {release}"))
    series = releases.series_of(release)
    tried = []
    for name in dict.fromkeys((release, series)):
        for place in places(base, request.arch, name):
            try:
                sums = web.get(f"{place}/SHA256SUMS")
                iso = releases.newest(sums.decode("utf-8", "replace"), release, request.arch)
            except Unreachable:
                raise
            except MediumError as error:
                tried.append(error.message if isinstance(error, NotThere) else f"{place}: {error.message}")
                continue
            proof = _beside(f"{place}/SHA256SUMS.gpg", request, web)
            signature = request.trust.proven(sums, proof, web, web.report)
            return Offer(iso, place, sums, proof, signature, sizes.get(iso.sha256))
    raise NotThere(
        f"{base} has no live-server ISO of {release} for {request.arch}: {tried[0]}",
        hint="`prebake releases` shows what there is; --iso FILE takes an ISO you have.",
    )


def _series(base: str, request: Request, web: Web) -> tuple[str, dict[str | None, int | None]]:
    """Return the series that a word stands for on a server, and the sizes of its ISOs by SHA-256, if it tells them.

    A code name may also be that of a folder there. Ubuntu's old releases are many, and their folders have code
    names: what has none is not looked for in all the others.
    """
    word = request.release
    try:
        if base == OLD and word not in releases.WORDS:
            raise NotThere(f"{base} has no release called `{word}`.", hint="`prebake releases` shows what there is.")
        listed = catalogue(base, request.arch, web)
        return releases.choose(word, request.arch, listed), {one.sha256: one.size for one in listed}
    except Unreachable:
        raise
    except MediumError as error:
        for place in () if word in releases.WORDS else places(base, request.arch, word)[:2]:
            with suppress(NotThere):
                there = releases.published(web.get(f"{place}/SHA256SUMS").decode("utf-8", "replace"))
                found = [one.version for one in there if one.arch == request.arch]
                if found:
                    return releases.series_of(max(found, key=releases.version_key)), {}
        raise NotThere(error.message, hint=error.hint) from error


def _beside(url: str, request: Request, web: Web) -> bytes | None:
    if request.trust.skip:
        return None
    try:
        return web.get(url)
    except NotThere:
        return None


def _summed_up(problems: Sequence[MediumError], request: Request) -> MediumError:
    """Return the error for all servers: what was wrong with one that answered says more than that one did not."""
    said = worst(problems)
    if isinstance(said, NotThere) and any(isinstance(one, Unreachable) for one in problems):
        return next(one for one in problems if isinstance(one, Unreachable))
    if _all_not_there(problems):
        places_tried = " ".join(one.message for one in problems)
        return NotThere(
            f"No live-server ISO of {request.release} for {request.arch} was found. {places_tried}", hint=said.hint
        )
    return said


def _all_not_there(problems: Sequence[MediumError]) -> bool:
    return all(isinstance(one, NotThere) for one in problems)


def _brought(offer: Offer, request: Request, shelf: Shelf, use: ExitStack, web: Web) -> Kept:
    """Return the offered ISO on the shelf, in use: checked if it is there, fetched if it is not."""
    iso = offer.iso
    path = shelf.place(iso.sha256, iso.name)
    with shelf.fetching(iso.sha256, web.report):
        old = shelf.get(iso.sha256)
        origin = old.origin if old else None
        if path.is_file() and not _whole(path, iso.sha256, web.report):
            web.report(Note(f"{path} is damaged; it is fetched again.", "warning"))
            path.unlink()
            origin = None
        if not path.is_file():
            url = download(Wanted(_addresses(offer, request), iso.sha256, offer.size), path, web)
            origin = Origin(url=url)
        state = "verified" if offer.signature else "skipped"
        key = offer.signature.fingerprint if offer.signature else None
        url_then = origin.url if origin else f"{offer.place}/{iso.name}"
        kept = Kept(path, iso.version, iso.arch, iso.sha256, Origin(state, iso.sha256, url_then, key, offer.signed))
        if offer.signature or old is None:
            shelf.put(kept, (offer.sums, offer.proof))
        use.enter_context(shelf.using(iso.sha256))
        return kept


def _addresses(offer: Offer, request: Request) -> list[str]:
    """Return where the ISO may be had: where its list was, and the same file on the other servers."""
    found = [f"{offer.place}/{offer.iso.name}"]
    names = dict.fromkeys((offer.iso.version, releases.series_of(offer.iso.version)))
    for base in servers(request.arch, request.mirrors):
        found += [f"{place}/{offer.iso.name}" for name in names for place in places(base, request.arch, name)[:2]]
    return list(dict.fromkeys(found))


def _whole(path: Path, sha256: str, report: Reporter) -> bool:
    return digest_of(path, report, f"Checking {path.name}") == sha256


def _from_shelf(request: Request, shelf: Shelf, use: ExitStack, report: Reporter) -> Kept | None:
    """Return the newest kept ISO that fits and is still proven, in use, without asking any server."""

    def fits(kept: Kept) -> bool:
        series = releases.series_of(kept.version)
        named = request.release in {kept.version, series, "latest"}
        return kept.arch == request.arch and (named or (request.release == "lts" and releases.is_lts(series)))

    known = shelf.memory.seen(report)
    for kept in sorted(filter(fits, shelf.all()), key=lambda one: releases.version_key(one.version), reverse=True):
        with ExitStack() as hold:
            hold.enter_context(shelf.using(kept.sha256))
            try:
                origin = _proven_again(kept, request, known, report)
            except MediumError as error:
                report(Note(f"{kept.path} is kept, but not used: {error.message}", "warning"))
                continue
            use.push(hold.pop_all())
            report(Note(f"Using {kept.path.name}, fetched before.", "warning"))
            return replace(kept, origin=origin)
    return None


def _proven_again(kept: Kept, request: Request, known: Mapping[str, Seen], report: Reporter) -> Origin:
    """Return what a kept ISO's origin is by what lies beside it now; raise MediumError if it does not count."""
    origin = Origin("skipped", kept.sha256, kept.origin.url)
    if not request.trust.skip:
        sums, proof = kept.proof()
        listed = releases.published(sums.decode("utf-8", "replace"))
        if (kept.sha256, kept.version, kept.arch) not in {(one.sha256, one.version, one.arch) for one in listed}:
            raise MediumError("no SHA256SUMS beside it lists it.")
        signature = request.trust.proven(sums, proof, None, report)
        if signature is not None:
            made = signature.made.isoformat()
            origin = replace(origin, signature="verified", key=signature.fingerprint, signed=made)
    one = Seen(kept.version, kept.sha256, origin.signed or "")
    better = superseding(known, request.release, request.arch, one)
    if better is not None and better.version == kept.version:
        raise MediumError("another ISO of it, in a list that was signed later, has been seen already.")
    if better is not None:
        raise MediumError(f"{better.version} has been seen already; --release {kept.version} takes it.")
    if not _whole(kept.path, kept.sha256, report):
        raise MediumError("it is damaged.")
    return origin
