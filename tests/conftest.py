"""How many tests run side by side, and what those that boot share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from builder.events import silent
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder
from tests import mirror
from tests.command_line import environment
from tests.journey import CLASSES, NAMES, published, readable


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one and a half workers per processor: many tests wait for a program or a server."""
    return max((os.cpu_count() or 1) * 3 // 2, 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep boots that share something in one process; three such groups go side by side, two at a time."""
    for item in items:
        if item.get_closest_marker("boot"):
            name = item.path.name
            group = (
                "failures" if name == "test_failures.py" else "journey" if name.startswith("test_journey") else "media"
            )
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def iso() -> Path:
    """The rehearsal medium, from the cache or made now."""
    return rehearsal_iso(cache_folder(), silent)


@pytest.fixture(scope="session")
def built(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """One image of the class `offline`: its path as printed, what was said to people, and what the process list showed.

    The medium is fetched from a server on loopback, with a list signed by a test key.
    """
    base = tmp_path_factory.mktemp("journey")
    output = base / "output"
    seen: set[bytes] = set()
    env = environment({"XDG_CACHE_HOME": str(base / "cache")})
    with (
        mirror.serving(published(iso)) as server,
        subprocess.Popen(
            mirror.pinned_command(
                server, base / "cache", "image", CLASSES / "offline.yaml", *NAMES, "-o", output, "-v"
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=env,
        ) as process,
    ):
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            seen.update(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path))
    assert process.returncode == 0, text
    return Path(text.splitlines()[-1]), text, b"\n".join(seen).decode("utf-8", "replace")
