"""Explain a saved serial console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.install.state import InstallState

if TYPE_CHECKING:
    from builder.install.verdict import Verdict

_PIECE = 1 << 18


def explain(data: bytes, token: str | None = None) -> Verdict:
    """Return the verdict on a whole console, ``data``, as QEMU wrote it (bytes, any length, maybe cut off).

    ``token`` is that of the install's sentinels; without it any sentinel counts. Never raises.
    """
    state = InstallState(token)
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        state.feed(bytes(view[start : start + _PIECE]))
    return state.verdict()
