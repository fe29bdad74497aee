"""Class files that are right: what they come to, what they extend, what the command line changes in them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pexpect
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.autoinstall import known, own, values
from builder.autoinstall.check import check
from builder.autoinstall.classfile import load, plain
from builder.autoinstall.content import sections_for
from builder.autoinstall.hidden import MASK
from builder.autoinstall.located import parse
from builder.autoinstall.machine import spec_of
from builder.autoinstall.model import ClassFile, verified
from builder.autoinstall.password import hash_password
from builder.autoinstall.render import render
from builder.cli_class import schema
from builder.errors import AnswersError
from builder.spec import GIB, Content, File, Snap, Spec
from tests.command_line import PREBAKE, environment, inside

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "classes").glob("*.yaml"))
BAD = sorted((ROOT / "tests/data/classes-bad").glob("*.yaml"))
HASH = hash_password("hunter2", salt="saltsalt")


def classes(tmp_path: Path, **texts: str) -> Path:
    """Write class files; return the path of `it.yaml`."""
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path / "it.yaml"


def spec(tmp_path: Path, text: str, **overrides: Any) -> Spec:
    found = load(classes(tmp_path, it=text), overrides)
    return spec_of(found.model, found.name)


def test_an_empty_class_is_the_lessons_machine(tmp_path: Path) -> None:
    lesson = Spec(name="it", network="auto")
    assert spec(tmp_path, "") == spec(tmp_path, "# nothing\n") == spec_of(plain({}), "it") == lesson


def test_everything_arrives(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    text = f"""
name: all-of-it
release: 22.10
arch: arm64
disk: 20G
user: {{name: student, full-name: "Ann O'Hara", password-hash: '{HASH}'}}
hostname: vm-1
locale: de_CH.UTF-8
keyboard: {{layout: ch, variant: fr}}
timezone: Europe/Zurich
storage: lvm
swap: 1G
firmware: uefi
network: {{version: 2, ethernets: {{any: {{match: {{name: "e*"}}, dhcp4: yes}}}}}}
offline: false
proxy: http://proxy.example:3128
mirror: http://mirror.example/ubuntu
updates: all
source: minimal
packages: [git, "nginx=1.24.0-2ubuntu7", python3.12/noble-updates]
snaps: [lxd, {{name: code, channel: latest/stable, classic: true}}]
files:
  - {{path: /srv/notes.txt, source: notes.txt, owner: student, group: www-data, mode: 600}}
  - {{path: /etc/motd, content: "Hello\\n"}}
