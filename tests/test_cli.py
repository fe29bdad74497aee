"""The command line: what goes where, and bad input refused before anything expensive, with nothing left behind."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from passlib.hash import sha512_crypt

from builder.command import run
from builder.media.image import inspect, read_file
from tests.command_line import inside, prebake
from tests.isofixture import VARIANTS, extract, medium, missing_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.isofixture import Variant

needs_iso = pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())}")
LAYOUTS = [variant for variant in VARIANTS if variant.name != "many"]


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for output, and make sure that a refused build leaves it, and the place beside it, empty."""
    output = tmp_path / "output"
    yield output
    assert not output.exists() or not list(output.rglob("*"))


def test_a_path_that_is_no_iso(nothing_left: Path, tmp_path: Path) -> None:
    cases = {
        "text.iso": (b"hello, I am a text\n" * 9000, "is not an ISO 9660 image"),
        "empty.iso": (b"", "is empty"),
        "short.iso": (b"\0" * 2048, ""),
    }
    for name, (data, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        result = inside("image", "--iso", path, "-o", nothing_left)
        assert (result.code, result.out) == (5, "")
        assert words in result.err
        assert str(path) in result.err
        assert "Traceback" not in result.err
    result = inside("image", "--iso", tmp_path / "none.iso", "-o", nothing_left)
    assert result.code == 5
    assert "There is no ISO at" in result.err
    result = inside("image", "--iso", tmp_path, "-o", nothing_left)
    assert result.code in {2, 5}


@needs_iso
def test_an_iso_that_is_no_live_server(nothing_left: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "readme").write_text("x")
    path = tmp_path / "plain.iso"
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "HOLIDAYS", "-o", str(path), str(tree)])
    result = prebake("image", "--iso", path, "-o", nothing_left)
    assert (result.code, result.out) == (5, "")
    assert "HOLIDAYS" in result.err
    assert "casper" in result.err


@needs_iso
def test_an_image_that_exists(tmp_path: Path) -> None:
    kept = tmp_path / "output/mine/mine.qcow2"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    (kept.parent / "manifest.json").write_text("{}")
    for arguments in (("--iso", medium(LAYOUTS[0])), ("--medium", "rehearsal")):
        result = inside("image", *arguments, "--name", "mine", "-o", tmp_path / "output")
        assert (result.code, result.out) == (2, "")
        assert "exists already" in result.err
        assert "--force" in result.err
        result = inside("image", *arguments, "--name", "mine", "-o", tmp_path / "output", "--force")
        assert (result.code, result.out) == (2, "")
        assert "no image folder of prebake's" in result.err
    assert kept.read_text() == "precious"
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["mine"]


@needs_iso
def test_an_accelerator_that_does_not_work(nothing_left: Path) -> None:
    usable = json.loads(prebake("doctor", "--json").out)["accelerators"]
    broken = [name for name in ("kvm", "hvf", "whpx") if not usable.get(name, {}).get("usable")]
    assert broken
    for name in broken:
        result = prebake("image", "--iso", medium(LAYOUTS[0]), "--accel", name, "-o", nothing_left)
        assert (result.code, result.out) == (4, "")
        assert f"The accelerator {name} is not usable" in result.err
        assert "--accel tcg" in result.err


@needs_iso
def test_no_qemu(nothing_left: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}"
    result = prebake("image", "--iso", medium(LAYOUTS[0]), "-o", nothing_left, env={"PATH": path})
    assert (result.code, result.out) == (4, "")
    assert "`qemu-system-x86_64` is not installed" in result.err
    assert "qemu-system-x86" in result.err.partition("What to do")[2]
    result = prebake("doctor", "--json", env={"PATH": path})
    assert result.code == 4
    assert json.loads(result.out)["able"] is False


