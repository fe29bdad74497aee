"""Reading ISOs with pycdlib, whose many kinds of exceptions become one."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pycdlib

from builder.errors import MediumError, PrebakeError
from builder.media.bounds import check_bounds
from builder.media.window import PARSE_BUDGET, SECTOR, Window, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LARGEST_FILE = 64 << 20
"""What is read into memory from a medium: menus, lists and manifests, never file systems."""
SLACK = 1 << 20
"""What finding a file costs beside its contents, in bytes."""


@dataclass(frozen=True)
class Entry:
    """Something a tree shows: its kind, and a file's first sector and length in bytes."""

    kind: str
    """"file", "directory" or "symlink"."""
    extent: int = 0
    length: int = 0


@dataclass(frozen=True)
class Survey:
    """What pycdlib sees of one volume: its name, and what each of its trees lists, by the tree's name."""

    base: int
    volume_id: str
    listings: Mapping[str, Mapping[str, Entry]]

    @property
    def files(self) -> frozenset[str]:
        """The absolute paths of the files."""
        main = next(iter(self.listings.values()))
        return frozenset(path for path, entry in main.items() if entry.kind == "file")


class Volume:
    """One volume, as pycdlib understands it. ``base`` is the sector it starts at in its file."""

    def __init__(self, iso: Any, window: Window, base: int) -> None:  # noqa: ANN401 - pycdlib has no usable types
        self._iso = iso
        self._window = window
        self.base = base

    @property
    def volume_id(self) -> str:
        """The primary volume's name."""
        raw: bytes = self._iso.pvd.volume_identifier
        return raw.decode("utf-8", "replace").strip(" \0")

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the trees there are, as the other methods take them."""
        first = "rr_path" if self._iso.has_rock_ridge() else "iso_path"
        return (first, "joliet_path") if self._iso.has_joliet() else (first,)

    def survey(self) -> Survey:
        """Return everything there is. Raises MediumError."""
        return Survey(self.base, self.volume_id, {view: self.listing(view) for view in self.views})

    def listing(self, view: str = "") -> dict[str, Entry]:
        """Return everything in a view, by absolute path. Raises MediumError."""
        view = view or self.views[0]
        entries: dict[str, Entry] = {}
        with _translated():
            for folder, directories, files in self._iso.walk(**{view: "/"}):
                prefix = folder.rstrip("/")
                for name in directories:
                    entries[f"{prefix}/{name}"] = Entry("directory")
                for name in files:
                    path = f"{prefix}/{name}"
                    entries[path] = self._entry(self._iso.get_record(**{view: path}))
        return entries

    def _entry(self, record: Any) -> Entry:  # noqa: ANN401 - pycdlib has no usable types
        if record.is_symlink():
            return Entry("symlink")
        length: int = record.get_data_length()
        return Entry("directory" if record.is_dir() else "file", self.base + record.extent_location(), length)

    def has_directory(self, path: str) -> bool:
        """Whether there is a directory at an absolute path."""
        try:
            with _translated():
                return bool(self._iso.get_record(**{self.views[0]: path}).is_dir())
        except MediumError:
            return False

    def read(self, path: str, view: str = "", most: int = LARGEST_FILE) -> bytes:
        """Return the contents of the file at an absolute path.

        Raises MediumError if there is none, or it has more than ``most`` bytes.
        """
        view = view or self.views[0]
        shown = plain(path)
        with _translated(f"The ISO has no file `{shown}`"):
            record = self._iso.get_record(**{view: path})
            entry = self._entry(record)
        if entry.kind != "file" or not 0 <= entry.length <= most:
            reason = (
                f"it is a {entry.kind}" if entry.kind != "file" else f"it has {entry.length} bytes, not up to {most}"
            )
            raise MediumError(f"`{shown}` cannot be read from the ISO: {reason}.")
        if (entry.extent - self.base) * SECTOR + entry.length > self._window.size:
            raise MediumError(
                f"`{shown}` lies beyond the end of the ISO: it is said to have {entry.length} bytes in sector "
                f"{entry.extent - self.base}, and the volume has {self._window.size} bytes.",
                hint="Download the ISO again.",
            )
        content = io.BytesIO()
        self._window.budget = 2 * most + SLACK
        with _translated(f"The file `{shown}` cannot be read from the ISO"):
            self._iso.get_file_from_iso_fp(content, **{view: path})
        self._window.budget = None
        if len(content.getvalue()) != entry.length:
            raise MediumError(
                f"`{shown}` cannot be read from the ISO: it is said to have {entry.length} bytes, and "
                f"{len(content.getvalue())} were read.",
                hint="Download the ISO again.",
            )
        return content.getvalue()


@contextlib.contextmanager
def _translated(what: str = "The ISO is damaged") -> Iterator[None]:
    try:
        yield
    except PrebakeError:
        raise
    except Exception as error:
        # pycdlib lets IndexError, KeyError, struct.error and more escape.
        reason = plain(str(error).rstrip(".")) or type(error).__name__
        raise MediumError(
            f"{what}: {reason}.", hint="Check the ISO against its SHA256SUMS, or download it again."
        ) from error


@contextlib.contextmanager
def open_volume(
    file: BinaryIO,
    *,
    base: int = 0,
    size: int | None = None,
    extents: Sequence[tuple[int, bytes]] = (),
    bounded: bool = False,
) -> Iterator[Volume]:
    """Open the volume that starts at sector ``base`` of ``file``, with changes laid over it.

    ``size`` is the size of the whole image in bytes, by default the file's. ``bounded`` says that its structures are
    known to stay within `check_bounds`. Raises MediumError if they are larger than any medium's or pycdlib cannot
    make sense of them.
    """
    window = Window(file, start=base * SECTOR, size=size, extents=extents, budget=PARSE_BUDGET)
    iso = pycdlib.PyCdlib()
    with _translated():
        if not bounded:
            check_bounds(window.at, window.size)
            window.budget = PARSE_BUDGET
        iso.open_fp(cast("BinaryIO", window))
    window.budget = None
    try:
        yield Volume(iso, window, base)
    finally:
        with contextlib.suppress(Exception):
            iso.close()
