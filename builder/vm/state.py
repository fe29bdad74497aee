"""What a machine is doing, as told by QEMU's events. Pure.

Source: QEMU's QMP reference, events SHUTDOWN, RESUME, GUEST_PANICKED and BLOCK_IO_ERROR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["running", "shutdown", "io-error", "exited"]


@dataclass(frozen=True)
class State:
    """What a machine is doing.

    ``kind`` is

    - "running";
    - "shutdown": QEMU is paused because the machine ended, with ``reason`` "guest-shutdown" (it powered
      off), "guest-reset" (it rebooted), "guest-panic", or one that starts with "host-";
    - "io-error": QEMU is paused because the host could not read or write ``device``, an image's path;
      ``nospace`` tells whether the host's disk is full, ``reason`` is the system's word for the error;
    - "exited": QEMU ended with exit ``code`` (negative: the signal that killed it), with the last ``reason``
      known.
    """

    kind: Kind
    reason: str | None = None
    device: str | None = None
    nospace: bool = False
    code: int | None = None

    @property
    def running(self) -> bool:
        """Whether the guest goes on."""
        return self.kind == "running"


RUNNING = State("running")


def after(state: State, event: Mapping[str, object]) -> State:
    """Return the state of a machine that was in ``state`` when ``event`` came.

    After an I/O error ``device`` is the block node's name, for the caller to turn into the image's path.
    """
    name = event.get("event")
    data = event.get("data")
    told: Mapping[str, object] = data if isinstance(data, dict) else {}
    if name == "SHUTDOWN":
        return State("shutdown", reason=_text(told.get("reason")))
    if name == "GUEST_PANICKED":
        return State("shutdown", reason="guest-panic")
    if name == "BLOCK_IO_ERROR" and told.get("action") == "stop":
        return State(
            "io-error",
            reason=_text(told.get("reason")),
            device=_text(told.get("node-name") or told.get("device")),
            nospace=bool(told.get("nospace", False)),
        )
    if name == "RESUME":
        return RUNNING
    return state


def _text(value: object) -> str | None:
    return None if value is None else str(value)