@needs_iso
@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small tmpfs")
def test_a_full_disk_is_known_before(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)])
    try:
        result = prebake("image", "--iso", medium(LAYOUTS[0]), "-o", small / "output")
        left = list(small.iterdir())
    finally:
        run(["umount", str(small)])
    assert (result.code, result.out, left) == (4, "", [])
    assert "are free" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--disk", "lots"), 2, "`lots` is not a size"),
        (("--disk", "1G"), 3, "too small"),
        (("--hostname", "a b"), 3, "`a b` is no host name"),
        (("--user", "root"), 3, "the system reserves"),
        (("--timezone", "../x"), 3, "time zone"),
        (("--iso", "x.iso", "--medium", "rehearsal"), 2, "exclude each other"),
        (("--password-file", "/nonexistent"), 2, "password file"),
        (("--nonsense",), 2, "No such option"),
        (("--name", "../up", "--iso", "x.iso"), 3, "`../up` cannot name an image"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], code: int, words: str, nothing_left: Path) -> None:
    result = inside("image", *arguments, "-o", nothing_left)
    assert (result.code, result.out) == (code, "")
    assert words in result.err


def test_render_shows_no_hash_unless_asked() -> None:
    hidden = inside("render")
    shown = inside("render", "--show-hash", env={"PREBAKE_PASSWORD": "other"})
    assert hidden.code == shown.code == 0
    assert "$6$" not in hidden.out
    assert sha512_crypt.verify("other", yaml.safe_load(shown.out)["autoinstall"]["identity"]["password"])
    assert "ttyAMA0" in inside("render", "--arch", "arm64").out


@needs_iso
@pytest.mark.parametrize("variant", LAYOUTS, ids=lambda variant: variant.name)
def test_any_iso_of_the_layout_is_remastered(variant: Variant, tmp_path: Path) -> None:
    source = medium(variant)
    target = tmp_path / "out.iso"
    result = prebake("iso", "--iso", source, "-o", target)
    assert (result.code, result.out) == (0, f"{target}\n")
    assert inspect(target).volume_id == inspect(source).volume_id
    menus = inspect(source).menus
    assert menus
    tty = "ttyAMA0" if "arm64" in variant.name else "ttyS0"
    for name in menus:
        lines = [row for row in read_file(target, name).decode().splitlines() if "/casper/" in row and "linux" in row]
        assert lines
        for row in lines:
            before = row.partition("---")[0]
            assert " autoinstall " in before
            assert '"ds=nocloud;s=/cdrom/nocloud/"' in before or "nocloud\\;" in before
            assert f"console={tty},115200n8" in before
    told = yaml.safe_load(read_file(target, "/nocloud/user-data"))["autoinstall"]
    assert told["identity"]["username"] == "ubuntu"
    tree = extract(target, tmp_path / "tree")
    run(["md5sum", "--quiet", "-c", "md5sum.txt"], cwd=tree)
    again = prebake("iso", "--iso", source, "-o", target)
    assert again.code == 2
    assert "exists already" in again.err
    assert prebake("iso", "--iso", target, "-o", target, "--force").code == 2


@needs_iso
def test_the_list_of_changed_sectors() -> None:
    source = medium(LAYOUTS[0])
    before = source.read_bytes()
    result = prebake("iso", "--iso", source, "--diff")
    assert result.code == 0
    rows = [re.fullmatch(r"(\d+)-(\d+)  (\S.*)", row) for row in result.out.splitlines()]
    told = json.loads(prebake("iso", "--iso", source, "--diff", "--json").out)
    assert [match and match[3] for match in rows] == [one["what"] for one in told]
    assert all(one["first"] <= one["last"] < two["first"] for one, two in itertools.pairwise(told))
    assert told[0]["what"].startswith("protective MBR")
    assert any(one["what"] == "contents of /nocloud/user-data" for one in told)
    assert re.search(r"\d+ of \d+ sectors of 2048 bytes change, in \d+ ranges", result.err)
    assert source.read_bytes() == before
    assert not Path("output").joinpath("ubuntu-server-24.04.3-lts-amd64-autoinstall.iso").exists()


