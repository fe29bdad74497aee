"""prebake's ways to a remastered medium. Each is called with the ISO and a folder for results."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.cost import main
from builder import boot, pipeline
from builder.events import silent
from builder.media import proof, remaster
from builder.media.image import inspect
from builder.spec import Spec
from builder.story import IsoJob
from builder.vm import accel, disk
from builder.vm.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cost import Parts

SPEC = Spec(name="bench")


class Watch:
    """Takes the times of one part after the other."""

    def __init__(self) -> None:
        self.parts: Parts = {}
        self._begun = time.perf_counter()

    def took(self, name: str) -> None:
        """Say that what has been going on since the last call is called ``name``."""
        now = time.perf_counter()
        self.parts[name] = now - self._begun
        self._begun = now


@contextlib.contextmanager
def proof_timed() -> Iterator[Parts]:
    """Give a dictionary in which the seconds will be that the proof of a remaster takes: the others do without."""
    parts: Parts = {}

    def timed(*given: Any) -> None:  # noqa: ANN401 - whatever the proof takes
        begun = time.perf_counter()
        proof.prove(*given)
        parts["proof"] = time.perf_counter() - begun

    with mock.patch.object(remaster, "prove", timed):
        yield parts


def overlay(iso: Path, folder: Path) -> Parts:
    """Make the thin overlay that `prebake image` boots, from reading the medium on."""
    with proof_timed() as parts:
        medium = inspect(iso)
        boot.boot_medium(medium, boot.answers_for(SPEC, medium), folder / "medium.qcow2", silent)
    return parts


def whole(iso: Path, folder: Path) -> None:
    """Write the ISO that `prebake iso` writes; it is on the disk at the end."""
    pipeline.write_remastered_iso(IsoJob(SPEC, iso), folder / "out.iso", silent, force=True)


def start(iso: Path, folder: Path) -> Parts:
    """Go from the ISO to a machine whose guest runs, part by part, as `prebake image` does."""
    watch = Watch()
    medium = inspect(iso)
    watch.took("parse")
    arch = medium.arch or "amd64"
    probe = accel.choose("auto", arch)
    watch.took("probe")
    answers = boot.answers_for(SPEC, medium)
    watch.took("answers")
    with proof_timed() as proof:
        patch = boot.remastered(medium, answers, silent, timeout=0, more=boot.UNCHECKED)
    watch.took("plan")
    watch.parts["plan"] -= proof["proof"]
    watch.parts |= proof
    path = folder / "medium.qcow2"
    disk.write_overlay(medium.path, patch.size, patch.extents, path)
    watch.took("write")
    target = folder / "disk.qcow2"
    disk.create(target, SPEC.disk)
    machine = boot.installer(
        boot.plain_machine(SPEC, arch, probe.name, folder), SPEC, path, target, folder / "logs.tgz"
    )
    watch.took("disk")
    with Machine(machine):
        watch.took("QEMU")
    watch.took("end")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    watch.took("fsync")
    return watch.parts


if __name__ == "__main__":
    main({"overlay": overlay, "whole": whole, "start": start})
