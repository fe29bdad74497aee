"""Do Ubuntu's servers answer? Those that a build asks, in the way in which it asks them, and briefly."""

from __future__ import annotations

import queue
import socket
import ssl
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from builder import reach
from builder.autoinstall.network import without_credentials
from builder.errors import MediumError
from builder.events import silent
from builder.media.source.catalogue import OLD, places, servers
from builder.media.source.trust import KEY_SERVERS, Trust
from builder.media.source.web import PLAIN, answered, open_client
from builder.media.source.web import trouble as said
from builder.store import cache_folder
from builder.vm.kvm import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RELEASE = "24.04"
"""Whose list is asked for: the release that is fetched where none is named."""
SECONDS = 5.0
"""How long a server may take to answer, all in all."""
LATE = f"no answer within {SECONDS:g} seconds"
LOCAL = "`--iso FILE` takes an ISO you have, without any network"
KEY = "install the package ubuntu-keyring, or give the key: `--signing-key FILE`"
PROXY = "if this network has a proxy, `export HTTPS_PROXY=http://HOST:PORT HTTP_PROXY=http://HOST:PORT`"
GUEST = "name a mirror (`mirror:` in the class) or a proxy (`--proxy URL`) that the guest reaches, or use `--offline`"
GONE = frozenset({httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN})
"""Answers of a server that is there and has something else."""


@dataclass(frozen=True)
class Answer:
    """A server, what it is needed for, and why it is of no use, if it is not."""

    server: str
    purpose: str
    trouble: Trouble | None


@dataclass(frozen=True)
class _Question:
    server: str
    purpose: str
    ask: Callable[[], Trouble | None]
    way: str = f"{PROXY}; {LOCAL}"


def look(arch: str, mirrors: Sequence[str] = (), trust: Trust | None = None) -> list[Answer]:
    """Ask the servers that a build for ``arch`` asks, all at once; ``mirrors`` replace Ubuntu's releases.

    This host's proxies are heeded, but not for the archive of packages: the guest asks that one, and does not know
    them. The servers of keys are asked only where the key that ``trust`` believes in is not at hand. It is over after
    SECONDS.
    """
    questions = list(_questions(arch, mirrors, trust or Trust(cache_folder())))
    heard: queue.SimpleQueue[tuple[int, Trouble | None]] = queue.SimpleQueue()

    def put(place: int, question: _Question) -> None:
        heard.put((place, question.ask()))

    with suppress(MediumError):
        open_client().close()  # reads who vouches for servers, once, before the clock runs
    for place, question in enumerate(questions):
        threading.Thread(target=put, args=(place, question), daemon=True).start()  # a look-up cannot be cut short
    answers: dict[int, Trouble | None] = {}
    end = time.monotonic() + SECONDS
    while len(answers) < len(questions):
        try:
            place, trouble = heard.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        answers[place] = trouble
    return [
        Answer(one.server, one.purpose, answers[place] if place in answers else Trouble(LATE, one.way))
        for place, one in enumerate(questions)
    ]


def _questions(arch: str, mirrors: Sequence[str], trust: Trust) -> Iterator[_Question]:
    for base in servers(arch, mirrors):
        root = base.split("{release}", maxsplit=1)[0].rstrip("/")
        urls = [f"{place}/SHA256SUMS" for place in places(base, arch, RELEASE)]
        purpose = "old point releases" if base == OLD else "the ISO"
        urls = [f"{root}/"] if base == OLD else [*urls, f"{root}/"]
        yield _Question(without_credentials(base), purpose, partial(_ask, urls, LOCAL))
    if not _has_key(trust):
        for template in KEY_SERVERS:
            url = template.replace("{fingerprint}", trust.pin)
            name = "{0.scheme}://{0.netloc}".format(urlsplit(url))
            yield _Question(name, "the key that proves the ISO", partial(_ask, [url], KEY), f"{PROXY}; {KEY}")
    archive = reach.ARCHIVES[arch]
    yield _Question(archive, "packages, asked for as the guest does", partial(_ask_archive, archive), GUEST)


def _has_key(trust: Trust) -> bool:
    try:
        trust.key(None, silent)
    except MediumError:
        return False
    return True


def _ask(urls: Sequence[str], without: str) -> Trouble | None:
    """Ask for one after the other until one is there; say what is wrong if none is.

    ``without`` says what else helps, without this server.
    """
    found: Trouble | None = None
    try:
        with open_client(httpx.Timeout(SECONDS)) as client:
            for url in urls:
                try:
                    with answered(client, url, PLAIN) as answer:
                        status = answer.status_code
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    return _explain(error, url, without)
                if status < httpx.codes.BAD_REQUEST:
                    return None
                found = _explain_status(status, without)
                if status not in GONE:
                    break
    except MediumError as error:  # a proxy's address that is none
        return Trouble(error.message.rstrip("."), str(error.hint).rstrip("."))
    return found


def _ask_archive(archive: str) -> Trouble | None:
    words = reach.unreachable(archive, seconds=SECONDS)
    return None if words is None else Trouble(words, GUEST)


def _explain_status(status: int, without: str) -> Trouble:
    words = f"it answers {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return Trouble(
            words, f"give the proxy a name and a password: `HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT`; {without}"
        )
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Trouble(
            words, f"the server is in trouble, or a proxy before it: try again later, or `--mirror URL`; {without}"
        )
    return Trouble(words, f"is it a server of Ubuntu's releases? Look at `--mirror` and at the proxy; {without}")


def _explain(error: Exception, url: str, without: str) -> Trouble:
    """Say what an error on the way means: a proxy's, of names, of certificates, of a closed door, or of time."""
    host, proxy = urlsplit(url).hostname or url, _proxy(url)
    chain = list(_chain(error))
    words = without_credentials(said(error))
    if isinstance(error, (httpx.ProxyError, httpx.UnsupportedProtocol)) or (
        proxy and any(isinstance(one, (socket.gaierror, ConnectionRefusedError)) for one in chain)
    ):
        way = f"mend HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, or take {host} out with NO_PROXY={host}"
        named = f" {without_credentials(proxy)}" if proxy else ""
        return Trouble(f"the proxy{named} gives no way there: {words}", f"{way}; {without}")
    if any(isinstance(one, socket.gaierror) for one in chain):
        how = "`scutil --dns`" if sys.platform == "darwin" else "`resolvectl status`, /etc/resolv.conf"
        return Trouble(f"the name {host} is not known here: {words}", f"look at the DNS ({how}); {PROXY}; {without}")
    certificates = [one for one in chain if isinstance(one, ssl.SSLError)]
    if certificates:
        way = "is the clock right (`date`)? If this network opens TLS, name its authority: `export SSL_CERT_FILE=FILE`"
        return Trouble(f"TLS fails: {words}", f"{way}; {without}")
    if any(isinstance(one, ConnectionRefusedError) for one in chain):
        return Trouble(f"the connection is refused: {words}", f"a firewall may be in the way; {PROXY}; {without}")
    if isinstance(error, httpx.TimeoutException):
        words = LATE
    return Trouble(words, f"look at the network; {PROXY}; {without}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _proxy(url: str) -> str | None:
    """Return the proxy that this host's environment names for an address."""
    parts = urlsplit(url)
    named = urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return named.get(parts.scheme) or named.get("all")
