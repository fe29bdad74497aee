"""Files on a medium that would answer the installer beside ours: what another remaster has left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.media.image import Medium

INSTALLERS_OWN = "/autoinstall.yaml"
"""Read by the installer where cloud-init has no answers (subiquity, select_autoinstall: cloud-config goes first)."""
BESIDE = ("vendor-data", "network-config")
"""What cloud-init adds to user-data and meta-data if it lies beside them (cloud-init's documentation, NoCloud)."""
ASK = b"""\
# prebake put the answers into %s/user-data; where this is read instead, the installer asks for everything.
version: 1
interactive-sections: ["*"]
"""
"""What the installer does with no answers at all, said as answers (autoinstall reference, interactive-sections)."""


def silenced(medium: Medium, seed: str) -> dict[str, bytes]:
    """Return what to put in place of files that would compete with the answers in the folder ``seed``.

    The result is contents by absolute path, for `plan`; it is empty for a medium nobody has put answers on. A
    leftover /autoinstall.yaml never wins over a seed that is found. But should cloud-init fail, the installer
    would take it and erase a disk by somebody else's answers; so it becomes one that asks.
    """
    there = medium.survey.files
    rivals = (INSTALLERS_OWN, *(f"{seed}/{name}" for name in BESIDE))
    contents = {INSTALLERS_OWN: ASK % seed.encode()}
    return {name: contents.get(name, b"") for name in rivals if name in there}
