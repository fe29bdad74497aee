"""Bytes made to mislead: refused with a clear error, in bounded time and memory, with nothing changed or left.

Time is bounded by counting what is read (every way into an ISO goes through `Window`), never by a clock. Memory is
bounded for real: the command runs with an address space of 1 GB. Every case is made from a sound ISO of 1 MB.
"""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.command import run
from builder.errors import MediumError, PrebakeError, RemasterError
from builder.media.image import inspect, read_file
from builder.media.reader import open_volume
from builder.media.remaster import plan
from builder.media.window import PARSE_BUDGET, Window
from tests.isofixture import AMD64, Variant, medium, missing_programs, workshop
from tests.mutants import FILES, MOST_STEPS, SMALL, SMALL_MBR, SMALL_PLAIN, STEP, Template, applied, judge

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
SECTOR, BLOCK = 2048, 512
BOUNDED = """
import resource, sys
most = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (most, most))
from builder.cli import main
main()
"""
MEMORY = 1 << 30
"""What the command may take, as address space; it takes about 300 MB for a sound medium, libraries and all."""
READ_AT_MOST = 256 << 20
"""What may be read for one ISO by all of inspect, read_file and plan, which open it about ten times."""


@functools.cache
def template(variant: Variant = AMD64) -> Template:
    return Template.of(medium(variant), quick=variant != AMD64)


