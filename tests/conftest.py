"""How many tests run side by side, and what those that boot share."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from builder.events import silent
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder, locked
from tests import mirror
from tests.command_line import environment
from tests.journey import CLASSES, NAMES, published, readable

LONGEST_FIRST = ("test_journey.py", "test_failures.py", "test_failures_machine.py", "test_media_boot.py")
"""Files that boot, as they are begun; what needs the image that the first one makes is not among them."""
LAST = ("test_journey_class.py",)
"""What needs that image: begun sooner it would wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the boots in an order that keeps two processes busy to the end."""

    def place(item: pytest.Item) -> int:
        name = item.path.name
        if name in LAST:
            return len(LONGEST_FIRST) + 1
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one and a half workers per processor: many tests wait for a program or a server."""
    return max((os.cpu_count() or 1) * 3 // 2, 1)


@pytest.fixture(scope="session")
def iso() -> Path:
    """The rehearsal medium, from the cache or made now."""
    return rehearsal_iso(cache_folder(), silent)


@pytest.fixture(scope="session")
def built(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """One image of the class `offline`: its path as printed, what was said to people, and what the process list showed.

    The medium is fetched from a server on loopback, with a list signed by a test key. Processes that test side by side
    share one image: the first to need it makes it, and the others wait.
    """
    own = tmp_path_factory.getbasetemp()
    base = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    told = base / "built.json"
    with locked(base / "built.lock"):
        if not told.exists():
            told.write_text(json.dumps(_build(iso, base / "journey")))
        path, text, processes = json.loads(told.read_text())
    return Path(path), text, processes


def _build(iso: Path, base: Path) -> tuple[str, str, str]:
    base.mkdir()
    output = base / "output"
    seen: set[bytes] = set()
    env = environment({"XDG_CACHE_HOME": str(base / "cache")})
    with (
        mirror.serving(published(iso)) as server,
        subprocess.Popen(
            mirror.pinned_command(
                server,
                base / "cache",
                "image",
                CLASSES / "offline.yaml",
                *NAMES,
                "-o",
                output,
                "-v",
                "--prove",
                "full",
                "--cpus",
                "1",
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
    return text.splitlines()[-1], text, b"\n".join(seen).decode("utf-8", "replace")
