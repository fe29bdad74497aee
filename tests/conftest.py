"""How many tests run side by side."""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one and a half workers per processor: many tests wait for a program or a server."""
    return max((os.cpu_count() or 1) * 3 // 2, 1)
