"""What people have of a console: packed, recorded, stamped by other programs. The verdict is always the raw one's."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import sys
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.install import unwrap as module
from builder.install.explain import explain
from builder.install.prefixes import KINDS, kind_of
from builder.install.saved import explain_saved
from builder.install.unwrap import NoConsoleError, unwrap
from tests import test_install_boot, test_install_verdict
from tests.command_line import inside
from tests.test_install_verdict import (
    BOOT,
    CONFIRM,
    COPIED,
    DOWN,
    FAILED_LATE,
    INSTALLED,
    LATE,
    LATE_DONE,
    PROMPT,
    SHUTDOWN,
    TRANSCRIPTS,
    console,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from builder.install.verdict import Verdict

DONE = console(INSTALLED + LATE + LATE_DONE + COPIED + SHUTDOWN + DOWN)
FAILED = console(INSTALLED + LATE + FAILED_LATE + PROMPT + "\n")
CONSOLES: dict[str, bytes] = {
    "done": DONE,
    "asks": console(BOOT + CONFIRM),
    "cut off": console(INSTALLED + LATE + "start: subiquity/Lat"),
    "spinner": b"connecting...  \x08-\x08\\\x08|\x08/\x08 \r\n"
    + console(INSTALLED + LATE + FAILED_LATE + PROMPT + "\n"),
    "noise": b"\xff\x80\x00\x00" + console(INSTALLED + LATE + FAILED_LATE + PROMPT + "\n") + b"\xfe\xff",
    **{name: console(each[0]) for name, each in test_install_verdict.FAILURES.items()},
    **{f"boot: {name}": console(each[0]) for name, each in test_install_boot.FAILURES.items()},
    **{path.name: path.read_bytes() for path in sorted(TRANSCRIPTS.glob("*.*")) if path.suffix in {".raw", ".txt"}},
}
every_console = pytest.mark.parametrize("name", CONSOLES)


def prefixed(raw: bytes, *prefixes: str) -> bytes:
    """``raw`` as a program logs it that puts one of the ``prefixes``, in turn, before each line."""
    lines = raw.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return b"".join(prefixes[at % len(prefixes)].encode() + line + b"\n" for at, line in enumerate(lines))


def cast(raw: bytes, version: int) -> bytes:
    header = {"version": version, "width": 80, "height": 25} if version == 2 else {"version": 3, "term": {"cols": 80}}
    text = raw.decode("utf-8", "surrogateescape")
    rows = [json.dumps(header), "# a remark"]
    for at in range(0, len(text), 50):
        rows += [json.dumps([at / 1000, "o", text[at : at + 50]]), json.dumps([at / 1000, "i", PROMPT])]
    return "\n".join([*rows, '[3.5, "o", "cut o']).encode()


def typescript(raw: bytes) -> bytes:
    begin = b'Script started on 2024-05-01 12:00:00+00:00 [TERM="xterm" TTY="/dev/pts/0"]\n'
    return begin + raw + b'\r\n\nScript done on 2024-05-01 12:30:00+00:00 [COMMAND_EXIT_CODE="0"]\n'


GITLAB = "2024-05-01T12:00:00.123456Z 01O "


def pieces(raw: bytes, whole: str, part: str) -> bytes:
    """``raw`` as CRI logs long lines: in pieces, of which all but the last of a line are marked."""
    out = b""
    for line in raw.split(b"\n"):
        parts = [line[at : at + 60] for at in range(0, len(line), 60)] or [b""]
        out += b"".join(part.encode() + each + b"\n" for each in parts[:-1]) + whole.encode() + parts[-1] + b"\n"
    return out


def gitlab_pieces(raw: bytes) -> bytes:
    """``raw`` as GitLab's runner logs a line that comes in pieces: a plus on all but the first of a line."""
    out = b""
    for line in raw.split(b"\n"):
        parts = [line[at : at + 60] for at in range(0, len(line), 60)] or [b""]
        out += GITLAB.encode() + parts[0] + b"\n"
        out += b"".join(GITLAB[:-1].encode() + b"+" + each + b"\n" for each in parts[1:])
    return out