@needs_iso
def test_a_medium_that_was_remastered_by_hand_has_one_set_of_answers(tmp_path: Path) -> None:
    """What another tool has put in the way does not compete: its file for the installer, its seed, its arguments."""
    source, tree = medium(LAYOUTS[0]), tmp_path / "tree"
    (tree / "nocloud").mkdir(parents=True)
    (tree / "autoinstall.yaml").write_text("autoinstall: {version: 1, identity: {username: else}}")
    (tree / "nocloud/vendor-data").write_text("#cloud-config\nusers: []\n")
    menu = read_file(source, "/boot/grub/grub.cfg").decode().replace(
        "  ---", ' autoinstall "ds=nocloud;s=/cdrom/server/" quiet ---'
    )  # fmt: skip
    (tree / "grub.cfg").write_text(menu)
    by_hand = tmp_path / "by-hand.iso"
    # fmt: off
    run([
        "xorriso", "-indev", str(source), "-outdev", str(by_hand), "-boot_image", "any", "replay",
        "-joliet", "on", "-compliance", "joliet_long_paths:joliet_long_names",
        "-map", str(tree / "autoinstall.yaml"), "/autoinstall.yaml", "-map", str(tree / "nocloud"), "/nocloud",
        "-map", str(tree / "grub.cfg"), "/boot/grub/grub.cfg",
    ])
    # fmt: on
    target = tmp_path / "out.iso"
    result = prebake("iso", "--iso", by_hand, "-o", target)
    assert result.code == 0, result.err
    assert b"else" not in read_file(target, "/autoinstall.yaml")
    assert read_file(target, "/nocloud/vendor-data") == b""
    for row in read_file(target, "/boot/grub/grub.cfg").decode().splitlines():
        if "/casper/" in row and "linux" in row:
            assert row.count("autoinstall") == row.count("ds=") == 1, row
            assert "/server/" not in row
            assert " quiet " in row


def test_explain(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"start: subiquity/Late/run: \r\nAn error occurred. Press enter to start a shell\r\n")
    result = inside("explain", log, "--json")
    told = json.loads(result.out)
    assert result.code == 0
    assert set(told) == {"verdict", "phase", "cause", "reason", "hint", "lines"}
    assert told["verdict"] == "failure"
    assert "failure" in inside("explain", log).out
    assert inside("explain", tmp_path / "none").code == 2


def test_verify_refuses_what_is_no_image(tmp_path: Path) -> None:
    assert inside("verify", tmp_path / "none.qcow2").code == 2
    bad = tmp_path / "bad.qcow2"
    bad.write_bytes(b"QFI\xfb" + b"\xff" * 600)
    text = tmp_path / "text.qcow2"
    text.write_text("no image at all\n" * 100)
    for path in (bad, text):
        result = inside("verify", path)
        assert result.code == 11
        assert "is no disk image" in result.err
        assert "Traceback" not in result.err


def test_errors_as_json(tmp_path: Path) -> None:
    result = prebake("image", "--iso", tmp_path / "none.iso", "--log-format", "json")
    (row,) = [json.loads(line) for line in result.err.splitlines()]
    assert (row["event"], row["exit_code"]) == ("Error", 5)
    assert row["hint"]


def test_help_and_version() -> None:
    assert "unattended" in prebake("--help").out
    assert prebake("--version").out.startswith("prebake, version ")
    for name in (
        "image",
        "iso",
        "render",
        "validate",
        "class-schema",
        "rehearsal",
        "explain",
        "verify",
        "doctor",
        "releases",
    ):
        assert inside(name, "--help").code == 0


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_wheel_holds_what_the_checkout_has(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("prebake-*.whl")
    target = tmp_path / "site"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)])
    code = "import builder, builder.cli; builder.cli.cli(['render'], prog_name='prebake')"
    out = run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(target)}).stdout.decode()
    assert yaml.safe_load(out)["autoinstall"]["version"] == 1
    for name in ("templates/guest/seal.sh", "rehearsal/hooks/customize", "rehearsal/live/initrd/scripts/casper"):
        assert (target / "builder" / name).is_file()
    # mmdebstrap starts the hooks, so they must still be programs after the installation.
    assert os.access(target / "builder/rehearsal/hooks/customize", os.X_OK)
    assert os.access(target / "builder/rehearsal/live/root/usr/bin/curtin", os.X_OK)
