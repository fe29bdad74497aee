"""The answers: what is rendered, that nothing in a value can break it, that installers accept it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import sha512_crypt

from builder.autoinstall import loaders, own
from builder.autoinstall.check import check
from builder.autoinstall.hidden import MASK
from builder.autoinstall.lint import lint
from builder.autoinstall.password import hash_password
from builder.autoinstall.render import Answers, _expand, render, scalar, sentinel_command
from builder.autoinstall.sections import SECTIONS, SINCE, requested, version
from builder.autoinstall.shapes import Keys
from builder.autoinstall.storage import storage_traps
from builder.errors import AnswersError
from builder.install.explain import explain
from builder.rehearsal.guest import layout
from builder.resources import templates
from builder.spec import GIB, Content, File, Snap, Spec, User

HASH = hash_password("powercoders", salt="saltsalt")
LESSON = Spec(name="lesson")
ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT.parent / "shared/subiquity-schemas"
FAILED = "prebake-sentinel:failed:"


def told(answers: Answers) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(answers.user_data)
    assert list(data) == ["autoinstall"]
    return dict(data["autoinstall"])


BIOS_DIRECT = yaml.safe_load("""
- {id: disk, type: disk, path: /dev/vda, ptable: gpt, wipe: superblock-recursive, preserve: false, grub_device: true}
- {id: bios, type: partition, device: disk, number: 1, size: 1048576, flag: bios_grub, preserve: false}
- {id: esp, type: partition, device: disk, number: 2, size: 536870912, flag: boot, preserve: false}
- {id: esp-format, type: format, volume: esp, fstype: fat32}
- {id: esp-mount, type: mount, device: esp-format, path: /boot/efi}
- {id: root, type: partition, device: disk, number: 3, size: -1, preserve: false}
- {id: root-format, type: format, volume: root, fstype: ext4}
- {id: root-mount, type: mount, device: root-format, path: /}
""")
UEFI_LVM = yaml.safe_load("""
- {id: disk, type: disk, path: /dev/vda, ptable: gpt, wipe: superblock-recursive, preserve: false, grub_device: true}
- {id: bios, type: partition, device: disk, number: 1, size: 1048576, flag: bios_grub, preserve: false}
- {id: esp, type: partition, device: disk, number: 2, size: 536870912, flag: boot, preserve: false, grub_device: true}
- {id: esp-format, type: format, volume: esp, fstype: fat32}
- {id: esp-mount, type: mount, device: esp-format, path: /boot/efi}
- {id: boot, type: partition, device: disk, number: 3, size: 1879048192, preserve: false}
- {id: boot-format, type: format, volume: boot, fstype: ext4}
- {id: boot-mount, type: mount, device: boot-format, path: /boot}
- {id: pv, type: partition, device: disk, number: 4, size: -1, preserve: false}
- {id: vg, type: lvm_volgroup, name: ubuntu-vg, devices: [pv], preserve: false}
- {id: lv, type: lvm_partition, name: ubuntu-lv, volgroup: vg, size: -1, preserve: false}
- {id: root-format, type: format, volume: lv, fstype: ext4}
- {id: root-mount, type: mount, device: root-format, path: /}
""")
ONE = replace(LESSON, both=False)


def test_one_disk_for_both_firmwares() -> None:
    data = told(render(replace(LESSON, storage="lvm", firmware="uefi"), password_hash=HASH))
    assert data["storage"] == {"config": UEFI_LVM, "swap": {"size": 0}}
    assert data["packages"] == ["grub-pc-bin"]
    assert data["late-commands"][0] == "curtin in-target -- grub-install --target=i386-pc --recheck /dev/vda"
    for storage in ("direct", "lvm"):
        for firmware in ("bios", "uefi"):
            actions = loaders.layout(storage, firmware)
            layout.check(actions, uefi=firmware == "uefi")
            assert list(storage_traps({"config": actions}, version("24.04.3"))) == []
    with pytest.raises(layout.StorageError, match="SELECT_BOOT_DISK"):
        layout.check(loaders.layout("direct", "bios"), uefi=True)


def test_a_template_that_knows_one_firmware_only_is_told(tmp_path: Path) -> None:
    ours = (templates() / "autoinstall/user-data.j2").read_text()
    (tmp_path / "user-data.j2").write_text(ours.replace("if storage_config", "if false"))
    with pytest.raises(AnswersError, match="does not say what was asked for: firmware"):
        render(LESSON, password_hash=HASH, folders=[tmp_path])


def test_a_computer_and_one_firmware_get_the_installers_own_layout() -> None:
    for answers in (render(LESSON, password_hash=HASH, watched=False), render(ONE, password_hash=HASH)):
        data = told(answers)
        assert data["storage"] == {"layout": {"name": "direct"}, "swap": {"size": 0}}
        assert "packages" not in data
        assert "grub-install" not in answers.user_data


def test_the_lesson() -> None:
    answers = render(LESSON, password_hash=HASH)
    data = told(answers)
    commands = {key: data.pop(key) for key in ("early-commands", "error-commands", "late-commands")}
    assert data == {
        "version": 1,
        "locale": "en_US.UTF-8",
        "keyboard": {"layout": "us", "variant": ""},
        "refresh-installer": {"update": False},
        "source": {"id": "ubuntu-server", "search_drivers": False},
        "network": {
            "version": 2,
            "ethernets": {"any": {"match": {"name": "e*"}, "dhcp4": True, "optional": True}},
        },
        "apt": {"geoip": False, "fallback": "abort"},
        "packages": ["grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed"],
        "storage": {"config": BIOS_DIRECT, "swap": {"size": 0}},
        "identity": {"hostname": "ubuntu", "realname": "Ubuntu", "username": "ubuntu", "password": HASH},
        "ssh": {"install-server": False},
        "updates": "security",
        "shutdown": "poweroff",
    }
    (plain, removable, _) = commands["late-commands"]
    assert removable == f"{plain} --removable"
    assert plain.removeprefix("curtin in-target -- grub-install ").split() == [
        *("--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram", "--recheck"),
    ]
    assert commands["error-commands"][-1] == "sync; poweroff -f"
    assert yaml.safe_load(answers.meta_data) == {"instance-id": f"prebake-{answers.token}"}
    assert set(answers.files()) == {"/nocloud/user-data", "/nocloud/meta-data"}


def test_a_time_zone_only_if_asked() -> None:
    assert "timezone" not in told(render(LESSON, password_hash=HASH))
    data = told(render(replace(LESSON, timezone="Europe/Zurich"), password_hash=HASH))
    assert data["timezone"] == "Europe/Zurich"


def test_lvm_uses_the_whole_group() -> None:
    data = told(render(replace(ONE, storage="lvm"), password_hash=HASH))
    assert data["storage"]["layout"] == {"name": "lvm", "sizing-policy": "all"}


def test_a_medium_for_a_person_has_nothing_that_powers_off_or_reports() -> None:
    answers = render(LESSON, password_hash=HASH, watched=False)
    assert "error-commands" not in told(answers)
    assert "late-commands" not in told(answers)
    assert "sentinel" not in answers.user_data


def test_the_password_is_hashed_and_masked() -> None:
    answers = render(LESSON, password_hash=HASH)
    assert "powercoders" not in answers.user_data
    assert HASH not in answers.masked()
    assert MASK in answers.masked()
    assert HASH not in repr(answers)
    assert "powercoders" not in repr(LESSON)
    assert sha512_crypt.verify("powercoders", HASH)
    assert not sha512_crypt.verify("powercoder", HASH)
    assert hash_password("powercoders") != hash_password("powercoders")


def test_the_same_answers_have_the_same_token_and_others_another() -> None:
    one, two = (render(LESSON, password_hash=HASH) for _ in range(2))
    other = render(replace(LESSON, hostname="other"), password_hash=HASH)
    assert one == two
    assert other.token != one.token


def test_the_announced_command_is_no_sentinel() -> None:
    answers = render(ONE, password_hash=HASH)
    (late,) = told(answers)["late-commands"]
    announced = f"start:  subiquity/Late/run/command_0: {late}\r\n".encode()
    assert explain(announced, answers.token).verdict == "incomplete"
    said = f"\r\nprebake-sentinel:installed:{answers.token}\r\n".encode()
    assert explain(announced + said, answers.token).verdict == "success"
    assert sentinel_command("failed", "ab", "ttyAMA0").endswith("> /dev/ttyAMA0 || true")


NASTY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TEXTS = ("locale", "keyboard", "keyboard_variant", "timezone", "source", "fallback", "hostname", "full_name",
         "username", "password_hash", "proxy", "mirror", "updates")  # fmt: skip


@given(st.fixed_dictionaries(dict.fromkeys(TEXTS, NASTY)), st.dictionaries(NASTY, NASTY, max_size=3))
def test_no_value_can_break_or_inject(texts: dict[str, str], netplan: dict[str, str]) -> None:
    values = {**texts, "storage": "lvm", "storage_config": None, "swap": 0, "netplan": netplan}
    data = yaml.safe_load(_expand("user-data.j2", values, ()))
    assert list(data) == ["autoinstall"]
    told = data["autoinstall"]
    identity = {"hostname": "hostname", "realname": "full_name", "username": "username", "password": "password_hash"}
    assert told["identity"] == {key: texts[name] for key, name in identity.items()}
    assert told["keyboard"] == {"layout": texts["keyboard"], "variant": texts["keyboard_variant"]}
    assert told["network"] == netplan
    assert told.get("timezone", "") == texts["timezone"]
    assert told.get("proxy", "") == texts["proxy"]
    assert (told["locale"], told["updates"]) == (texts["locale"], texts["updates"])
    assert told["storage"] == {"layout": {"name": "lvm", "sizing-policy": "all"}, "swap": {"size": 0}}
    assert told.get("source", {}).get("id", "") == texts["source"]
    if texts["mirror"]:
        assert told["apt"]["primary"] == [{"arches": ["default"], "uri": texts["mirror"]}]


@given(NASTY)
def test_a_scalar_reads_back_on_one_line(text: str) -> None:
    assert yaml.safe_load(f"key: {scalar(text)}") == {"key": text}
    assert "\n" not in scalar(text)


def installers() -> dict[str, Any]:
    """The schema of each version of the installer."""
    known: dict[str, str] = json.loads((SCHEMAS / "by-installer-version.json").read_text())
    return {version: json.loads((SCHEMAS / name).read_text()) for version, name in known.items()}


FULL = replace(
    LESSON,
    timezone="Europe/Zurich",
    storage="lvm",
    swap=GIB,
    network="nat",
    netplan={"version": 2, "ethernets": {"any": {"match": {"name": "e*"}, "dhcp4": True}}},
    proxy="http://proxy.example:3128",
    mirror="http://mirror.example/ubuntu",
    updates="all",
    content=Content(("git",), (Snap("lxd", "edge"), Snap("code", classic=True)), (File("/a", content="x"),), ("true",)),
)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the installer's schemas are not here")
@pytest.mark.parametrize("spec", [LESSON, FULL, replace(LESSON, source="minimal", updates="none")])
@pytest.mark.parametrize("watched", [True, False])
def test_every_installer_accepts_what_is_rendered_for_it(spec: Spec, watched: bool) -> None:
    schemas = installers()
    assert len(schemas) >= 19
    for name, schema in schemas.items():
        old = version(name) < version("23.04")
        sized = replace(spec, storage="direct") if old else spec
        answers = render(sized, password_hash=HASH, watched=watched, installer=version(name))
        data = told(answers)
        jsonschema.validate(data, schema)
        assert set(data) <= set(schema["properties"]), name
        assert lint(data, version(name)) == [], name


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the installer's schemas are not here")
def test_the_sections_are_those_of_every_installer() -> None:
    for name, schema in installers().items():
        here = version(name)
        known = {key for key in SECTIONS if version(SINCE.get((key,), "0")) <= here}
        # Read since ever, but in the schema only since 24.04.1's.
        assert known - {"interactive-sections"} == set(schema["properties"]) - {"interactive-sections"}, name
        for section, told_of in schema["properties"].items():
            shape = SECTIONS[section]
            if isinstance(shape, Keys) and "properties" in told_of:
                keys = {key for key in shape.known if version(SINCE.get((section, key), "0")) <= here}
                # curtin takes more for apt than the schema tells.
                assert keys >= set(told_of["properties"]), (name, section)
                assert section == "apt" or keys == set(told_of["properties"]), (name, section)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("22.04.1", (22, 7, 2)),
        ("24.04.4", (24, 4, 4)),
        ("26.04.2", (26, 4, 2)),
        ("22.04", (24, 8, 1)),
        ("24.04", (24, 4, 99)),
        ("noble", (24, 4, 99)),
        ("jammy", (24, 8, 1)),
        ("lts", None),
    ],
)
def test_a_request_tells_whose_installer_reads_the_answers(release: str, expected: tuple[int, ...] | None) -> None:
    assert requested(release) == expected


def test_old_installers_are_told_only_what_they_know() -> None:
    for name, keys in (("22.04.2", {"geoip"}), ("23.08.1", {"geoip", "fallback"})):
        data = told(render(LESSON, password_hash=HASH, installer=version(name)))
        assert set(data["apt"]) == keys
        assert ("source" in data) == (name != "22.04.2")


def test_further_sections_go_before_ours_or_take_their_place() -> None:
    extra = {
        "early-commands": ["true"],
        "late-commands": ["echo theirs"],
        "error-commands": ["echo theirs"],
        "apt": {"geoip": True},
        "kernel": {"flavor": "hwe"},
    }
    data = told(render(replace(LESSON, autoinstall=extra), password_hash=HASH))
    assert data["early-commands"][1:] == ["true"], "the witness comes first"
    assert data["late-commands"][2] == data["error-commands"][0] == "echo theirs"
    assert "prebake-sentinel" in data["late-commands"][-1]
    assert data["error-commands"][-1] == "sync; poweroff -f"
    assert (data["apt"], data["kernel"]) == ({"geoip": True}, {"flavor": "hwe"})


def test_own_answers_get_what_the_pipeline_needs_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    theirs = {
        "version": 1,
        "identity": {"hostname": "vm", "username": "ann", "realname": "Ann", "password": HASH},
        "late-commands": ["echo theirs"],
        "storage": {"layout": {"name": "lvm", "sizing-policy": "all"}},
        "ssh": {"install-server": True},
    }
    for text in (yaml.safe_dump(theirs), "#cloud-config\n" + yaml.safe_dump({"autoinstall": theirs})):
        path.write_text(text)
        found = own.load(path)
        spec = own.spec_for(found, LESSON, None)
        assert (spec.user, spec.hostname) == (User("ann", "Ann", "powercoders", HASH), "vm")
        assert (spec.storage, spec.whole_disk, spec.ssh_server) == ("lvm", True, True)
        answers = own.answers_of(found, tty="ttyS0", watched=True)
        data = told(answers)
        assert {key: value for key, value in data.items() if key in theirs and key != "late-commands"} == {
            key: value for key, value in theirs.items() if key != "late-commands"
        }
        assert set(data) - set(theirs) == {"early-commands", "error-commands", "shutdown"}
        assert data["late-commands"][0] == "echo theirs"
        assert len(answers.added) == 4
        plain = own.answers_of(found, tty="ttyS0", watched=False)
        assert told(plain) == theirs
        assert not plain.added
    named = {**theirs, "identity": {**theirs["identity"], "username": "john.doe"}}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(named))
    check(own.spec_for(own.load(path, version("24.04.3")), LESSON, None), own=True)
    path.write_text(yaml.safe_dump({**theirs, "identity": None, "user-data": {}}))
    with pytest.raises(AnswersError, match="`identity` is empty"):
        own.load(path)
    path.write_text("version: 1\nuser-data: {}\n")
    with pytest.raises(AnswersError, match="prebake logs in as that user"):
        own.load(path)


def test_a_users_template_goes_before_ours_file_by_file(tmp_path: Path) -> None:
    ours = (ROOT / "templates/autoinstall/user-data.j2").read_text()
    (tmp_path / "user-data.j2").write_text(f"{ours}  early-commands: [{{{{ hostname | scalar }}}}]\n")
    answers = render(LESSON, password_hash=HASH, folders=(tmp_path,))
    assert told(answers)["early-commands"][1:] == ["ubuntu"]
    assert yaml.safe_load(answers.meta_data) == {"instance-id": f"prebake-{answers.token}"}
    (tmp_path / "user-data.j2").write_text(ours.replace("{{ hostname | scalar }}", "other"))
    with pytest.raises(AnswersError, match="does not say what was asked for: hostname"):
        render(LESSON, password_hash=HASH, folders=(tmp_path,))
    emptied = f"{ours.partition('    geoip')[0]}  storage:{ours.partition('  storage:')[2]}"
    (tmp_path / "user-data.j2").write_text(emptied)
    with pytest.raises(AnswersError, match="cannot be read back"):
        render(LESSON, password_hash=HASH, folders=(tmp_path,))
    (tmp_path / "user-data.j2").write_text(ours.replace("install-server", "install_server"))
    with pytest.raises(AnswersError, match="`install_server` is no key of `ssh`"):
        render(LESSON, password_hash=HASH, folders=(tmp_path,))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec(name="a/b"), "`a/b` cannot name an image"),
        (Spec(name="x", user=User(name="Bob")), "`Bob` is no user name"),
        (Spec(name="x", user=User(name="root")), "the system reserves"),
        (Spec(name="x", user=User(name="lxd")), "the system reserves"),
        (Spec(name="x", user=User(full_name="a:b")), "`a:b` cannot be a full name"),
        (Spec(name="x", user=User(full_name="a\nb")), "cannot be a full name"),
        (Spec(name="x", user=User(password="")), "password is empty"),
        (Spec(name="x", user=User(password="a\nb")), "cannot be typed"),
        (Spec(name="x", user=User(password="a\0")), "cannot be typed"),
        (Spec(name="x", user=User(password="a" * 5000)), "cannot be typed"),
        (Spec(name="x", hostname="a\nb"), "`a\\nb` is no host name"),
        (Spec(name="x", hostname="-a"), "`-a` is no host name"),
        (Spec(name="x", locale="en US"), "`en US` is no locale"),
        (Spec(name="x", timezone="../../etc/passwd"), "time zone"),
        (Spec(name="x", disk=GIB), "1.0 GiB is too small"),
        (Spec(name="x", storage="zfs"), "`zfs` is no choice of `storage`"),
        (Spec(name="x", firmware="coreboot"), "`coreboot` is no choice of `firmware`"),
    ],
)
def test_what_cannot_be_is_refused(spec: Spec, words: str) -> None:
    check(LESSON)
    with pytest.raises(AnswersError) as caught:
        check(spec)
    assert words in caught.value.message
    assert len(caught.value.problems) == 1
    assert caught.value.exit_code == 3


def test_a_broken_template_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "autoinstall"
    folder.mkdir()
    monkeypatch.setattr("builder.autoinstall.render.templates", lambda: tmp_path)
    (folder / "meta-data.j2").write_text("")
    for text, words in (
        ("#cloud-config\n{{ nonsense }}", "user-data.j2 cannot be rendered: 'nonsense' is undefined"),
        ("#cloud-config\n{% if %}", "user-data.j2, line 2"),
        ("autoinstall: {}", "does not begin with #cloud-config"),
        ("#cloud-config\nautoinstall: {identity: {}}", "cannot be read back"),
        ("#cloud-config\n{{ ''.__class__ }}", "cannot be rendered"),
    ):
        (folder / "user-data.j2").write_text(text)
        with pytest.raises(AnswersError) as caught:
            render(LESSON, password_hash=HASH)
        assert words in caught.value.message


@pytest.mark.parametrize("commands", ["echo", None, {"a": 1}])
def test_late_commands_that_are_no_list_are_refused_before_ours_are_added(commands: object) -> None:
    with pytest.raises(AnswersError, match="late-commands"):
        render(replace(LESSON, autoinstall={"late-commands": commands}), password_hash=HASH)
