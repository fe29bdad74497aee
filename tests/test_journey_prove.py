"""The finished image on every machine of a stranger's, with the command a person types. About four minutes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.command_line import prebake
from tests.journey import MISSING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


def test_the_image_works_on_strangers_machines(built: tuple[Path, str, str], tmp_path: Path) -> None:
    """Five boots, two of them side by side: about four minutes under emulation on two cores."""
    image = built[0]
    before = hashlib.sha256(image.read_bytes()).digest()
    beside = sorted(image.parent.iterdir())
    result = prebake("verify", image, "--full", "--json", "--evidence", tmp_path / "evidence")
    told = json.loads(result.out)
    assert not {row["check"] for row in told["checks"] if not row["good"]}, result.err
    assert result.code == 0
    assert list(told["boots"]) == ["virtio", "enlarged", "sata", "nvme", "scsi"]
    rows = {(row["boot"], row["check"]): row["found"] for row in told["checks"]}
    assert rows[None, "as its manifest says"]
    assert rows["virtio", "network"] == rows["sata", "network"] == rows["nvme", "network"] == "10.0.2.15/24"
    assert rows["scsi", "no network card"] == "none"
    assert ("scsi", "network") not in rows
    assert rows["scsi", "no wait for the network"]
    one, other = rows["side by side", "clones differ in their machine-id"].split(" and ")
    assert one != other
    assert hashlib.sha256(image.read_bytes()).digest() == before
    assert sorted(image.parent.iterdir()) == beside