PACKER = "2024/05/01 12:00:00 packer-plugin-qemu_v1.1.0_x5.0_linux_amd64 plugin: 2024/05/01 12:00:01 Qemu stdout: "
CHATTER = "2024/05/01 12:00:00 [INFO] Packer version: 1.10.0 [go1.21.6 linux amd64]\n" * 30
TALK = "==> qemu.ubuntu: Waiting for SSH ...\n2024/05/01 12:00:02 [DEBUG] TCP connection to SSH failed\n"
WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda raw: gzip.compress(raw, mtime=0),
    "gzip, cut off": lambda raw: gzip.compress(raw + b"\r\n" * 5_000, 0)[:-4_000],
    "gzip, in parts": lambda raw: gzip.compress(raw[:100]) + gzip.compress(raw[100:]),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "packed twice": lambda raw: gzip.compress(lzma.compress(raw)),
    "asciicast v2": lambda raw: cast(raw, 2),
    "asciicast v3": lambda raw: cast(raw, 3),
    "asciicast, packed": lambda raw: gzip.compress(cast(raw, 2)),
    "typescript": typescript,
    "virsh console": lambda raw: b"Connected to domain 'demo'\r\nEscape character is ^] (Ctrl + ])\r\n\r\n" + raw,
    "telnet": lambda raw: b"Trying 127.0.0.1...\r\nConnected to localhost.\r\nEscape character is '^]'.\r\n" + raw,
    "UTF-16": lambda raw: raw.decode("utf-8", "replace").encode("utf-16"),
    "UTF-16 BE": lambda raw: b"\xfe\xff" + raw.decode("utf-8", "replace").encode("utf-16-be"),
    "UTF-8 with BOM": lambda raw: b"\xef\xbb\xbf" + raw,
    "Packer's log": lambda raw: prefixed(raw, PACKER),
    "Packer's screen": lambda raw: prefixed(raw, "==> qemu.ubuntu: ", "    qemu.ubuntu: "),
    "Packer's screen in colour": lambda raw: prefixed(raw, "\x1b[1;32m==> qemu.a: ", "\x1b[0;32m    qemu.a: "),
    "GitHub": lambda raw: b"\xef\xbb\xbf" + prefixed(raw, "2024-05-01T12:00:00.1234567Z "),
    "GitHub with Packer": lambda raw: prefixed(prefixed(raw, "    qemu.ubuntu: "), "2024-05-01T12:00:00.1234567Z "),
    "GitHub with Packer's log": lambda raw: prefixed(prefixed(raw, PACKER), "2024-05-01T12:00:00.1234567Z "),
    "GitLab": lambda raw: prefixed(raw, GITLAB, "2024-05-01T12:00:00.123456Z 00O "),
    "GitLab, in pieces": gitlab_pieces,
    "Jenkins": lambda raw: prefixed(raw, "[2024-05-01T12:00:00.123Z] "),
    "Jenkins, the clock": lambda raw: prefixed(raw, "12:00:00  "),
    "Kubernetes": lambda raw: prefixed(raw, "2024-05-01T12:00:00.123456789Z stdout F "),
    "Kubernetes, in pieces": lambda raw: pieces(
        raw, "2024-05-01T12:00:00.123456789Z stdout F ", "2024-05-01T12:00:00.123456789Z stdout P "
    ),
    "ts": lambda raw: prefixed(raw, "May 01 12:00:00 ", "May 01 12:00:01 "),
    "ts -s": lambda raw: prefixed(raw, "00:00:12 "),
    "ts %.s": lambda raw: prefixed(raw, "1714560000.123456 "),
    "journal": lambda raw: prefixed(raw, "May 01 12:00:00 host qemu-system-x86[123]: "),
    "journal, ISO": lambda raw: prefixed(raw, "2024-05-01T12:00:00+0200 host virtlogd[123]: "),
    "compose": lambda raw: prefixed(raw, "builder-1  | "),
    "compose in colour": lambda raw: prefixed(raw, "\x1b[36mbuilder-1  |\x1b[0m "),
    "brackets": lambda raw: prefixed(raw, "[2024-05-01 12:00:00] "),
    "tio": lambda raw: prefixed(raw, "[12:00:00.123] "),
    "conserver": lambda raw: prefixed(raw, "[Wed May  1 12:00:00 2024] "),
    "libvirt": lambda raw: prefixed(raw, "2024-05-01 12:00:00.000+0000: "),
    "CR LF": lambda raw: prefixed(raw, "[2024-05-01 12:00:00] ").replace(b"\n", b"\r\n"),
}


@cache
def expected(name: str) -> Verdict:
    return explain(CONSOLES[name])


def unwrapped(data: bytes, size: int = 1 << 16) -> bytes:
    return b"".join(unwrap(data[at : at + size] for at in range(0, len(data), size)))


def of_wrapped(data: bytes) -> Verdict:
    return explain(unwrap([data]))


