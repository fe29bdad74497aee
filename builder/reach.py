"""Is the archive there? Asked before anything is fetched or booted, in the way in which the guest will ask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import httpx

from builder.autoinstall.network import without_credentials
from builder.errors import HostError
from builder.events import Note

if TYPE_CHECKING:
    from builder.events import Reporter
    from builder.spec import Spec

ARCHIVES = {"amd64": "http://archive.ubuntu.com/ubuntu", "arm64": "http://ports.ubuntu.com/ubuntu-ports"}
"""Where Ubuntu's installer finds packages unless it is told otherwise."""
SECONDS = 10.0
PROBES = ("", "noble/InRelease", "jammy/InRelease")
"""What an archive has below /dists/: a list of it, or one of the series that are long supported."""


def settled(spec: Spec, arch: str, report: Reporter, *, needs: str = "") -> Spec:
    """Return the machine with its network decided; ``needs`` says what of it is fetched beside its content.

    "offline" stays; for "nat" the archive must be reachable; "auto" uses it if it is, and with a warning goes without
    it otherwise, unless the class cannot. Raises HostError if what must be reachable is not.
    """
    if spec.network == "offline":
        return spec
    archive = spec.mirror or ARCHIVES.get(arch, ARCHIVES["amd64"])
    trouble = unreachable(archive, spec.proxy)
    if trouble is None:
        return spec
    archive = without_credentials(archive)
    through = f" through the proxy {without_credentials(spec.proxy)}" if spec.proxy else ""
    needs = needs or ("packages" if spec.content.packages else "snaps" if spec.content.snaps else "")
    if spec.network == "nat" or needs or spec.updates == "all":
        asked = f"the class's {needs} come" if needs else "updates come" if spec.updates == "all" else "packages come"
        raise HostError(
            f"The archive {archive}, from which {asked}, cannot be used{through}: {trouble}.",
            hint="Look at the network, name a mirror or a proxy that is reachable, or install with --offline.",
        )
    report(
        Note(
            f"The archive {archive} cannot be used{through}: {trouble}. The image is made offline, without security "
            "updates; --online makes this an error, --offline silences it.",
            "warning",
        )
    )
    return replace(spec, network="offline")


def unreachable(archive: str, proxy: str = "", seconds: float = SECONDS) -> str | None:
    """Return why an archive of packages cannot be used from here, or None if it can.

    ``seconds`` is how long each step may take.

    The guest does not know this host's own proxies, so only ``proxy`` counts. Not every mirror lists its folders, so
    releases are asked for by name too.
    """
    trouble = ""
    try:
        with httpx.Client(proxy=proxy or None, trust_env=False, follow_redirects=True, timeout=seconds) as client:
            for name in PROBES:
                with client.stream("GET", f"{archive.rstrip('/')}/dists/{name}") as answer:
                    status = answer.status_code
                if status < httpx.codes.BAD_REQUEST:
                    return None
                if status not in {httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN}:
                    return f"it answers {status}"
                trouble = f"it answers {status} to {without_credentials(archive).rstrip('/')}/dists/{name}"
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
        return without_credentials(str(error).rstrip(".")) or type(error).__name__
    return f"{trouble}, so it holds no archive of Ubuntu's"