run: [echo one, "echo two: three"]
exports: [ova, raw]
autoinstall: {{kernel: {{flavor: hwe}}}}
"""
    found = spec(tmp_path, text)
    assert found.content == Content(
        packages=("git", "nginx=1.24.0-2ubuntu7", "python3.12/noble-updates"),
        snaps=(Snap("lxd"), Snap("code", "latest/stable", classic=True)),
        files=(
            File("/srv/notes.txt", tmp_path / "notes.txt", "", "student", "www-data", 0o600),
            File("/etc/motd", None, "Hello\n"),
        ),
        commands=("echo one", "echo two: three"),
    )
    assert (found.disk, found.swap, found.storage, found.firmware) == (20 * GIB, GIB, "lvm", "uefi")
    assert (found.keyboard, found.keyboard_variant, found.timezone) == ("ch", "fr", "Europe/Zurich")
    assert found.netplan == {"version": 2, "ethernets": {"any": {"match": {"name": "e*"}, "dhcp4": True}}}
    assert (found.network, found.updates, found.source, found.exports) == ("nat", "all", "minimal", ("ova", "raw"))
    assert found.user.password_hash == HASH
    assert HASH not in repr(found)


def test_what_is_sealed_is_said(tmp_path: Path) -> None:
    found = spec(tmp_path, "cloud-init: nocloud\nfirmware-packages: 1G\nmay-fail: [nginx, tmp.mount]\n")
    assert (found.cloud_init, found.firmware_budget) == ("nocloud", GIB)
    assert found.may_fail == ("nginx.service", "tmp.mount")
    assert spec(tmp_path, "firmware-packages: keep\n").firmware_budget is None
    assert spec(tmp_path, "firmware-packages: remove\n").firmware_budget == 0
    assert spec(tmp_path, "", **{"cloud-init": "nocloud", "firmware-packages": "keep"}).cloud_init == "nocloud"
    storage = "autoinstall: {storage: {layout: {name: direct}, swap: {size: 1G}}}\n"
    assert spec(tmp_path, storage).swap is None
    assert not found.proxied
    assert spec(tmp_path, "autoinstall: {apt: {http_proxy: 'http://proxy.example:3128'}}\n").proxied
    assert spec(tmp_path, "proxy: http://proxy.example:3128\n").proxied


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cloud-init: on", "cloud-init"),
        ("firmware-packages: some", "says nothing of firmware"),
        ("may-fail: ['a b']", "is no name of a unit"),
    ],
)
def test_what_cannot_be_sealed_so_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(AnswersError, match=words):
        spec(tmp_path, text)


def test_the_command_line_says_how_it_is_sealed(tmp_path: Path) -> None:
    path = classes(tmp_path, it="")
    assert inside("render", path, "--cloud-init", "nocloud", "--firmware-packages", "300M").code == 0
    result = inside("render", path, "--firmware-packages", "some")
    assert result.code == 3
    assert "--firmware-packages: `some` says nothing of firmware" in result.err
    assert inside("render", path, "--cloud-init", "on").code == 2


def test_words_are_what_is_written(tmp_path: Path) -> None:
    """YAML 1.1 makes of them a number, false, an octal number and a base of 60."""
    found = load(classes(tmp_path, it="release: 22.10\nkeyboard: no\nhostname: 0755\nuser: {password: 1:20}\n"))
    model = found.model
    assert (model.release, model.keyboard.layout, model.hostname, model.user.password) == (
        "22.10",
        "no",
        "0755",
        "1:20",
    )


def test_a_class_extends_another(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "notes.txt").write_text("notes")
    (folder / "base.yaml").write_text(
        "name: base\ndisk: 20G\nuser: {name: student}\npackages: [git]\nrun: [echo base]\n"
        "files: [{path: /notes, source: notes.txt}]\nnetwork: {version: 2, ethernets: {a: {dhcp4: true}}}\n"
    )
    found = load(
        classes(
            tmp_path,
            it="extends: middle.yaml\nuser: {full-name: Ann}\npackages: [git, tree]\nrun: [echo it]\n",
            middle="extends: base/base.yaml\ndisk: 30G\nnetwork: dhcp\n",
        )
    )
    model = found.model
    assert (found.name, model.disk, model.user.name, model.user.full_name) == ("it", 30 * GIB, "student", "Ann")
    assert (model.packages, model.run, model.network) == (["git", "tree"], ["echo base", "echo it"], "dhcp")
    assert spec_of(model, "it").content.files[0].source == folder / "notes.txt"


def test_the_command_line_goes_before_the_class(tmp_path: Path) -> None:
    path = classes(tmp_path, it="disk: 20G\nkeyboard: {layout: ch, variant: fr}\nuser: {name: ann, full-name: Ann}\n")
    result = inside("render", path, "--keyboard", "de", "--user", "bob", "--timezone", "UTC")
    told = yaml.safe_load(result.out)["autoinstall"]
    assert told["keyboard"] == {"layout": "de", "variant": ""}
    assert (told["identity"]["username"], told["identity"]["realname"]) == ("bob", "Ann")
    assert told["timezone"] == "UTC"
    result = inside("render", path, "--user", "root", "--hostname", "a b")
    assert result.code == 3
    assert "--user: `root` is a user name that the system reserves" in result.err
    assert "--hostname: `a b` is no host name" in result.err


def test_a_class_and_its_parents_are_named_in_their_problems(tmp_path: Path) -> None:
    path = classes(tmp_path, it="extends: base.yaml\noffline: true\n", base="release: 24.04\npackages: [git]\n")
    result = inside("image", path)
    assert result.code == 3
    assert f"{tmp_path}/base.yaml:2:11: `packages` are fetched, but" in result.err


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_good_for_every_release(path: Path) -> None:
    assert len(EXAMPLES) >= 5
    for release in ("22.04", "24.04.1", "24.04", "26.04"):
        result = inside("render", path, "--release", release)
        assert result.code == 0, result.err
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


def test_validate_prints_a_table_and_exits_3_if_any_is_bad(tmp_path: Path) -> None:
    result = inside("validate", ROOT / "classes")
    assert result.code == 0
    rows = result.out.splitlines()
    assert rows[0].split() == ["FILE", "RELEASE", "ARCH", "DISK", "ADDS", "VERDICT"]
    assert [row.split()[0] for row in rows[1:]] == [str(path) for path in EXAMPLES]
    assert all(row.endswith("good") for row in rows[1:])
    classes(tmp_path, it="", bad="disk: 1G\n")
    result = inside("validate", tmp_path, "--json")
    assert result.code == 3
    bad, good = json.loads(result.out)
    assert (bad["good"], good["good"], good["disk"]) == (False, True, 10 * GIB)
    assert bad["problems"][0]["place"] == {"file": str(tmp_path / "bad.yaml"), "line": 1, "column": 7}
    assert inside("validate").code == 2
    assert inside("validate", tmp_path / "none.yaml").code == 3
    (tmp_path / "empty").mkdir()
    assert inside("validate", tmp_path / "empty").code == 2


def test_the_schema_completes_and_refuses_in_an_editor() -> None:
    found = json.loads(inside("class-schema").out)
    jsonschema.Draft202012Validator.check_schema(found)
    good: list[dict[str, Any]] = [
        {"firmware": "uefi", "swap": "none", "disk": "20G", "keyboard": "ch", "snaps": ["lxd"], "network": "dhcp"},
        {"firmware": ["bios", "uefi"], "keyboard": {"layout": "ch"}, "snaps": [{"name": "lxd"}], "release": 24.04},
        {"files": [{"path": "/a", "content": "x", "mode": "0600"}], "user": {"full-name": "A"}, "offline": True},
    ]
    for one in good:
        jsonschema.validate(one, found)
    bad: list[dict[str, Any]] = [
        {"pakages": []},
        {"user": {"pasword": "x"}},
        {"firmware": ["bios", "bios"]},
        {"firmware": "efi"},
        {"files": [{"content": "x"}]},
    ]
    for wrong in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, found)


def test_the_page_is_made_of_the_model() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/class-docs", "--check"], check=False, cwd=ROOT)
    assert done.returncode == 0, "run .venv/bin/python scripts/class-docs"


@pytest.mark.parametrize(
    "hashed",
    [
        HASH,
        "$5$saltsalt$" + "a" * 43,
        "$y$j9T$" + "a" * 22 + "$" + "b" * 43,
        "$gy$j9T$" + "a" * 22 + "$" + "b" * 43,
        "$7$CU..../....saltsalt$" + "a" * 43,
        "$2b$12$" + "a" * 53,
        "$1$saltsalt$" + "a" * 22,
        "$6$rounds=10000$saltsalt$" + "a" * 86,
    ],
)
def test_a_hash_may_have_any_form_of_crypt(hashed: str) -> None:
    assert values.password_hash(hashed) == hashed


def test_the_password_of_a_hash_has_to_be_known_before_anything_starts(tmp_path: Path) -> None:
    path = classes(tmp_path, it=f"user:\n  password-hash: '{HASH}'\n")
    assert verified("hunter2", HASH)
    assert inside("validate", path).code == 0
    assert HASH not in inside("render", path).out
    result = inside("image", path, "--iso", "none.iso", "-o", tmp_path / "output")
    assert result.code == 3
    assert f"{path}:2:18 holds only the password's hash, and prebake logs in" in result.err
    wrong = inside("image", path, "--iso", "none.iso", env={"PREBAKE_PASSWORD": "hunter3"})
    assert wrong.code == 3
    assert "is not the one that the hash in" in wrong.err
    assert "hunter3" not in wrong.err
    right = inside("image", path, "--iso", "none.iso", env={"PREBAKE_PASSWORD": "hunter2"})
    assert (right.code, "There is no ISO" in right.err) == (5, True)


def test_the_password_can_be_asked_for(tmp_path: Path) -> None:
    path = classes(tmp_path, it=f"user: {{password-hash: '{HASH}'}}\n")
    assert inside("image", path, "--ask-password").code == 2
    argv = ["image", str(path), "--iso", "none.iso", "--ask-password"]
    with pexpect.spawn(PREBAKE, argv, env=environment(), encoding="utf-8", timeout=60) as terminal:
        terminal.expect("Password: ")
        terminal.sendline("hunter2")
        terminal.expect("confirmation: ")
        terminal.sendline("hunter2")
        terminal.expect("There is no ISO")
        assert "hunter2" not in terminal.before
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 5


def test_secrets_are_masked_in_what_is_shown(tmp_path: Path) -> None:
    cloud = "{chpasswd: {list: 'ann:hunter2'}, users: [{name: ann, plain_text_passwd: hunter2}], password: 4711}"
    text = f"autoinstall: {{ubuntu-pro: {{token: C1hunter2}}, user-data: {cloud}}}\n"
    text += "proxy: http://me:hunter2@proxy.example:3128\nmirror: http://me:hunter2@mirror.example/ubuntu\n"
    result = inside("render", classes(tmp_path, it=text))
    assert result.code == 0, result.err
    assert "hunter2" not in result.out
    assert "4711" not in result.out
    assert result.out.count(MASK) == 5
    assert "http://proxy.example:3128" in result.out
    assert "http://mirror.example/ubuntu" in result.out
    found = load(tmp_path / "it.yaml")
    answers = render(spec_of(found.model, "it"), password_hash=HASH)
    assert {"C1hunter2", "hunter2", "4711", HASH} <= set(answers.secrets)


def test_an_iso_for_a_machine_that_nobody_finishes_has_the_content_in_its_answers(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"\0notes")
    text = "packages: [git]\nsnaps: [{name: lxd, channel: edge}]\nrun: [echo one]\n"
    text += "files: [{path: /n, source: notes.txt}]\n"
    assert sections_for(spec(tmp_path, text).content) == {
        "packages": ["git"],
        "snaps": [{"name": "lxd", "classic": False, "channel": "edge"}],
        "user-data": {
            "write_files": [
                {
                    "path": "/n",
                    "encoding": "b64",
                    "content": "AG5vdGVz",
                    "owner": "root:root",
                    "permissions": "0644",
                    "defer": True,
                }
            ],
            "runcmd": [["bash", "-ec", "echo one"]],
        },
    }


WORDS = st.sampled_from([*ClassFile.model_fields, "full-name", "password-hash", "path", "source", "content", "e*", "~"])
LEAVES = st.one_of(WORDS, st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.floats())
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4))


@given(TREES)
@settings(max_examples=300, deadline=None)
def test_any_tree_is_taken_or_refused_in_words(tree: Any) -> None:
    check_any(yaml.safe_dump(tree))


@given(st.text(max_size=80) | st.sampled_from(BAD).map(lambda path: path.read_bytes().decode("latin-1")))
@settings(max_examples=300, deadline=None)
def test_any_text_is_taken_or_refused_in_words(text: str) -> None:
    check_any(text)


def refusal_of(work: Callable[[], Any]) -> AnswersError | None:
    """What the work refuses, if it does; anything else it raises is a bug."""
    try:
        work()
    except AnswersError as error:
        return error
    return None


def check_any(text: str) -> None:
    """Every text is refused in words, or comes to a machine that is whole."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "it.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        refused = refusal_of(lambda: load(path))
        if refused is None:
            model = load(path).model
            assert all(one.source is None or Path(one.source).is_file() for one in model.files)
            refused = refusal_of(lambda: check(spec_of(model, "it")))
        assert refused is None or refused.problems