@every_console
@pytest.mark.parametrize("size", [41, 1 << 20])
def test_a_raw_console_stays_as_it_is(name: str, size: int) -> None:
    raw = CONSOLES[name]
    assert unwrapped(raw, size) == raw
    assert kind_of(raw) is None


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(list(CONSOLES.values()))), max_size=3).map(b"".join))
def test_whatever_it_is_the_raw_console_stays_or_it_is_refused(raw: bytes) -> None:
    known = (*(magic for magic, _ in module._PACKED), b"\xef\xbb\xbf")
    if raw.startswith(known):
        return
    with contextlib.suppress(NoConsoleError):
        assert unwrapped(raw) == raw


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_verdict_is_that_of_the_raw_console(wrapping: str) -> None:
    for name, raw in CONSOLES.items():
        found = of_wrapped(WRAPPINGS[wrapping](raw))
        assert found == replace(expected(name), final=found.final), name


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_chunks_change_nothing(wrapping: str) -> None:
    data = WRAPPINGS[wrapping](DONE)
    whole = unwrapped(data)
    for size in (1, 13, 4099):
        assert unwrapped(data, size) == whole


def test_a_log_of_packers_is_more_than_the_console() -> None:
    lines = prefixed(CONSOLES["late-command"], PACKER).decode().splitlines(keepends=True)
    log = CHATTER + "".join(line + (TALK if at % 9 == 0 else "") for at, line in enumerate(lines)) + TALK
    assert of_wrapped(log.encode()) == expected("late-command")


def test_every_kind_of_prefix_is_tried() -> None:
    tried = {kind.name for data in (wrap(DONE) for wrap in WRAPPINGS.values()) if (kind := kind_of(data)) is not None}
    assert tried == {kind.name for kind in KINDS}


def test_some_stamped_lines_in_a_console_are_the_consoles_own() -> None:
    raw = DONE + b"[2024-05-01 12:00:00] written by a command\r\n" * 20
    assert unwrapped(raw) == raw


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x00" * 0x8000 + b"\x01CD001\x01" + b"\x00" * 5000, "an ISO image"),
        (b"QFI\xfb" + b"\x00" * 600, "qcow2"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 600, "a picture"),
        (b"P6\n720 400\n255\n" + b"\x00" * 600, "a picture"),
        (b"\x7fELF" + b"\x02" * 600, "a program"),
        (b"PK\x03\x04" + b"\x02" * 600, "ZIP"),
        (b"name" + b"\x00" * 253 + b"ustar" + b"\x00" * 600, "tar"),
        (b"\x00" * 512 + b"EFI PART" + b"\x00" * 600, "disk image"),
        (bytes(range(128, 256)) * 10, "does not read like a console"),
        (b"\x28\xb5\x2f\xfd" + b"\x00" * 600, "zstd"),
        (gzip.compress(b"QFI\xfb" + b"\x00" * 600, mtime=0), "qcow2"),
        (b"\x1f\x8b\x08" + b"\x00" * 600, "cannot be unpacked"),
        (b"\x1f\x8b\x08", "cannot be unpacked"),
    ],
)
def test_what_is_no_console_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=what) as caught:
        explain_saved(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_log_that_begins_with_a_hole_is_read() -> None:
    assert of_wrapped(b"\x00" * 100_000 + DONE).verdict == "success"


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1 << 20)
    with pytest.raises(NoConsoleError, match="more than 1 MiB"):
        of_wrapped(gzip.compress(b"x" * 200 + b"\n" + b"x" * (2 << 20)))


@pytest.mark.parametrize("wrapping", ["gzip", "asciicast v2", "GitHub with Packer", "typescript", "UTF-16"])
def test_memory_does_not_grow_with_the_console(wrapping: str) -> None:
    short = WRAPPINGS[wrapping](DONE * 60)
    long = WRAPPINGS[wrapping](DONE * 180)

    def peak(data: bytes) -> int:
        chunks: Iterable[bytes] = (data[at : at + 65536] for at in range(0, len(data), 65536))
        tracemalloc.start()
        for _ in unwrap(chunks):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(long) < peak(short) + (1 << 20)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "NAME.failed"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"holds no console\.log"):
        explain_saved(folder)
    (folder / "logs").mkdir()
    (folder / "logs/console.log").write_bytes(CONSOLES["asks"])
    assert explain_saved(folder).verdict == "stalled"
    (folder / "console.log").write_bytes(DONE)
    assert explain_saved(folder).verdict == "success"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(DONE))))
    assert explain_saved(Path("-")).verdict == "success"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"QFI\xfb")))
    with pytest.raises(UsageError, match="What came is a qcow2 disk image"):
        explain_saved(Path("-"))
    with pytest.raises(UsageError, match="No such file"):
        explain_saved(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert explain_saved(tmp_path / "empty") == explain(b"")


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "packer.log"
    path.write_bytes(WRAPPINGS["Packer's log"](CONSOLES["late-command"]))
    done = inside("explain", path, "--json")
    assert done.code == 0
    assert json.loads(done.out) == explain(CONSOLES["late-command"]).to_json()
    for wrong in (tmp_path, tmp_path / "none"):
        done = inside("explain", wrong)
        assert done.code == 2
        assert "Traceback" not in done.err
