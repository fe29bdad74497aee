"""What the tests of provoked failures share: how one is run to its end, and what each must say and leave."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.journey import MISSING
from tests.provoke import FAILURES, Failure, Seen, fail

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MARKS = [
    pytest.mark.boot,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.skipif(sys.platform != "linux", reason="some are provoked with what only Linux has"),
]
LATEST = 120.0
"""Seconds from the first sign of a failure to the verdict: many times what it takes, a fraction of every time-out."""
MACHINE = (
    "hung",
    "kernel panic",
    "out of memory",
    "silent",
    "reboot loop",
    "qemu killed",
    "host disk full",
    "little memory",
    "boot menu lost",
)
"""The failures of the guest, the machine and this host; all others are the installer's. Two files share the time."""


RARE = frozenset(
    {
        *("answers invalid", "early-command", "no disk", "installer killed", "reboot loop", "little memory"),
        *("package missing", "medium damaged", "storage for the other firmware"),
    }
)
"""Failures whose way to be known is that of another one."""


def cases(names: Iterable[str]) -> list[Any]:
    """Return failures as parameters of a test."""
    return [pytest.param(name, marks=[pytest.mark.rare] if name in RARE else []) for name in names]


class Provoked:
    """Failures, each provoked when it is first asked for."""

    def __init__(self, iso: Path, factory: pytest.TempPathFactory) -> None:
        self._iso = iso
        self._factory = factory
        self._seen: dict[str, Seen] = {}

    def __getitem__(self, name: str) -> Seen:
        if FAILURES[name].small and os.geteuid() != 0:
            pytest.skip("needs root, to mount a small disk")
        if name not in self._seen:
            self._seen[name] = fail(name, self._iso, self._factory.mktemp("fail"))
        return self._seen[name]


def known_named_and_kept(failure: Failure, seen: Seen) -> None:
    """Assert that a failure ended with its code and its words, left its evidence and nothing else."""
    said = " ".join(seen.err.split())
    assert (seen.code, seen.out) == (failure.code, ""), seen.err
    for words in failure.words:
        assert words in said
    assert "What to do: " in said
    assert f"Evidence: {seen.folder}" in said
    if not failure.small:  # that disk is no more
        assert [path.name for path in seen.folder.parent.iterdir()] == ["x.failed"]
        _kept_as_told(failure, seen)


def _kept_as_told(failure: Failure, seen: Seen) -> None:
    kept = {path.name for path in seen.folder.iterdir()}
    assert {"console.log", "console.cast", "events.jsonl", "error.txt", "qemu.txt", "user-data", "host.json"} <= kept
    if failure.slug is not None:
        assert str(seen.told["cause"]).startswith(f"{failure.slug}: ")
    if failure.slug != "hung":  # known by waiting alone
        assert seen.verdict - seen.sign < LATEST
    assert seen.exit >= seen.verdict
    for path in seen.folder.rglob("*"):
        if path.is_file() and path.name != "disk.qcow2":  # the system's own, and kept on demand
            data = path.read_bytes()
            assert not any(word in data for word in (b"powercoders", b"$6$")), path
