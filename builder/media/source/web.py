"""Asking a web server: small answers whole, with patience, and never more than was agreed."""

from __future__ import annotations

import functools
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from builder.errors import MediumError
from builder.events import Note

if TYPE_CHECKING:
    import ssl

    from builder.events import Reporter

LARGEST = 16 << 20
"""Bytes in a list or a signature; the largest real one, the catalogue, has about one megabyte."""
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
PLAIN = {"Accept-Encoding": "identity"}
"""What is asked for is read as it comes: packed, a small answer could hide a large one, or one without an end."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which asking again may help."""
LENGTH = re.compile(r"\d{1,18}", re.ASCII)
HOPELESS = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects)
"""What asking again does not mend."""
LONGEST_ASKED = 120.0
"""How many seconds of a server's Retry-After are waited."""


class Unreachable(MediumError):  # noqa: N818 - a server is
    """A server does not answer, or only with errors of its own."""


class NotThere(MediumError):  # noqa: N818 - a file is
    """A server does not have it, or does not give it."""


@dataclass(frozen=True)
class Patience:
    """How long to try: times in a row without progress, and seconds of waiting that double from time to time.

    ``tries`` is for small answers, ``cuts`` for a download. Fewer than ``slowest`` bytes a second, over ``window``
    seconds, count as a cut connection.
    """

    tries: int = 3
    cuts: int = 6
    first: float = 0.5
    longest: float = 30.0
    slowest: int = 1024
    window: float = 60.0

    def wait(self, failed: int, asked: float | None = None) -> float:
        """Return how many seconds to wait after ``failed`` failures; ``asked`` is what the server asked for."""
        if asked is not None:
            return min(asked, LONGEST_ASKED)
        spread: float = random.uniform(0.75, 1.25)  # noqa: S311 - so that many builds do not come back at once
        return min(self.first * 2.0 ** (failed - 1), self.longest) * spread


class TooSlowError(httpx.TransportError):
    """So little comes that the line is as good as cut."""


class Pace:
    """Whether bytes come fast enough, looked at once in a window of ``patience``."""

    def __init__(self, patience: Patience, done: int = 0) -> None:
        self._patience = patience
        self._since, self._level = time.monotonic(), done

    def check(self, done: int) -> None:
        """Take note that ``done`` bytes are there. Raises TooSlowError."""
        passed = time.monotonic() - self._since
        if passed < self._patience.window:
            return
        if done - self._level < self._patience.slowest * passed:
            raise TooSlowError(f"it sends less than {self._patience.slowest} bytes a second")
        self._since, self._level = self._since + passed, done


Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Web:
    """A way to the web: the client, who is told, the patience, and how to wait."""

    client: httpx.Client
    report: Reporter
    patience: Patience = Patience()
    sleep: Sleep = time.sleep

    def get(self, url: str) -> bytes:
        """Return what ``url`` answers. Raises NotThere, or Unreachable after several tries."""
        failed = 0
        while True:
            asked: float | None = None
            try:
                with answered(self.client, url, PLAIN) as answer:
                    if answer.status_code in BUSY:
                        asked = asked_to_wait(answer)
                        reason = f"answers {status(answer)}"
                    else:
                        return self._body(answer, url)
            except HOPELESS as error:
                raise NotThere(f"{url} cannot be asked: {trouble(error)}.", hint="Look at --mirror.") from error
            except httpx.HTTPError as error:
                reason = trouble(error)
            failed += 1
            if failed >= self.patience.tries:
                raise Unreachable(
                    f"{url} cannot be reached: {reason}.",
                    hint="Is there a way to the Internet (HTTPS_PROXY)? --iso FILE takes an ISO you have.",
                )
            self.report(Note(f"{url}: {reason}; trying again", "debug"))
            self.sleep(self.patience.wait(failed, asked))

    def size(self, url: str) -> int | None:
        """Return how many bytes ``url`` has, None if that is not told."""
        try:
            return length(self.client.head(url, headers=PLAIN))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return None

    def _body(self, answer: httpx.Response, url: str) -> bytes:
        if answer.is_error:
            raise NotThere(f"{url} answers {status(answer)}.")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise NotThere(f"{url} answers in another encoding than the one asked for.")
        body = bytearray()
        pace = Pace(self.patience)
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) > LARGEST:
                raise NotThere(f"{url} is not what it should be: it has more than {LARGEST >> 20} MiB.")
            pace.check(len(body))
        return bytes(body)


@contextmanager
def answered(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """Ask for ``url`` and give its answer, to be read.

    Raises httpx.InvalidURL also for what httpx chokes on: a host name that cannot be encoded, in ``url``, a
    redirect or a proxy's address; a number with thousands of digits.
    """
    with ExitStack() as stack:
        try:
            answer = stack.enter_context(client.stream("GET", url, headers=headers))
        except ValueError as error:
            raise httpx.InvalidURL(trouble(error)) from error
        yield answer


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Return who vouches for servers, read once: it takes longer than a small answer."""
    return httpx.create_ssl_context()


def open_client(timeout: httpx.Timeout = TIMEOUT) -> httpx.Client:
    """Return a client that follows redirects and heeds HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

    Raises MediumError if one of them names no proxy.
    """
    try:
        return _client(timeout)
    except (ValueError, httpx.InvalidURL) as error:
        raise MediumError(
            f"The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used: {error}.",
            hint="Write it as http://HOST:PORT or socks5://HOST:PORT.",
        ) from error


def _client(timeout: httpx.Timeout) -> httpx.Client:
    return httpx.Client(
        verify=_authorities(), timeout=timeout, follow_redirects=True, headers={"User-Agent": "prebake"}
    )


def asked_to_wait(answer: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After, None without one or with a date in it."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def length(answer: httpx.Response) -> int | None:
    """Return the Content-Length, None without one."""
    text = answer.headers.get("content-length", "")
    return int(text) if LENGTH.fullmatch(text) else None


def status(answer: httpx.Response) -> str:
    """Return the status line's code and words."""
    return f"{answer.status_code} {answer.reason_phrase}".strip()


def trouble(error: Exception) -> str:
    """Return what went wrong on the way, in a few words."""
    return str(error).rstrip(".") or type(error).__name__