def test_places_are_those_of_the_values() -> None:
    document = parse("a: 1\nb:\n  - c: x\n    d: [y, z]\n", "f")
    found = {path: (place.line, place.column) for path, place in document.places.items()}
    assert found[("b", 0, "d", 1)] == (4, 12)
    assert str(document.place(("b", 0, "nothing", "there"))) == "f:3:5"
    assert str(document.place(("b", 0, "d"), key=True)) == "f:4:5"


def test_what_is_known_includes_what_this_host_knows() -> None:
    supported = Path("/usr/share/i18n/SUPPORTED")
    if supported.exists():
        names = {row.split()[0] for row in supported.read_text().splitlines() if row.endswith(" UTF-8")}
        assert names <= known.locales()
    assert known.keyboards()["ch"] >= {"fr", "de_nodeadkeys"}
    assert {"Europe/Zurich", "UTC", "Etc/UTC"} <= known.zones()
    assert "localtime" not in known.zones()


def test_what_looks_odd_and_is_right(tmp_path: Path) -> None:
    text = """
keyboard: {layout: "us,ru", variant: ","}
packages: [dns-server^, openssh-server, "libc6:amd64", awk]
files:
  - {path: "/srv/a b", content: x, owner: "1000"}
  - {path: "/srv/a b", content: y, mode: 600}
run: ["printf '%s' \\"a b\\" $HOME `id` 'it''s' > /srv/\\"x y\\""]
autoinstall: {late-commands: [rm -f /target/etc/cloud/cloud-init.disabled]}
"""
    found = spec(tmp_path, text)
    assert found.ssh_server
    check(found)
    assert inside("validate", tmp_path / "it.yaml").err == ""


