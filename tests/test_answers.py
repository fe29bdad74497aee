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

from builder.autoinstall.check import check
from builder.autoinstall.password import hash_password
from builder.autoinstall.render import MASK, Answers, _expand, render, scalar, sentinel_command
from builder.errors import AnswersError
from builder.install.explain import explain
from builder.spec import GIB, Spec, User

HASH = hash_password("powercoders", salt="saltsalt")
LESSON = Spec(name="lesson")
SCHEMAS = Path(__file__).parent.parent.parent / "shared/subiquity-schemas"
FAILED = "prebake-sentinel:failed:"


def told(answers: Answers) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(answers.user_data)
    assert list(data) == ["autoinstall"]
    return dict(data["autoinstall"])


def test_the_lesson() -> None:
    answers = render(LESSON, password_hash=HASH)
    data = told(answers)
    commands = {key: data.pop(key) for key in ("error-commands", "late-commands")}
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
        "storage": {"layout": {"name": "direct"}, "swap": {"size": 0}},
        "identity": {"hostname": "ubuntu", "realname": "Ubuntu", "username": "ubuntu", "password": HASH},
        "ssh": {"install-server": False},
        "updates": "security",
        "shutdown": "poweroff",
    }
    assert len(commands["late-commands"]) == 1
    assert commands["error-commands"][-1] == "sync; poweroff -f"
    assert yaml.safe_load(answers.meta_data) == {"instance-id": f"prebake-{answers.token}"}
    assert set(answers.files()) == {"/nocloud/user-data", "/nocloud/meta-data"}


def test_a_time_zone_only_if_asked() -> None:
    assert "timezone" not in told(render(LESSON, password_hash=HASH))
    data = told(render(replace(LESSON, timezone="Europe/Zurich"), password_hash=HASH))
    assert data["timezone"] == "Europe/Zurich"


def test_lvm_uses_the_whole_group() -> None:
    data = told(render(replace(LESSON, storage="lvm"), password_hash=HASH))
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
    answers = render(LESSON, password_hash=HASH)
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
    values = {**texts, "storage": "lvm", "swap": 0, "netplan": netplan}
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


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the installer's schemas are not here")
@pytest.mark.parametrize("storage", ["direct", "lvm"])
@pytest.mark.parametrize("watched", [True, False])
def test_every_installer_accepts_them(storage: str, watched: bool) -> None:
    data = told(render(replace(LESSON, storage=storage), password_hash=HASH, watched=watched))
    paths = sorted(SCHEMAS.glob("autoinstall-schema.*.json"))
    assert len(paths) >= 8
    for path in paths:
        jsonschema.validate(data, json.loads(path.read_text()))


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
