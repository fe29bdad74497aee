"""Settled systems in the cache: installed, booted once, not yet anybody's class. What is built of one needs no install.

One is bases/IDENT-TIME/ with disk.qcow2, base.json and the logs of its making; only its owner may read it, for it holds
the user's password as a hash, as every image does. IDENT is a digest of all that a settled system depends on, TIME when
it was made. Builds boot overlays of the disk, which is never written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter, ValidationError

from builder import __version__
from builder.errors import PrebakeError
from builder.events import Note
from builder.install.record import CAST, CONSOLE, entitle
from builder.leftovers import scratch
from builder.resources import templates
from builder.store import locked, shared, unused
from builder.vm import disk
from builder.workspace import sync_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.autoinstall.render import Answers
    from builder.events import Reporter
    from builder.media.image import Medium
    from builder.story import Job

FOLDER = "bases"
DISK, RECORD, LOGS = "disk.qcow2", "base.json", "logs"
NEEDED = (CONSOLE, CAST)
"""The logs that every image has of the making of its system."""
DAY = 86400.0
FRESH = 7 * DAY
"""Seconds after which a system with updates from the archive is too old to build on."""
MOST = 4
"""How many are kept: those used last."""
SPARE = 1 << 30
"""Bytes that stay free when one is copied into a cache on another file system."""
SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}
"""As RFC 7914 has it for interactive logins: about 50 ms, 16 MiB."""


@dataclass(frozen=True)
class Told:
    """What base.json says: when the system was made (seconds since 1970), its facts, how long it took to its login."""

    version: Annotated[int, Field(ge=1, le=1)]
    made: Annotated[float, Field(ge=0)]
    facts: dict[str, str]
    seconds: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Base:
    """A settled system: its disk, and what was seen at its first boot; ``logs`` is None where it was made just now."""

    disk: Path
    told: Told
    logs: Path | None = None

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return max(0.0, time.time() - self.told.made)

    def restore(self, logs: Path, title: str) -> None:
        """Put the logs of its making among those in the folder ``logs``, the recording by its ``title``.

        Raises OSError.
        """
        if self.logs is not None:
            shutil.copytree(self.logs, logs, dirs_exist_ok=True)
            entitle(logs, title)


_TOLD = TypeAdapter(Told)


def ident(job: Job, medium: Medium, answers: Answers) -> str:
    """Return the digest of what a settled system is made of: medium, answers, machine, this version, our scripts.

    The password is in it by way of scrypt alone; the answers are there without its hash, whose salt is new each time.
    """
    spec = job.spec
    if job.origin.sha256:
        identity = job.origin.sha256
    else:
        stat = medium.path.stat()
        identity = f"{medium.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    text = answers.user_data.replace(answers.password_hash, "*") + answers.meta_data
    text = text.replace(answers.token, "*")
    scripts = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((templates() / "guest").iterdir())))
    parts = (
        __version__,
        scripts.hexdigest(),
        identity,
        text,
        spec.firmware,
        str(spec.disk),
        spec.network,
        spec.updates,
        medium.arch or "",
    )
    rest = hashlib.sha256("\0".join(parts).encode()).digest()
    secret = spec.user.password_hash or spec.user.password
    return hashlib.scrypt(secret.encode(), salt=rest, dklen=16, **SCRYPT).hex()


def reuse(cache: Path, name: str, *, ages: bool, holding: ExitStack) -> Base | None:
    """Return the newest settled system of that name, or None: it must be whole and, if it ``ages``, not too old.

    It is kept from being pruned as long as ``holding`` lasts.
    """
    place = cache / FOLDER
    for folder in sorted(place.glob(f"{name}-*"), reverse=True):
        with ExitStack() as stack, contextlib.suppress(OSError, ImportError, ValidationError, PrebakeError):
            stack.enter_context(shared(lock_of(folder), touch=False))
            told = _TOLD.validate_json((folder / RECORD).read_bytes())
            base = Base(folder / DISK, told, folder / LOGS)
            whole = all((folder / LOGS / name).is_file() for name in NEEDED) and disk.check(base.disk).clean
            if whole and not (ages and base.age > FRESH):
                os.utime(lock_of(folder))
                holding.push(stack.pop_all())
                return base
    return None


@contextmanager
def making(cache: Path, name: str, report: Reporter) -> Iterator[None]:
    """Be the only one that makes the settled system of that name; whoever comes second waits, and finds it made.

    Where the cache cannot be written nobody waits.
    """
    with ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):
            waiting = "Another build installs the same system; this one waits for it."
            stack.enter_context(locked(cache / FOLDER / "locks" / f"{name}.make", report, waiting))
        yield


def keep(cache: Path, name: str, made: Base, report: Reporter, holding: ExitStack) -> Base:
    """Put a settled disk and the logs of its making in the cache; return it, or what it was where that cannot be.

    The disk is gone from where it was only when it is whole in the cache, where it is kept from being pruned as long as
    ``holding`` lasts.
    """
    place = cache / FOLDER
    target = place / f"{name}-{int(made.told.made):010x}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        holding.enter_context(shared(lock_of(target)))
        with scratch(place, f".{name}.building-", "a settled system") as folder:
            if not _linked(made.disk, folder / DISK):
                if shutil.disk_usage(place).free < made.disk.stat().st_blocks * 512 + SPARE:
                    report(Note(f"The system is not kept for the next build: there is too little room in {place}."))
                    return made
                disk.convert(made.disk, folder / DISK)
            if made.logs is not None:
                shutil.copytree(made.logs, folder / LOGS)
            (folder / RECORD).write_bytes(_TOLD.dump_json(made.told))
            (folder / DISK).chmod(0o400)
            sync_tree(folder)
            folder.rename(target)
        made.disk.unlink()
    except (OSError, ImportError, PrebakeError) as error:
        report(Note(f"The system is not kept for the next build: {error}", "warning"))
        return made
    with contextlib.suppress(OSError, ImportError):
        tidy(cache)
    return Base(target / DISK, made.told)


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name, if that can be."""
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, another mount of the same one, or one without links
        return False
    return True


def tidy(cache: Path) -> None:
    """Remove those that were used longest ago, so that no more than MOST are left; what is in use stays."""
    for folder in sorted(folders(cache), key=last_use)[:-MOST]:
        with unused(lock_of(folder)) as free:
            if free:
                (folder / RECORD).unlink(missing_ok=True)  # what is half removed is none any more
                shutil.rmtree(folder, ignore_errors=True)


def folders(cache: Path) -> list[Path]:
    """Return the folders of all settled systems in the cache."""
    return [path.parent for path in sorted((cache / FOLDER).glob(f"[!.]*/{RECORD}"))]


def lock_of(folder: Path) -> Path:
    """Return the lock that whoever uses a settled system holds."""
    return folder.parent / "locks" / f"{folder.name}.use"


def last_use(folder: Path) -> float:
    """Return when one was used last, in seconds since 1970."""
    for path in (lock_of(folder), folder / RECORD):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def made_on(folder: Path) -> str:
    """Return what to say of one in a list: when it was made."""
    try:
        made = _TOLD.validate_json((folder / RECORD).read_bytes()).made
        return time.strftime("made %Y-%m-%d", time.localtime(made))
    except (OSError, ValidationError, ValueError, OverflowError):
        return "damaged"
