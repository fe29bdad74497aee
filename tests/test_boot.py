"""What is refused once the medium is known: sizes, sources, releases, own answers that its installer does not take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from builder.autoinstall import own
from builder.autoinstall.password import hash_password
from builder.autoinstall.render import finish
from builder.boot import check_asked, check_layout, check_patience, installer, remastered
from builder.errors import AnswersError
from builder.events import Note, silent
from builder.media.image import Medium, inspect, read_file
from builder.spec import GIB, Spec, User
from builder.vm.qemu import MachineSpec, Nic
from tests.isofixture import AMD64, medium, workshop
from tests.mutants import applied

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Event

PLAIN = Spec(name="x")


@pytest.fixture(scope="module")
def found() -> Medium:
    return inspect(medium(AMD64))


def refusal(spec: Spec, of: Medium, answers: own.OwnAnswers | None = None) -> str:
    with pytest.raises(AnswersError) as caught:
        check_layout(spec, of, answers)
    return f"{caught.value.message} {caught.value.hint or ''}"


def test_what_the_medium_can_install_is_read_from_it(found: Medium) -> None:
    assert found.sources == {"ubuntu-server": 0}
    check_layout(PLAIN, found)


def test_a_disk_too_small_for_the_source_is_told_with_figures(found: Medium) -> None:
    large = replace(found, sources={"ubuntu-server": 5 * GIB, "ubuntu-server-minimal": 2 * GIB})
    said = refusal(replace(PLAIN, disk=5 * GIB), large)
    assert "A disk of 5.0 GiB is too small: ubuntu-server on this medium takes 5.0 GiB" in said
    assert "Give a disk of at least 7G." in said
    check_layout(replace(PLAIN, disk=7 * GIB), large)
    check_layout(replace(PLAIN, disk=6 * GIB, both=False), large)
    check_layout(replace(PLAIN, disk=4 * GIB, source="minimal"), large)


def test_a_source_that_the_medium_lacks_is_told(found: Medium) -> None:
    said = refusal(replace(PLAIN, source="minimal"), replace(found, version="24.04.3"))
    assert "The medium has no source `ubuntu-server-minimal`. Did you mean `ubuntu-server`?" in said


@pytest.mark.parametrize("release", ["22.04", "22.04.1"])
def test_an_installer_that_ignores_the_source_is_told(found: Medium, release: str) -> None:
    sources = {"ubuntu-server": 0, "ubuntu-server-minimal": 0}
    said = refusal(replace(PLAIN, source="minimal"), replace(found, version=release, sources=sources))
    assert f"The installer of {release} ignores `source`" in said


@pytest.mark.parametrize("release", ["22.04", "22.04.1", "22.04.2"])
def test_an_installer_that_halves_lvm_is_told(found: Medium, release: str) -> None:
    old = replace(found, version=release)
    said = refusal(replace(PLAIN, storage="lvm", disk=20 * GIB, both=False), old)
    assert f"The installer of {release} ignores `sizing-policy: all`" in said
    check_layout(replace(PLAIN, storage="lvm", disk=12 * GIB, both=False), old)
    check_layout(replace(PLAIN, storage="lvm", disk=20 * GIB), old)
    check_layout(replace(PLAIN, storage="lvm", disk=20 * GIB, both=False), replace(found, version="22.04.3"))


def test_own_answers_are_looked_at_again_for_the_installer_on_the_medium(found: Medium, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    hashed = hash_password("powercoders")
    text = f"version: 1\nidentity: {{hostname: a, username: b, password: {hashed}}}\nsource: {{id: ubuntu-serve}}\n"
    path.write_text(text)
    answers = own.load(path)
    said = refusal(PLAIN, replace(found, version="24.04.3"), answers)
    assert "own.yaml:3:14: The medium has no source `ubuntu-serve`. Did you mean `ubuntu-server`?" in said
    path.write_text(text.replace("ubuntu-serve}", "ubuntu-server}"))
    check_layout(PLAIN, replace(found, version="24.04.3"), own.load(path))
    assert "`source` is known since" in refusal(PLAIN, replace(found, version="22.04.1"), own.load(path))


def test_another_release_is_told_and_another_architecture_refused(found: Medium) -> None:
    said: list[Event] = []
    check_asked(found, found.version, "amd64", said.append)
    check_asked(found, found.series, None, said.append)
    check_asked(found, "noble", None, said.append)
    assert said == []
    check_asked(found, "26.04", None, said.append)
    (note,) = said
    assert isinstance(note, Note)
    assert note.level == "warning"
    assert f"holds {found.version}, not 26.04, which was asked for" in note.text
    with pytest.raises(AnswersError, match=r"The class is for arm64, and .* is for amd64"):
        check_asked(found, None, "arm64", said.append)


def test_an_installer_in_a_hurry_is_told_where_everything_is_emulated(found: Medium) -> None:
    said: list[Event] = []
    check_patience(replace(found, version="22.04.3"), "tcg", said.append)
    check_patience(replace(found, version="22.04.1"), "kvm", said.append)
    assert said == []
    check_patience(replace(found, version="22.04.1"), "tcg", said.append)
    assert "gives up on disks" in str(said[0])


@pytest.mark.parametrize(
    ("wanted", "restricted"),
    [({"network": "nat"}, False), ({"network": "offline"}, True), ({"network": "nat", "updates": "none"}, True)],
)
def test_the_installer_is_let_out_only_if_it_may(tmp_path: Path, wanted: dict[str, Any], restricted: bool) -> None:
    machine = MachineSpec(name="x", arch="amd64", accel="tcg", cpus=1, memory_mib=512, nic=Nic())
    made = installer(machine, replace(PLAIN, **wanted), tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert made.nic == Nic(restrict=restricted)


def test_nothing_of_a_machine_gets_into_grub(found: Medium) -> None:
    source = found.path.read_bytes()
    menus = []
    for spec in (PLAIN, replace(PLAIN, hostname='a" ; reboot\n}', user=User("x; y", "$(z)", "`p`"), locale="'")):
        answers = finish(
            {"hostname": spec.hostname, "user": spec.user.name}, password_hash="", tty="ttyS0", watched=True
        )
        result = applied(source, remastered(found, answers, silent, timeout=0))
        copy = workshop() / "grub-injection.iso"
        copy.write_bytes(result)
        menus.append([read_file(copy, name) for name in found.menus])
    assert menus[0] == menus[1]
    assert b"autoinstall" in menus[0][0]