def test_a_hash_of_ones_own_goes_before_an_inherited_password(tmp_path: Path) -> None:
    base = "user: {name: ann, password: first}\nkeyboard: ch\n"
    path = classes(
        tmp_path, it=f"extends: base.yaml\nuser: {{password-hash: '{HASH}'}}\nkeyboard: {{variant: fr}}\n", base=base
    )
    model = load(path).model
    assert (model.user.name, model.user.password, model.user.password_hash) == ("ann", None, HASH)
    assert (model.keyboard.layout, model.keyboard.variant) == ("ch", "fr")
    path = classes(
        tmp_path, it="extends: base.yaml\nkeyboard: {layout: de}\n", base="keyboard: {layout: ch, variant: fr}\n"
    )
    assert load(path).model.keyboard.variant == ""


def test_an_empty_password_is_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    for result in (
        inside("render", env={"PREBAKE_PASSWORD": ""}),
        inside("render", "--password-file", empty),
    ):
        assert result.code == 3
        assert "The password is empty" in result.err


def test_surprises_of_a_class_are_told(tmp_path: Path) -> None:
    text = "packages: [git]\nfiles: [{path: /a, content: x, owner: ubunut}]\n"
    text += "autoinstall: {storage: {layout: {name: lvm}}}\n"
    result = inside("validate", classes(tmp_path, it=text))
    assert result.code == 0
    assert "it.yaml:2:39: Nobody called `ubunut` is on the machine, unless a package brings one." in result.err
    assert "it.yaml:3:33: On a disk of more than 12 GiB the root volume gets only half of it." in result.err
    assert load(tmp_path / "it.yaml").model.autoinstall != {}
    assert not spec(tmp_path, text).whole_disk
    assert "nobody keeps it in" in inside("iso", classes(tmp_path, it="offline: true\n"), "--iso", "none.iso").err


