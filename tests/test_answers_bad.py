"""Autoinstall files with the traps that Ubuntu's own validator does not see, each with its place and words.

An entry is the file, the release whose installer reads it (or none: the newest), and what has to be said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from builder.autoinstall.own import examine
from tests.command_line import inside

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
#cloud-config
autoinstall:
  version: 1
  identity:
    hostname: vm
    username: student
    password: {hash}
"""
HASH = "$6$saltsalt$" + "a" * 86
BARE = GOOD.replace("#cloud-config\nautoinstall:\n", "").replace("\n  ", "\n").removeprefix("  ")


def more(text: str, indent: int = 2) -> str:
    """The good file with more sections."""
    return GOOD + "".join(f"{' ' * indent}{line}\n" for line in text.splitlines())


CASES: dict[str, tuple[str, str, str]] = {
    "plain-text password": (GOOD.replace("{hash}", "hunter2"), "", "7:15: This is no password hash but plain text"),
    "no version": (GOOD.replace("  version: 1\n", ""), "", "3:3: `version: 1` is missing."),
    "version 2": (GOOD.replace("version: 1", "version: 2"), "", "3:12: The version is `2`; expected `1`."),
    "no identity": ("autoinstall:\n  version: 1\n", "", "There is neither `identity` nor `user-data`"),
    "no password": (GOOD.replace("    password: {hash}\n", ""), "", "5:5: `identity` has no `password`."),
    "reserved user": (GOOD.replace("student", "admin"), "", "6:15: `admin` is a user name that the system reserves."),
    "user in capitals": (GOOD.replace("student", "Bob"), "", "6:15: `Bob` is no user name."),
    "key in identity": (GOOD + "    shell: /bin/sh\n", "", "8:5: `shell` is no key of `identity`; the installer would"),
    "groups too early": (
        GOOD + "    groups: [adm]\n",
        "24.04.3",
        "8:5: `identity.groups` is known since installer 26.04; this release's refuses it.",
    ),
    "unknown layout": (
        more("storage:\n  layout:\n    name: dirct"),
        "",
        "10:13: `dirct` is no choice of `storage.layout.name`. Did you mean `direct`?",
    ),
    "bad sizing-policy": (
        more("storage: {layout: {name: lvm, sizing-policy: everything}}"),
        "",
        "`everything` is no choice of `storage.layout.sizing-policy`.",
    ),
    "sizing-policy of direct": (
        more("storage: {layout: {name: direct, sizing-policy: all}}"),
        "",
        "`sizing-policy` goes only with `lvm`.",
    ),
    "sizing-policy too early": (
        more("storage: {layout: {name: lvm, sizing-policy: all}}"),
        "22.04.2",
        "`storage.layout.sizing-policy` is known since installer 23.04; this release's ignores it without a word.",
    ),
    "layout and config": (
        more("storage: {layout: {name: direct}, config: []}"),
        "",
        "`layout` and `config` exclude each other;",
    ),
    "zfs too early": (more("storage: {layout: {name: zfs}}"), "22.04.3", "installer does not know the layout `zfs`"),
    "no layout name": (more("storage: {layout: {}}"), "", "`storage.layout` has no `name`."),
    "swap": (more("storage: {layout: {name: direct}, swap: {size: much}}"), "", "`much` is no size."),
    "config without root": (
        more("storage: {config: [{id: a, type: disk, grub_device: true}]}"),
        "",
        "Nothing is mounted at `/`.",
    ),
    "config without boot loader": (
        more("storage: {config: [{id: a, type: disk}, {id: m, type: mount, path: /, device: a}]}"),
        "",
        "`grub_device: true` is missing.",
    ),
    "config that points nowhere": (
        more("storage: {config: [{id: a, type: disk, grub_device: true}, {id: m, type: mount, path: /, device: b}]}"),
        "",
        "There is no action `b` before this one.",
    ),
    "config of an unknown type": (
        more("storage: {config: [{id: a, type: dsk}]}"),
        "",
        "`dsk` is no type of storage action. Did you mean `disk`?",
    ),
    "ssh.install_server": (
        more("ssh:\n  install_server: true"),
        "",
        "9:5: `install_server` is no key of `ssh`; the installer would ignore",
    ),
    "keys beside autoinstall": (
        GOOD + "packages: [git]\n",
        "",
        "8:1: `packages` stands beside `autoinstall`, not in it. Indent",
    ),
    "cloud-config beside autoinstall": (
        GOOD + "users: []\n",
        "",
        "8:1: `users` stands beside `autoinstall`, not in it. What",
    ),
    "unknown section": (
        more("storgae: {}"),
        "",
        "8:3: `storgae` is no section of autoinstall; the installer ignores it.",
    ),
    "source too early": (
        more("source: {id: ubuntu-server-minimal}"),
        "22.04.1",
        "8:3: `source` is known since installer 22.10.1; this release's ignores it without a word.",
    ),
    "unknown key in source": (more("source: {name: ubuntu-server}"), "", "`name` is no key of `source`"),
    "oem too early": (more("oem: {install: auto}"), "22.04.3", "`oem` is known since installer 23.10"),
    "codecs too early": (more("codecs: {install: true}"), "22.04.2", "`codecs` is known since installer 23.04"),
    "mirror-selection too early": (
        more("apt: {mirror-selection: {primary: [country-mirror]}}"),
        "22.04.2",
        "`apt.mirror-selection` is known since",
    ),
    "fallback too early": (more("apt: {fallback: abort}"), "22.04.2", "`apt.fallback` is known since installer 23.04"),
    "crash dumps too early": (
        more("kernel-crash-dumps: {enabled: false}"),
        "24.04.4",
        "`kernel-crash-dumps` is known since installer 24.10",
    ),
    "zdevs too early": (more("zdevs: []"), "24.10", "`zdevs` is known since installer 25.04"),
    "reporting none": (
        more("reporting: {builtin: {type: none}}"),
        "",
        "The installer crashes at a report of the type `none`.",
    ),
    "reporting rsyslog": (
        more("reporting: {central: {type: rsyslog, destination: '@10.0.2.2'}}"),
        "",
        "at a report of the type `rsyslog`.",
    ),
    "halt": (more("shutdown: halt"), "", "8:13: `halt` is no choice of `shutdown`. Expected: `poweroff` or `reboot`."),
    "updates none": (more("updates: none"), "", "`none` is no choice of `updates`."),
    "late-commands as text": (
        more("late-commands: echo hi"),
        "",
        "`late-commands` is `echo hi`; expected a list of commands",
    ),
    "a command with a colon": (
        more("late-commands:\n  - echo Note: done"),
        "",
        "9:7: `late-commands[0]` is a mapping of keys; expected a command",
    ),
    "timezone": (more("timezone: Europe/Berne"), "", "8:13: `Europe/Berne` is no time zone. Did you mean"),
    "locale": (more("locale: en_UK.UTF-8"), "", "8:11: `en_UK.UTF-8` is no locale that Ubuntu has in UTF-8."),
    "storage of nothing": (more("storage: {swap: {size: 0}}"), "", "`storage` has neither `layout` nor `config`"),
    "negative swap": (
        more("storage: {layout: {name: direct}, swap: {size: -5}}"),
        "",
        "`-5` is no size.",
    ),
    "a list of matches": (
        more("storage: {layout: {name: direct, match: [{serial: x}, {size: largest}]}}"),
        "22.04.3",
        "This release's installer takes one `match`, not a list of them.",
    ),
    "an encrypted disk": (
        more("storage: {layout: {name: lvm, sizing-policy: all, password: hunter2}}"),
        "",
        "An encrypted disk asks for its password at every boot",
    ),
    "an id that is a list": (
        more("storage: {config: [{id: [a], type: disk}]}"),
        "",
        "`storage.config[0].id` is a list;",
    ),
    "cloud-init purged too early": (
        more("late-commands: [curtin in-target -- apt-get purge -y cloud-init]"),
        "24.04.2",
        "here it is switched off before.",
    ),
    "keyboard": (more("keyboard: {layout: swiss}"), "", "8:22: `swiss` is no keyboard layout."),
    "keyboard without layout": (more("keyboard: {variant: intl}"), "", "`keyboard` has no `layout`."),
    "norway": (more("keyboard: {layout: no}"), "", "`keyboard.layout` is false; expected text. Put it in quotes."),
    "interactive": (more("interactive-sections: [network]"), "", "8:3: The installer would stop and ask;"),
    "apt twice": (
        more("apt: {primary: [], mirror-selection: {primary: []}}"),
        "",
        "`primary` and `mirror-selection` exclude",
    ),
    "kernel twice": (
        more("kernel: {package: linux-generic, flavor: hwe}"),
        "",
        "`kernel` needs either `package` or `flavor`.",
    ),
    "network version": (more("network: {ethernets: {}}"), "", "`network` has no `version`."),
    "network key": (more("network: {version: 2, ethernet: {}}"), "", "`ethernet` is no key of `network`"),
    "network version 1": (
        more("network: {version: 1, ethernets: {}}"),
        "",
        "The netplan configuration needs `version: 2`.",
    ),
    "a typo in netplan": (
        more("network: {version: 2, ethernets: {any: {match: {name: 'e*'}, dhpc4: true}}}"),
        "",
        "8:12: `dhpc4` is no key of netplan's for `any`. Did you mean `dhcp4`?",
    ),
    "no user yet": (
        more("late-commands: ['curtin in-target -- chown -R student:student /srv']"),
        "24.04.2",
        "This release's installer leaves `student` to the first boot",
    ),
    "snap without name": (more("snaps: [{channel: stable}]"), "", "8:11: `snaps[0]` has no `name`."),
    "snaps as words": (more("snaps: [lxd]"), "", "`snaps[0]` is `lxd`; expected keys with values below it."),
    "packages as text": (more("packages: git"), "", "`packages` is `git`; expected a list"),
    "package name": (more("packages: ['git vim']"), "", "8:14: `git vim` is no name of a package."),
    "proxy": (more("proxy: squid:3128"), "", "8:10: `squid:3128` is no address of a server."),
    "misplaced in user-data": (more("user-data: {late-commands: []}"), "", "`late-commands` is autoinstall's;"),
    "cloud-init off too early": (
        more("late-commands: [touch /target/etc/cloud/cloud-init.disabled]"),
        "24.04.2",
        "cloud-init makes the user and the network at the first boot; here it is switched off before.",
    ),
    "empty section": (
        more("identity:").replace("  identity:\n    hostname", "  x-identity:\n    hostname"),
        "",
        "`identity` is empty.",
    ),
    "empty autoinstall": ("#cloud-config\nautoinstall:\n", "", "2:13: `autoinstall` is empty or no mapping."),
    "no autoinstall": ("#cloud-config\nusers: []\n", "", "There is no `autoinstall` here, and no section of it."),
    "a list": ("- version: 1\n", "", "These are no answers; expected keys such as `version` and `identity`."),
    "empty file": ("", "", "These are no answers;"),
    "tab": ("#cloud-config\nautoinstall:\n\tversion: 1\n", "", "3:1: This is no YAML: there is a tab"),
    "twice": (more("version: 1"), "", "8:3: The key `version` stands here twice; first in line 3."),
    "wrong indentation": (more("packages:\n- git", 3), "", "This is no YAML:"),
}
SURPRISES: dict[str, tuple[str, str, str]] = {
    "another disk": (
        more("storage: {layout: {name: direct, match: {path: /dev/sda}}}"),
        "",
        "8:50: The disk of the machine that prebake installs in is /dev/vda, not `/dev/sda`.",
    ),
    "a locale in another character set": (more("locale: en_US"), "", "Did you mean `en_US.UTF-8`?"),
    "a name that later installers refuse": (
        GOOD.replace("student", "john.doe"),
        "24.04",
        "`john.doe` is no user name.",
    ),
    "nobody's password": (
        GOOD.replace("{hash}", "'!'"),
        "",
        "Nobody can log in with a password, nor can prebake",
    ),
    "no first line": (GOOD.removeprefix("#cloud-config\n"), "", "The first line is not `#cloud-config`"),
    "half the disk": (
        more("storage: {layout: {name: lvm}}"),
        "",
        "On a disk of more than 12 GiB the root volume gets only half",
    ),
    "a card by name": (
        more("network: {version: 2, ethernets: {enp0s3: {dhcp4: true}}}"),
        "",
        "Only a card called `enp0s3`",
    ),
    "no home yet": (
        more("late-commands: ['mkdir -p /target/home/student/bin']"),
        "24.04.2",
        "This release's installer leaves `student` to the first boot",
    ),
    "nobody through ssh": (more("ssh: {install-server: true, allow-pw: false}"), "", "Nobody could log in through SSH"),
}