class Disc:
    """An ISO being spoilt: where its parts lie, and how to change them."""

    def __init__(self) -> None:
        self.data = bytearray(template().data)

    def number(self, offset: int) -> int:
        return int.from_bytes(self.data[offset : offset + 4], "little")

    def put(self, offset: int, raw: bytes) -> None:
        self.data[offset : offset + len(raw)] = raw

    def both(self, offset: int, value: int) -> None:
        self.put(offset, struct.pack("<I", value) + struct.pack(">I", value))

    @property
    def root(self) -> int:
        """The sector of the root directory."""
        return self.number(16 * SECTOR + 158)

    def record(self, name: bytes, directory: int | None = None) -> int:
        """The offset of a record in a directory of one sector."""
        at = (self.root if directory is None else directory) * SECTOR
        while self.data[at]:
            if self.data[at + 33 : at + 33 + self.data[at + 32]] == name:
                return at
            at += self.data[at]
        raise LookupError(name)

    def use(self, record: int, signature: bytes) -> int:
        """The offset of a Rock Ridge entry of a record."""
        found = self.data.index(signature, record + 33, record + self.data[record])
        assert found
        return found

    def insert(self, record: int, raw: bytes) -> None:
        """Put ``raw`` before a record's Rock Ridge entries and push what is behind."""
        at = record + 33 + self.data[record + 32] + (self.data[record + 32] + 1) % 2
        edge = (record // SECTOR + 1) * SECTOR
        self.data[record] += len(raw)
        self.put(at, raw + bytes(self.data[at : edge - len(raw)]))

    def catalog(self) -> int:
        """The offset of the boot catalog."""
        return self.number(17 * SECTOR + 71) * SECTOR

    def seal(self) -> None:
        """Make the checksums of the partition table right again."""
        for at in (BLOCK, len(self.data) - BLOCK):
            start, count, size = struct.unpack_from("<QII", self.data, at + 72)
            if start * BLOCK + count * size <= len(self.data):
                self.put(
                    at + 88, struct.pack("<I", zlib.crc32(self.data[start * BLOCK : start * BLOCK + count * size]))
                )
            self.put(at + 16, bytes(4))
            self.put(at + 16, struct.pack("<I", zlib.crc32(self.data[at : at + 92])))


CASES: dict[str, tuple[Callable[[Disc], object], str]] = {}
"""How to spoil an ISO, and what the refusal of `plan` has to say."""


def case(says: str) -> Callable[[Callable[[Disc], None]], Callable[[Disc], None]]:
    def add(spoil: Callable[[Disc], None]) -> Callable[[Disc], None]:
        CASES[spoil.__name__] = (spoil, says)
        return spoil

    return add


@case(r"form a loop: `/.*` lies in sector \d+")
def directory_that_contains_itself(disc: Disc) -> None:
    casper = disc.number(disc.record(b"CASPER") + 2)
    at = disc.record(b"VMLINUZ.;1", casper)
    disc.both(at + 2, casper)
    disc.both(at + 10, SECTOR)
    disc.data[at + 25] = 2


@case(r"form a loop: `/CASPER` lies in sector")
def root_as_a_child(disc: Disc) -> None:
    disc.both(disc.record(b"CASPER") + 2, disc.root)


@case("loop")
def parent_as_a_child_of_a_child(disc: Disc) -> None:
    boot = disc.number(disc.record(b"BOOT") + 2)
    disc.both(disc.record(b"GRUB", boot) + 2, boot)


@case(r"path table .* does not agree with its directories: for \d+ directories \d+ bytes were expected")
def path_table_loop(disc: Disc) -> None:
    """The second directory is its own parent."""
    for offset, order in ((140, "<H"), (148, ">H")):
        at = int.from_bytes(
            disc.data[16 * SECTOR + offset : 16 * SECTOR + offset + 4], "little" if order[0] == "<" else "big"
        )
        disc.put(at * SECTOR + 10 + 6, struct.pack(order, 2))


@case("path table of 4294967295 bytes; at most")
def path_table_of_four_gigabytes(disc: Disc) -> None:
    disc.both(16 * SECTOR + 132, 0xFFFFFFFF)


@case("path table of 16777216 bytes; at most")
def huge_path_table_of_joliet(disc: Disc) -> None:
    disc.both(18 * SECTOR + 132, 16 << 20)


@case(r"`/CASPER` is said to have 2048 bytes in sector 4294967295, beyond the end")
def directory_beyond_the_end(disc: Disc) -> None:
    disc.both(disc.record(b"CASPER") + 2, 0xFFFFFFFF)


@case(r"`/CASPER` is said to have 4294967295 bytes")
def directory_of_four_gigabytes(disc: Disc) -> None:
    disc.both(disc.record(b"CASPER") + 10, 0xFFFFFFFF)


@case("impossible length|does not begin with|beyond the end")
def root_in_the_system_area(disc: Disc) -> None:
    disc.both(16 * SECTOR + 158, 0)


@case(r"file `/casper/vmlinuz` lies behind the file system.*4200 bytes in sector 4294967295|beyond the end")
def file_beyond_the_end(disc: Disc) -> None:
    casper = disc.number(disc.record(b"CASPER") + 2)
    disc.both(disc.record(b"VMLINUZ.;1", casper) + 2, 0xFFFFFFFF)


@case("lies behind the file system")
def file_of_four_gigabytes(disc: Disc) -> None:
    casper = disc.number(disc.record(b"CASPER") + 2)
    disc.both(disc.record(b"VMLINUZ.;1", casper) + 10, 0xFFFFFFFF)


@case("contradicts itself")
def byte_orders_that_differ(disc: Disc) -> None:
    disc.data[disc.record(b"CASPER") + 9] ^= 1


@case(r"4294967295 entries of 128 bytes")
def huge_count_of_partitions(disc: Disc) -> None:
    for at in (BLOCK, len(disc.data) - BLOCK):
        disc.put(at + 80, struct.pack("<I", 0xFFFFFFFF))
    disc.seal()


@case(r"248 entries of 4294967295 bytes")
def huge_partition_entries(disc: Disc) -> None:
    for at in (BLOCK, len(disc.data) - BLOCK):
        disc.put(at + 84, struct.pack("<I", 0xFFFFFFFF))
    disc.seal()


@case(r"partition 3 \(.*\) goes from block \d+ to 18446744073709551615, and the ISO has \d+ blocks")
def partition_to_the_end_of_the_world(disc: Disc) -> None:
    backup = int.from_bytes(disc.data[len(disc.data) - BLOCK + 72 :][:8], "little")
    for start in (2, backup):
        disc.put(start * BLOCK + 2 * 128 + 40, b"\xff" * 8)
    disc.seal()


@case(r"its 248 entries are in block \d+; they should be")
def partition_entries_among_the_files(disc: Disc) -> None:
    start = disc.number(disc.record(b"INITRD.;1", disc.number(disc.record(b"CASPER") + 2)) + 2) * 4
    disc.put(start * BLOCK, bytes(disc.data[2 * BLOCK : 64 * BLOCK]))
    disc.put(BLOCK + 72, struct.pack("<Q", start))
    disc.seal()


@case("its 248 entries are in block 2; they should be")
def backup_that_shares_the_first_ones_entries(disc: Disc) -> None:
    """Both would be written when the table grows, and the second over what is behind the first."""
    disc.put(len(disc.data) - BLOCK + 72, struct.pack("<Q", 2))
    disc.seal()


@case("`/` has an entry of the impossible name '[.]'")
def directory_called_dot(disc: Disc) -> None:
    at = disc.use(disc.record(b"DISTS"), b"NM")
    disc.insert(disc.record(b"DISTS"), b"")
    disc.put(at, b"NM" + bytes([6, 1, 0]) + b"." + b"PD" + bytes([disc.data[at + 2] - 6, 1]))


@case("`/casper` has an entry of the impossible name ''")
def joliet_name_of_nothing(disc: Disc) -> None:
    at = disc.data.index("hwe-vmlinuz".encode("utf-16-be"))
    disc.put(at, ";".encode("utf-16-be"))


@case("goes on in sector .* at .* for .* bytes; expected")
def continuation_outside(disc: Disc) -> None:
    disc.both(disc.use(disc.record(b"\0"), b"CE") + 4, 0x7FFFFFFF)


@case("goes on in sector .* for 4294967295 bytes")
def continuation_of_four_gigabytes(disc: Disc) -> None:
    disc.both(disc.use(disc.record(b"\0"), b"CE") + 20, 0xFFFFFFFF)


@case("goes on in more than 16 places")
def continuation_in_circles(disc: Disc) -> None:
    """The area that is named holds a CE entry that names it again."""
    entry = disc.use(disc.record(b"\0"), b"CE")
    sector, offset = disc.number(entry + 4), disc.number(entry + 12)
    disc.both(entry + 20, 28)
    disc.put(sector * SECTOR + offset, bytes(disc.data[entry : entry + 28]))


@case("goes on in sector .* for 0 bytes")
def continuation_of_nothing(disc: Disc) -> None:
    disc.both(disc.use(disc.record(b"\0"), b"CE") + 20, 0)


@case("a Rock Ridge entry of `/` has an impossible length: it begins with 5446")
def entry_of_no_length(disc: Disc) -> None:
    disc.data[disc.use(disc.record(b"CASPER"), b"TF") + 2] = 0


@case(r"was moved elsewhere \(Rock Ridge CL")
def relocated_directory_in_circles(disc: Disc) -> None:
    """A child link to an ancestor: a walk that follows it reads nothing and never ends."""
    disc.insert(disc.record(b"CASPER"), b"CL\x0c\x01" + struct.pack("<I", disc.root) + struct.pack(">I", disc.root))


@case("do not show the same files.*Joliet.*`/boot/grub/grub.cfg` in another place")
def joliet_with_other_contents(disc: Disc) -> None:
    """Two files of one folder are exchanged in one tree: the same extents, under other names."""
    at = [disc.data.index(name.encode("utf-16-be")) - 33 for name in ("grub.cfg", "loopback.cfg")]
    one, two = (bytes(disc.data[place + 2 : place + 18]) for place in at)
    disc.put(at[0] + 2, two)
    disc.put(at[1] + 2, one)


@case("do not show the same files")
def joliet_without_a_file(disc: Disc) -> None:
    at = disc.data.index("grub.cfg".encode("utf-16-be")) - 33
    disc.both(at + 10, 0)


@case("boot catalog in sector .* does not end")
def boot_catalog_without_end(disc: Disc) -> None:
    """Thousands of sections, through the whole file system, each with 65535 images."""
    at = disc.catalog()
    disc.put(at + 64, (b"\x90\xef" + struct.pack("<H", 65535) + bytes(27) + b"x") * 5000)


@case(r"\d+ more boot images are announced than one sector has room for")
def boot_catalog_of_many_images(disc: Disc) -> None:
    disc.put(disc.catalog() + 64 + 2, struct.pack("<H", 65535))
    disc.put(disc.catalog() + 128, (b"\x88" + bytes(7) + struct.pack("<I", 1) + bytes(20)) * 60)


@case("boot images should lie before the EFI system partition")
def boot_image_beyond_the_end(disc: Disc) -> None:
    disc.put(disc.catalog() + 32 + 8, b"\xff\xff\xff\xff")


@case("boot catalog in sector 4294967295 (does not end|is damaged)")
def boot_catalog_beyond_the_end(disc: Disc) -> None:
    disc.put(17 * SECTOR + 71, b"\xff\xff\xff\xff")


@case("more than 32 volume descriptors")
def descriptors_without_end(disc: Disc) -> None:
    for number in range(19, 80):
        disc.put(number * SECTOR, bytes(disc.data[16 * SECTOR : 17 * SECTOR]))


@case("UDF file system too")
def udf_beside(disc: Disc) -> None:
    disc.put(19 * SECTOR, b"\0BEA01\1")


@case("blocks of 512 bytes")
def other_blocks(disc: Disc) -> None:
    for sector in (16, 18):
        disc.put(sector * SECTOR + 128, b"\0\2\2\0")


@case("Two things on the ISO lie in the same place")
def directory_over_another(disc: Disc) -> None:
    """The path tables of one tree lie in a directory: they are read alike."""
    joliet = disc.number(18 * SECTOR + 140)
    at = disc.record(b"VMLINUZ.;1", disc.number(disc.record(b"CASPER") + 2))
    for offset, raw in _everywhere(disc, bytes(disc.data[at + 2 : at + 10])):
        disc.both(offset, joliet - raw)


def _everywhere(disc: Disc, place: bytes) -> list[tuple[int, int]]:
    """Where a file's place is told in all four trees, and how much less it is there."""
    found = []
    for less in (0, 16):
        number = int.from_bytes(place[:4], "little") - less
        raw = struct.pack("<I", number) + struct.pack(">I", number)
        at = disc.data.find(raw)
        while at >= 0:
            found.append((at, less))
            at = disc.data.find(raw, at + 1)
    return found


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes read through windows."""
    readings: list[int] = []
    at = Window.at

    def noted(self: Window, offset: int, length: int) -> bytes:
        data = at(self, offset, length)
        readings.append(len(data))
        return data

    monkeypatch.setattr(Window, "at", noted)
    return readings


def spoilt(name: str) -> bytes:
    disc = Disc()
    CASES[name][0](disc)
    assert len(disc.data) == len(template().data)
    assert disc.data != template().data
    return bytes(disc.data)


@pytest.mark.parametrize("name", CASES)
def test_a_structure_that_misleads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "x.iso"
    image.write_bytes(spoilt(name))
    readings = counted(monkeypatch)
    with pytest.raises((MediumError, RemasterError), match=CASES[name][1]) as caught:
        plan(image, FILES)
    assert judge(image) == (str(caught.value.exit_code), None)
    assert sum(readings) < READ_AT_MOST
    assert image.read_bytes() == spoilt(name)
    assert list(tmp_path.iterdir()) == [image]


def structures() -> list[int]:
    return list(template().sectors)


@pytest.mark.parametrize("inside", [0, 1, 512, 2047])
def test_cut_off_inside_every_structure(inside: int, tmp_path: Path) -> None:
    image = tmp_path / "x.iso"
    for sector in structures():
        image.write_bytes(template().data[: sector * SECTOR + inside])
        with pytest.raises(MediumError, match=r"cut off|too short|empty|not an ISO|looks like"):
            inspect(image)
        with pytest.raises((MediumError, RemasterError)):
            plan(image, FILES)


def test_a_bit_flipped_in_every_structure(tmp_path: Path) -> None:
    image = tmp_path / "x.iso"
    for number, sector in enumerate(template(SMALL).sectors):
        data = bytearray(template(SMALL).data)
        used = [at for at in range(sector * SECTOR, (sector + 1) * SECTOR) if data[at]]
        if used:
            data[used[number * 37 % len(used)]] ^= 1 << number % 8
            image.write_bytes(data)
            judge(image)


def judged(image: Path) -> str:
    """Judge a mutant; an accepted one has to be right when it is applied, and is then a medium with the files."""
    before = image.read_bytes()
    outcome, patch = judge(image)
    assert image.read_bytes() == before
    if patch is not None:
        image.write_bytes(applied(before, patch))
        for path, content in FILES.items():
            assert read_file(image, path) == content
        assert plan(image, FILES).extents == ()
    return outcome


@functools.cache
def scratch() -> Path:
    memory = Path("/dev/shm")
    return (memory if os.access(memory, os.W_OK) else workshop()) / f"prebake-mutant-{os.getpid()}.iso"


def recipes() -> st.SearchStrategy[bytes]:
    step = st.builds(
        lambda kind, site, place, value: struct.pack("<BBHI", kind, site, place, value),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 65535),
        st.integers(0, 0xFFFFFFFF),
    )
    steps = st.lists(step, min_size=1, max_size=MOST_STEPS).map(b"".join)
    return st.builds(lambda body, last: body + bytes([last]), steps, st.integers(0, 7))


@pytest.mark.parametrize("variant", [SMALL, SMALL_PLAIN, SMALL_MBR], ids=lambda variant: variant.name)
def test_mutants_are_refused_or_right(variant: Variant) -> None:
    """See `make fuzz` for thousands, guided by coverage."""
    kinds: set[str] = set()

    @settings(max_examples=70, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(recipes())
    def hold(recipe: bytes) -> None:
        image = scratch()
        image.write_bytes(template(variant).mutant(recipe))
        kinds.add(judged(image))

    try:
        hold()
    finally:
        scratch().unlink(missing_ok=True)
    assert "6" in kinds


def test_a_recipe_makes_the_same_mutant_and_steps_change_something() -> None:
    recipe = struct.pack("<BBHI", 1, 0, 0, 5) + b"\0"
    mutant = template().mutant(recipe)
    assert mutant == template().mutant(recipe)
    assert mutant != template().data
    assert template().mutant(b"") == template().data
    assert len(recipe) - 1 == STEP


def sparse(path: Path, size: int, head: bytes) -> Path:
    with path.open("wb") as out:
        out.write(head)
        out.truncate(size)
    return path


def descriptor(size: int) -> bytes:
    """The first sectors of an ISO of zeros with a valid primary volume descriptor and a path table of zeros."""
    disc = Disc()
    disc.both(16 * SECTOR + 80, size // SECTOR)
    disc.both(16 * SECTOR + 158, 1000)
    disc.both(16 * SECTOR + 166, SECTOR)
    return bytes(SECTOR * 16) + bytes(disc.data[16 * SECTOR : 17 * SECTOR]) + b"\xffCD001\1"


def other_files(folder: Path) -> list[tuple[Path, int, str]]:
    """Files that are no ISO or a hollow one, with the exit code and the words they deserve."""
    size = 8 << 30
    (folder / "empty.iso").touch()
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "qcow2.iso"), "1G"])
    return [
        (folder / "empty.iso", 5, "is empty"),
        (folder / "qcow2.iso", 5, "looks like a qcow2 disk image"),
        (sparse(folder / "zeros.iso", size, b""), 5, "should have `CD001` in sector 16"),
        (sparse(folder / "hollow.iso", size, descriptor(size)), 5, "has no folder /casper"),
        (sparse(folder / "cut.iso", 1 << 20, descriptor(size)), 5, "is cut off: it has 1048576 bytes"),
    ]


def told(command: str, *arguments: object) -> tuple[int, str]:
    """Run a command in a bounded address space; return its exit code and what it said, in one line.

    QEMU, which `image` asks for its accelerators, takes more than a gigabyte of addresses before anything else.
    """
    most = MEMORY if command == "iso" else 4 * MEMORY
    program = [sys.executable, "-c", BOUNDED, str(most), command, *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert "Installing" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


def test_files_that_are_no_medium(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path, code, words in other_files(tmp_path):
        blocks = path.stat().st_blocks
        for command in (("iso", "-o", out / "y.iso"), ("image", "--accel", "tcg", "-o", out)):
            found, said = told(*command, "--iso", path)
            assert (found, words in said, "Traceback" in said) == (code, True, False), said
        assert list(out.iterdir()) == []
        assert path.stat().st_blocks == blocks


COMMANDED = (
    "directory_that_contains_itself",
    "boot_catalog_without_end",
    "relocated_directory_in_circles",
    "path_table_of_four_gigabytes",
    "huge_count_of_partitions",
    "joliet_with_other_contents",
)


def test_the_commands_refuse_what_misleads(tmp_path: Path) -> None:
    """`image` before the installer's machine is started."""
    out, image = tmp_path / "out", tmp_path / "x.iso"
    out.mkdir()
    for number, name in enumerate(COMMANDED):
        image.write_bytes(spoilt(name))
        commands = (("iso", "-o", out / "y.iso"), ("image", "--accel", "tcg", "-o", out))
        code, said = told(*commands[number % 2], "--iso", image)
        assert code in {5, 6}, said
        assert "Traceback" not in said
        assert list(out.iterdir()) == []
        assert image.read_bytes() == spoilt(name)


class Endless:
    """A parser that goes round in circles, reading little or nothing."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.rounds = 0

    def open_fp(self, file: Any) -> None:
        while True:
            file.seek(0)
            file.read(self.length)
            self.rounds += 1

    def close(self) -> None:
        pass


@pytest.mark.parametrize("length", [0, 1, SECTOR, 1 << 20])
def test_a_parser_in_circles_is_stopped(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Endless(length)
    monkeypatch.setattr("builder.media.reader.pycdlib.PyCdlib", lambda: parser)
    opened = medium(AMD64).open("rb")
    with opened as file, pytest.raises(MediumError, match="do not come to an end"), open_volume(file):
        pass
    assert 0 < parser.rounds <= PARSE_BUDGET // 512


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), MemoryError(), struct.error("x"), UnicodeDecodeError("a", b"", 0, 1, "r")]
)
def test_whatever_a_parser_raises_is_told(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object, _file: object) -> None:
        raise error

    monkeypatch.setattr("pycdlib.PyCdlib.open_fp", fail)
    with pytest.raises(PrebakeError, match="The ISO is damaged") as caught:
        inspect(medium(AMD64))
    assert caught.value.exit_code == 5


def test_names_from_a_medium_cannot_command_a_terminal(tmp_path: Path) -> None:
    image = tmp_path / "x.iso"
    disc = Disc()
    for at in (16, 18):
        disc.put(at * SECTOR + 40, b"\x1b]0;owned\x07\x1b[2J".ljust(32))
    name = disc.use(disc.record(b"CASPER"), b"NM")
    disc.put(name + 5, b"\x1b[2J\xff\n")
    image.write_bytes(disc.data)
    with pytest.raises(MediumError, match=r"no folder /casper") as caught:
        inspect(image)
    assert caught.value.message.replace(str(tmp_path), "").isprintable()
    assert r"\x1b" in caught.value.message
    with pytest.raises(RemasterError) as refused:
        plan(image, FILES)
    assert refused.value.message.isprintable()