def test_what_an_autoinstall_file_says_no_option_says_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"version: 1\nidentity: {{hostname: vm, username: ann, password: '{HASH}'}}\nlocale: de_CH.UTF-8\n"
                    "storage: {layout: {name: direct}}\n")  # fmt: skip
    for option, value in (("--hostname", "x"), ("--user", "bob"), ("--full-name", "Bob"), ("--templates", tmp_path)):
        result = inside("render", "--user-data", path, option, value)
        assert (result.code, f"{option} and --user-data exclude each other" in result.err) == (2, True), result.err
    assert inside("render", "--user-data", path, "--disk", "20G").code == 0
    found = own.spec_for(own.load(path), Spec(name="x"), "hunter2")
    assert (found.locale, found.keyboard, found.timezone) == ("de_CH.UTF-8", "us", "")


def test_a_folder_of_templates_has_to_be_there(tmp_path: Path) -> None:
    assert inside("render", "--templates", tmp_path / "none").code == 2
    for text in ("{{ 1 / 0 }}", "{% for x in range(10 ** 9) %}{% endfor %}", "{{ hostname | scalar(1, 2) }}"):
        (tmp_path / "user-data.j2").write_text(text)
        result = inside("render", "--templates", tmp_path)
        assert result.code == 3
        assert "The template user-data.j2 cannot be rendered" in result.err
