"""Images made, read back and compared with what Python says they should hold."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder import command
from builder.command import CommandError
from builder.errors import UsageError
from builder.events import Event, Progress
from builder.size import SECTOR, parse_size
from builder.vm import disk
from builder.vm.disk import coalesce

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")

NAMES = ["a b", "a,b,,c", "nbd:unix:x", "-o", "100%d%20", "json:{}", 'quo"te\\', "ünï", "new\nline", "file=x", "..;&|"]


def raw(image: Path, folder: Path) -> bytes:
    out = folder / "raw copy"
    command.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image.absolute()), str(out)])
    return out.read_bytes()


def patched(source: bytes, size: int, extents: list[tuple[int, bytes]]) -> bytes:
    content = bytearray(source[:size].ljust(size, b"\0"))
    for offset, data in extents:
        content[offset : offset + len(data)] = data
    return bytes(content)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10G", 10 << 30),
        ("10GiB", 10 << 30),
        ("10 gb", 10 << 30),
        ("512M", 512 << 20),
        ("1.5T", 3 << 39),
        ("0.5k", 512),
        ("1024", 1024),
        (" 4K ", 4096),
        ("1024B", 1024),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1G", "0", "0G", "10X", "1e9", "10 G B", "0x10", "511", "1.1K", "1..5G", "1,5G", "\u0661G", "inf"],
)
def test_nonsense_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@given(st.integers(1, 1 << 50), st.sampled_from("KMGT"))
def test_whole_units_are_exact(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number << {"K": 10, "M": 20, "G": 30, "T": 40}[unit]


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=12)), max_size=12))
def test_coalescing_keeps_every_byte_and_leaves_gaps_between(extents: list[tuple[int, bytes]]) -> None:
    merged = coalesce(extents)
    blank, other = bytes(80), b"\xff" * 80
    assert patched(blank, 80, merged) == patched(blank, 80, extents)
    assert patched(other, 80, merged) == patched(other, 80, extents)
    ends = [offset + len(data) for offset, data in merged]
    assert all(end < start for end, (start, _) in zip(ends, merged[1:], strict=False))
    assert all(data for _, data in merged)


@needs_qemu_img
@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_will_do(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = random.Random(name).randbytes(1 << 16)  # noqa: S311 - test data
    source = Path(f"{name}.iso")
    source.write_bytes(content)
    overlay, top, copy = Path(f"{name}.1"), Path(f"{name}.2"), Path(f"{name}.3")
    extents = [(100, b"changed")]
    disk.write_overlay(source, 1 << 17, extents, overlay)
    disk.create(top, None, overlay, "qcow2")
    told = disk.info(top)
    assert (told.format, told.size, told.backing_format) == ("qcow2", 1 << 17, "qcow2")
    assert told.backing == str(tmp_path / overlay)
    assert disk.check(overlay).clean
    disk.convert(top, copy, compression="zstd")
    assert disk.info(copy).backing is None
    assert raw(copy, tmp_path) == patched(content, 1 << 17, extents)


@needs_qemu_img
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=st.binary(max_size=3000).map(lambda piece: (piece * 70)[:200_000]),
    sectors=st.integers(1, 600),
    extents=st.lists(st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=5000)), max_size=6),
)
def test_an_overlay_reads_as_the_patched_source(
    tmp_path: Path, source: bytes, sectors: int, extents: list[tuple[int, bytes]]
) -> None:
    source = source.ljust(-(-len(source) // SECTOR) * SECTOR, b"\0")
    size = sectors * SECTOR
    fitting = [(offset % size, data[: size - offset % size]) for offset, data in extents]
    medium = tmp_path / "medium.iso"
    medium.write_bytes(source)
    overlay = tmp_path / "overlay.qcow2"
    disk.write_overlay(medium, size, fitting, overlay)
    assert raw(overlay, tmp_path) == patched(source, size, fitting)
    assert disk.check(overlay).clean
    assert medium.read_bytes() == source


@needs_qemu_img
def test_an_overlay_of_a_big_medium_is_thin(tmp_path: Path) -> None:
    """Fifty extents, ten megabytes, over two and a half gigabytes, of which nothing is read or copied."""
    medium = tmp_path / "medium.iso"
    size = 2500 << 20
    with medium.open("wb") as file:
        file.truncate(size)
    piece = bytes(range(256)) * 800
    extents = [(number * 49_999_872 + 2048, piece) for number in range(50)]
    overlay = tmp_path / "overlay.qcow2"
    disk.write_overlay(medium, size + (4 << 20), [*extents, (size + 512, b"tail")], overlay)
    told = disk.info(overlay)
    assert told.size == size + (4 << 20)
    assert told.allocated < 24 << 20
    got = tmp_path / "piece"
    command.run(
        [
            *("qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"if={overlay}", f"of={got}", "bs=512"),
            *(f"skip={extents[49][0] // 512}", f"count={(extents[49][0] + len(piece)) // 512}"),
        ]
    )
    assert got.read_bytes() == piece


@needs_qemu_img
def test_hundreds_of_extents_are_written(tmp_path: Path) -> None:
    medium = tmp_path / "medium.iso"
    medium.write_bytes(bytes(1 << 20))
    extents = [(number * 1024, number.to_bytes(2, "big")) for number in range(450)]
    disk.write_overlay(medium, 1 << 20, extents, tmp_path / "o")
    assert raw(tmp_path / "o", tmp_path) == patched(bytes(1 << 20), 1 << 20, extents)


@pytest.mark.parametrize(
    ("size", "extents"),
    [(0, []), (1000, []), (1024, [(-1, b"x")]), (1024, [(1020, b"12345")])],
)
def test_what_does_not_fit_an_overlay(tmp_path: Path, size: int, extents: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ValueError):
        disk.write_overlay(tmp_path / "source", size, extents, tmp_path / "overlay")
    assert list(tmp_path.iterdir()) == []


def test_an_image_needs_a_size_or_a_backing_image(tmp_path: Path) -> None:
    for arguments in ((None, None, None), (1024, tmp_path, None), (None, None, "raw")):
        with pytest.raises(ValueError):
            disk.create(tmp_path / "x", *arguments)


@needs_qemu_img
@pytest.mark.parametrize("compression", ["zlib", "zstd", None])
def test_converting_reports_progress_and_keeps_the_content(tmp_path: Path, compression: str | None) -> None:
    content = random.Random(1).randbytes(5 << 20) + bytes(3 << 20)  # noqa: S311 - test data
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(content)
    said: list[Event] = []
    disk.convert(source, copy, source_format="raw", compression=compression, report=said.append)  # type: ignore[arg-type] # parametrized
    assert raw(copy, tmp_path) == content
    assert disk.info(copy).compression == (compression or "zlib")
    steps = [event for event in said if isinstance(event, Progress)]
    assert len(steps) == len(said) > 1
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total == len(content)


@needs_qemu_img
def test_other_formats_take_options(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy.vmdk"
    source.write_bytes(bytes(1 << 20))
    disk.convert(source, copy, source_format="raw", form="vmdk", options=["subformat=streamOptimized"])
    assert disk.info(copy).format == "vmdk"


@needs_qemu_img
def test_a_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"no qcow2" * 512)
    with pytest.raises(CommandError):
        disk.convert(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@needs_qemu_img
def test_an_interrupted_copy_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(8 << 20))

    def interrupt(_event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disk.convert(source, tmp_path / "copy", source_format="raw", report=interrupt)
    assert not (tmp_path / "copy").exists()


@needs_qemu_img
def test_damage_is_found(tmp_path: Path) -> None:
    image = tmp_path / "image"
    disk.create(image, 1 << 20)
    assert disk.check(image).clean
    with image.open("r+b") as file:  # the refcount block's entry for the first cluster, the header
        file.seek(int.from_bytes(image.read_bytes()[48:56], "big"))
        block = int.from_bytes(file.read(8), "big")
        file.seek(block)
        file.write(b"\0\0")
    found = disk.check(image)
    assert not found.clean
    assert found.corruptions


@needs_qemu_img
def test_a_write_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medium = tmp_path / "medium"
    medium.write_bytes(bytes(1 << 20))
    create = disk.create

    def create_and_damage(path: Path, size: int, backing: Path, form: str) -> None:
        create(path, size, backing, form)
        path.write_bytes(path.read_bytes()[:100])

    monkeypatch.setattr(disk, "create", create_and_damage)
    with pytest.raises(CommandError):
        disk.write_overlay(medium, 1 << 20, [(0, b"x")], tmp_path / "overlay")
