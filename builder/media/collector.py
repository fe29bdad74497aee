"""Python's collector of reference cycles, kept still while a medium is parsed."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Let the collector rest: thousands of records are made, few go, and looking for cycles takes a tenth of the time.

    What may be made meanwhile is bounded (`builder.media.bounds`). Nothing happens where it rests already.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
