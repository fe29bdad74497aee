"""What has to hold of a system that stands on a stranger's machine. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builder.image.facts import Check, checks, sealed_checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from builder.image.strangers import Stranger
    from builder.spec import Spec

LONGEST_WAIT = 30.0
"""Seconds of the guest's that a boot may stand still for the network; systemd's own limit is 120."""
MOST = 0.9
"""The part of the new room that the root file system has to take: file systems keep some for themselves."""
GENERAL = frozenset({"network", "disk size", "login on the serial port", "a machine-id of its own"})
"""What any image must be. All else that `checks` and `sealed_checks` look at is how prebake makes them."""
CROWDED = frozenset({"network"})
NOT_GROWN = frozenset({"entire disk used"})
LOGIN = "boots to a login"


def seen(
    stranger: Stranger, facts: Mapping[str, str], spec: Spec, machine_id: str | None, *, strict: bool
) -> Iterator[Check]:
    """Look at a system on a stranger's machine. What is prebake's own way is required only if ``strict``."""
    without = (CROWDED if stranger.card is None else frozenset()) | (NOT_GROWN if stranger.grown else frozenset())
    larger = replace(spec, disk=spec.disk + stranger.grown)
    for check in (*checks(facts, larger), *sealed_checks(facts, machine_id, larger)):
        if check.name not in without:
            general = check.name in GENERAL or check.name == f"user {spec.user.name}"
            yield replace(check, required=check.required and (strict or general))
    claimed = facts.get("firmware", "")
    yield Check(f"started by {stranger.firmware.upper()}", claimed == stranger.firmware, claimed or "unknown")
    if stranger.card is None:
        yield from alone(facts)


def alone(facts: Mapping[str, str]) -> Iterator[Check]:
    """Look at a boot without a network card: it must not have stood waiting for one."""
    nics = facts.get("nics", "unknown")
    yield Check("no network card", not nics, nics or "none")
    told = facts.get("network-waits")
    if told is None:
        yield Check("no wait for the network", good=False, found="the system does not tell")
        return
    waits = dict(row.rpartition(":")[::2] for row in told.split())
    longest = max((_seconds(one) for one in waits.values()), default=0.0)
    words = ", ".join(f"{unit} {seconds} s" for unit, seconds in waits.items()) or "nothing waits for it"
    yield Check("no wait for the network", longest <= LONGEST_WAIT, words)


def grows(plain: Mapping[str, str], larger: Mapping[str, str], by: int) -> Check:
    """Compare the root file system with itself on a disk that is larger by so many bytes."""
    before, after = _bytes(plain.get("root-size")), _bytes(larger.get("root-size"))
    gained = after - before
    words = f"{gained / (1 << 30):.1f} of {by / (1 << 30):.0f} GiB more"
    return Check("the root grows with the disk", bool(before) and gained >= MOST * by, f"{words} in the file system")


def twins(one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[Check]:
    """Compare two clones of an image that run side by side: nothing that tells machines apart may be the same."""
    ids = [one.get("machine-id", ""), other.get("machine-id", "")]
    yield Check("clones differ in their machine-id", all(ids) and ids[0] != ids[1], " and ".join(ids))
    keys = [set(each.get("host-key-prints", "").split()) for each in (one, other)]
    shared = keys[0] & keys[1]
    words = f"the same in both: {' '.join(sorted(shared))}" if shared else "differ" if any(keys) else "there are none"
    yield Check("clones differ in their SSH host keys", not shared, words)
    places = [each.get("addresses", "") for each in (one, other)]
    yield Check("both clones have an address", all(places), " and ".join(place or "none" for place in places))


def named(boot: str, found: Iterable[Check]) -> list[Check]:
    """Return checks with the name of their boot."""
    return [replace(check, boot=boot) for check in found]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _bytes(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
