"""Broken class files, each with the place and the words of its refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.autoinstall.check import check
from builder.autoinstall.classfile import load
from builder.autoinstall.machine import spec_of
from builder.errors import AnswersError
from tests.command_line import inside

BAD = Path(__file__).parent / "data/classes-bad"

CASES = {
    "unknown-key": ["3:1: `pakages` is no key of a class file. Did you mean `packages`?"],
    "unknown-key-in-user": ["1:21: `pasword` is no key of a class file. Did you mean `password`?"],
    "unknown-key-in-file": ["3:5: `ownr` is no key of a class file. Did you mean `owner`?"],
    "unknown-key-nothing-near": ["1:1: `zzz` is no key of a class file. Expected: `arch`"],
    "not-a-mapping": ["1:1: A class file holds keys with values, as in `release: 24.04`; here stands a list."],
    "just-text": ["1:1: A class file holds keys with values, as in `release: 24.04`; here stands `make me an image`."],
    "tab": ["2:1: This is no YAML: there is a tab, where only blanks may indent.", "Use blanks instead of the tab."],
    "colon": ["1:16: This is no YAML: mapping values are not allowed here. Put a value that holds `: ` in quotes."],
    "template-left-over": ["1:", "Is a template's `{{ … }}` left over?"],
    "unclosed": ["2:1: This is no YAML: while parsing a flow sequence"],
    "twice": ["3:1: The key `disk` stands here twice; first in line 1."],
    "latin1": ["2:20: The byte 0xfc is no UTF-8 text. Save the file as UTF-8."],
    "control": ["1:8: This is no YAML: the character 0x0007 is not allowed."],
    "bomb": ["The file holds more than 20000 values, aliases counted in full."],
    "loop": ["1:6: The values are nested more than 50 deep."],
    "release-number": ["1:10: `24.4` is no Ubuntu release. Did you mean `24.40` or `24.04`?"],
    "release-word": ["1:10: `Noble Numbat` is no Ubuntu release. Expected: 24.04, 24.04.3, noble, lts or latest."],
    "arch": ["1:7: `x86_64` is no architecture prebake builds for. Expected: `amd64` or `arm64`."],
    "disk-unit": ["1:7: A disk of 10 bytes is too small for the server. Expected: at least 4.0 GiB, better 10G.",
                  "Did you mean `10G`?"],
    "disk-small": ["1:7: A disk of 2.0 GiB is too small for the server."],
    "disk-word": ["1:7: `plenty` is not a size. Write a number and a unit, such as 10G or 512M."],
    "user-reserved": ["1:14: `admin` is a user name that the system reserves."],
    "user-capital": ["1:14: `Bob` is no user name. Expected: lower-case letters, digits and dashes"],
    "user-text": ["1:7: `user` is `ubuntu`; expected keys with values below it."],
    "full-name": ["1:19: `A:B` cannot be a full name. Expected: one line without a colon."],
    "password-empty": ["1:18: The password is empty: nobody could log in at the console."],
    "password-newline": ["1:", "The password cannot be typed at a console."],
    "password-list": ["1:18: `user.password` is something else; expected text."],
    "hash-plain": ["1:23: This is no password hash but plain text, and nobody could log in with it."],
    "hash-cut": ["1:23: The password's hash is incomplete or of an unknown kind."],
    "hash-other": ["2:3: The password is not the one that `password-hash` was made of."],
    "hostname": ["1:11: `class_vm` is no host name. Expected: letters, digits and dashes, at most 63."],
    "locale": ["1:9: `de_CH` is no locale that Ubuntu has in UTF-8. Did you mean `de_CH.UTF-8`?"],
    "keyboard": ["1:11: `qwertz` is no keyboard layout. Expected something like us, gb, de, ch or fr."],
    "keyboard-variant": ["1:11: `frr` is no variant of the keyboard layout `ch`. Did you mean `fr`?"],
    "timezone": ["1:11: `Europe/Zuerich` is no time zone. Did you mean `Europe/Zurich`?"],
    "timezone-city": ["1:11: `new york` is no time zone. Did you mean `America/New_York`?"],
    "storage": ["1:10: `zfs` is no choice of `storage`. Expected: `direct` or `lvm`."],
    "lvm-old": ["1:10: The installer of 22.04.1 ignores `sizing-policy: all`"],
    "source-old": ["The installer of 22.04.1 ignores `source` and installs the normal server."],
    "swap": ["1:7: `some` is not a size."],
    "firmware": ["1:", "`efi` is no choice of `firmware`. Did you mean `uefi`?"],
    "network-word": ["1:10: `dchp` is no network. Did you mean `dhcp`?"],
    "network-key": ["1:10: `ethernet` is no part of a netplan configuration. Did you mean `ethernets`?"],
    "network-version": ["1:10: The netplan configuration needs `version: 2`."],
    "offline-word": ["1:10: `offline` is `perhaps`; expected `true` or `false`."],
    "offline-packages": ["2:11: `packages` are fetched, but the machine is to be made offline."],
    "proxy": ["1:8: `proxy.example:3128` is no address of a server."],
    "mirror": ["1:9: `ftp://archive.example/ubuntu` is no address of a server."],
    "updates": ["1:10: `sometimes` is no choice of updates. Expected: `all`, `none` or `security`."],
    "source": ["1:9: `desktop` is no choice of `source`. Expected: `minimal` or `server`."],
    "packages-text": ["1:11: `packages` is `git htop`; expected a list, as in `[one, two]`."],
    "package-name": ["1:18: `Git Hub` is no name of a package."],
    "snap-name": ["1:9: `-lxd` is no name of a snap."],
    "snap-channel": ["1:30: `latest stable` is no snap channel."],
    "file-missing": ["1:30: The file `notes.txt` is not there. Did you mean `note.txt`?"],
    "file-folder": ["1:30: The file `.` is a folder, not a file."],
    "file-path": ["1:16: `notes.txt` is no place for a file. Expected an absolute path"],
    "file-dots": ["1:16: `/home/../etc/passwd` is no place for a file."],
    "file-both": ["1:9: The file `/a` needs either `source` or `content`."],
    "file-mode": ["1:38: `rw-r--r--` is no file mode. Expected three or four octal digits, as in `0644`."],
    "file-no-path": ["1:9: `path` is missing in `files[0]`."],
    "run-empty": ["1:7: The command is empty. Expected a line of shell."],
    "run-mapping": ["1:7: `run[0]` is a mapping of keys; expected text."],
    "exports": ["1:11: `ovf` is no format to export. Did you mean `ova`?"],
    "extends-missing": ["1:10: There is no class file `nowhere.yaml` beside this one."],
    "extends-circle": ["1:10: The classes extend each other in a circle: `extends-circle.yaml` leads back here."],
    "extends-broken": ["unknown-key.yaml:3:1: `pakages` is no key of a class file."],
    "autoinstall-owned": ["2:3: `identity` cannot stand under `autoinstall`: prebake writes it."],
    "autoinstall-unknown": ["2:3: `storgae` is no section of autoinstall;", "Did you mean `storage`?"],
    "autoinstall-new": ["3:3: `kernel-crash-dumps` is known since installer 24.10; this release's ignores it"],
    "autoinstall-report": ["2:24: The installer crashes at a report of the type `none`."],
    "release-old": ["1:10: `20.04` is a release too old for prebake. Expected: 22.04 or newer."],
    "swap-bytes": ["1:7: A swap file of 2048 bytes is too small.", "Did you mean `2048M`?"],
    "swap-large": ["2:7: A swap file of 64.0 GiB leaves no room on a disk of 10.0 GiB."],
    "file-swept": ["1:16: `/tmp/setup.sh` would not be there in the end: prebake clears `tmp` at the end."],
    "file-owner": ["1:39: Nobody called `ubunut` is on the machine. Did you mean `ubuntu`?"],
    "file-owner-of-a-base": ["classes/offline.yaml:15:12: Nobody called `ubuntu` is on the machine."],
    "password-alias": ["1:18: This is no YAML: found undefined alias. Put the value in quotes."],
    "password-comment": ["2:12: The password is empty: nobody could log in at the console."],
    "proxy-password": ["1:8: `ftp://proxy:21` is no address of a server."],
    "token-as-text": ["2:15: `ubuntu-pro` is no mapping; expected keys with values below it."],
    "encrypted": ["2:53: An encrypted disk asks for its password at every boot"],
    "storage-empty": ["2:12: `storage` has neither `layout` nor `config`: the installer would mount no root."],
    "mirror-and-apt": ["1:9: `autoinstall: apt` would take the place of `mirror`."],
    "jammy": ["2:15: `kernel-crash-dumps` is known since installer 24.10;"],
    "extends-typo": ["1:10: There is no class file `unknown-kye.yaml` beside", "Did you mean `unknown-key.yaml`?"],
    "extends-zero": ["1:10: There is no class file `a\\x00b` beside this one."],
    "extends-long": ["1:10: There is no class file"],
    "source-long": ["1:28: The file `aaaa"],
    "autoinstall-odd-id": ["2:27: `storage.config[0].id` is a list; expected text."],
}  # fmt: skip


def test_every_bad_file_is_one_of_the_cases() -> None:
    assert {path.stem for path in BAD.glob("*.yaml")} - {"extends-circle-2"} == CASES.keys()
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_bad_class_is_refused_with_its_place_and_a_remedy(name: str) -> None:
    result = inside("validate", BAD / f"{name}.yaml")
    assert result.code == 3, result
    for words in CASES[name]:
        assert words in result.err
    assert "Traceback" not in result.err


def test_no_bad_class_starts_anything(tmp_path: Path) -> None:
    result = inside("image", BAD / "unknown-key.yaml", "-o", tmp_path / "output")
    assert (result.code, result.out) == (3, "")
    assert f"{BAD}/unknown-key.yaml:3:1: `pakages`" in result.err
    assert not (tmp_path / "output").exists()


def test_a_secret_that_is_wrong_is_not_said() -> None:
    names = [path.stem for path in BAD.glob("*.yaml") if b"hunter2" in path.read_bytes()]
    assert len(names) >= 10
    for name in names:
        path = BAD / f"{name}.yaml"
        result = inside("validate", path, "--json")
        assert "hunter2" in path.read_text()
        assert "hunter2" not in result.out + result.err


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("relase: x\ndisk: 1\nhostname: a b\nrun: [ok, '']\n")
    with pytest.raises(AnswersError) as caught:
        load(path)
    lines = [one.place.line for one in caught.value.problems]
    assert lines == [1, 2, 3, 4]
    assert caught.value.message.startswith(f"`{path}` has 4 problems:")


def test_what_the_model_takes_the_last_look_takes(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("")
    check(spec_of(load(path).model, "plain"))
