"""What a guest, its machine and this host can meet, provoked for real: what is said, how it ends, what is left.

Under emulation a guest takes half a minute to its installer, and a busy host doubles that: nine minutes for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.failing import MACHINE, MARKS, Provoked, cases, known_named_and_kept
from tests.provoke import FAILURES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS


@pytest.fixture(scope="module")
def provoked(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Provoked:
    return Provoked(iso, tmp_path_factory)


@pytest.mark.parametrize("name", cases(MACHINE))
def test_it_is_known_named_and_leaves_its_evidence(provoked: Provoked, name: str) -> None:
    known_named_and_kept(FAILURES[name], provoked[name])


def test_the_guests_own_logs_are_there(provoked: Provoked) -> None:
    seen = provoked["out of memory"]
    assert "Out of memory" in (seen.folder / "guest/var/log/installer/installer-journal.txt").read_text()


def test_a_machine_that_still_ran_left_a_picture(provoked: Provoked) -> None:
    for name in ("silent", "kernel panic"):
        seen = provoked[name]
        (picture,) = seen.folder.glob("screen.*")
        assert picture.stat().st_size > 500, name