def validated(tmp_path: Path, text: str, release: str) -> tuple[int, str]:
    path = tmp_path / "user-data.yaml"
    path.write_text(text.replace("{hash}", HASH))
    arguments = ["--release", release] if release else []
    result = inside("validate", "--user-data", path, *arguments)
    return result.code, result.err


@pytest.mark.parametrize("name", CASES)
def test_a_trap_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    text, release, words = CASES[name]
    code, said = validated(tmp_path, text, release)
    assert code == 3
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", SURPRISES)
def test_a_surprise_is_told_but_not_refused(name: str, tmp_path: Path) -> None:
    text, release, words = SURPRISES[name]
    code, said = validated(tmp_path, text, release)
    assert (code, said.count("warning: ")) == (0, 1)
    assert words in said


def test_what_an_older_installer_lacks_a_newer_one_has(tmp_path: Path) -> None:
    for name in ("groups too early", "source too early", "oem too early", "crash dumps too early", "no user yet"):
        text, _, words = {**CASES, **SURPRISES}[name]
        code, said = validated(tmp_path, text, "26.04")
        assert (code, words in said) == (0, False), name


@pytest.mark.parametrize("text", [GOOD, BARE])
def test_bare_and_wrapped_answers_are_good(text: str, tmp_path: Path) -> None:
    assert validated(tmp_path, text, "") == (0, "")
    assert yaml.safe_load(text)


def test_nothing_secret_is_said(tmp_path: Path) -> None:
    path = tmp_path / "user-data.yaml"
    path.write_text(more("storage: {layout: {name: lvm, password: [hunter2]}}").replace("{hash}", "hunter2"))
    found: list[Any] = list(examine(path).problems)
    assert len(found) == 2
    assert not any("hunter2" in str(one) for one in found)
