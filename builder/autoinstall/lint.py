"""Finds in autoinstall answers what the installer would refuse, ignore, or accept and then fail at. Pure.

Ubuntu's own validator checks shapes only. The rules here are those its users learn after twenty minutes: each
function is one group of traps and says where it is from.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builder.autoinstall import known, values
from builder.autoinstall.network import netplan, url
from builder.autoinstall.problems import Path, Problem, Severity, advice, dotted, expected, nearest, shown
from builder.autoinstall.sections import NEWEST, SECTIONS, SINCE, Version, version
from builder.autoinstall.storage import storage_traps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

REPORTERS = ("print", "log", "webhook", "journald")
"""The kinds that are registered in subiquity; the manual also names `none` and `rsyslog`, at which it crashes."""
FATAL = frozenset({("identity", "groups")})
"""Keys that older installers refuse instead of ignoring them."""
CARD = re.compile(r"(en[ospx]\w+|eth\d+|wl\w+)")
DISABLES_CLOUD_INIT = re.compile(
    r"(\b(touch|tee|cp|install)\b|>)[^;&|]*cloud-init\.disabled|(disable|mask)\S* (--now )?cloud-init"
    r"|(purge|remove|autoremove)\b.*\bcloud-init"
)
LOCKED = re.compile(r"[!*]+.*")
"""Passwords that nobody has, in /etc/shadow."""
CHECKS_NAMES = version("26.04")
"""The first installer that refuses user names."""


def lint(answers: Mapping[str, Any], installer: Version | None = None, sources: Collection[str] = ()) -> list[Problem]:
    """Return what is wrong with the answers; paths are those below `autoinstall:`.

    ``installer`` is the version that will read them, by default the newest; ``sources`` are the ids that the medium
    has, if they are known.
    """
    used = installer or NEWEST
    found = [*_outline(answers), *_since(answers, used)]
    broken = {problem.path[0] for problem in found if problem.path}
    sound = {key: value for key, value in answers.items() if key not in broken}
    found += _identity(sound, used)
    for trap in (_words, _names, _reporting, _unattended, _apt, _kernel, _ssh, _network, _user_data):
        found += trap(sound)
    found += _source(sound, sources)
    found += storage_traps(sound.get("storage"), used)
    found += _late(sound, used)
    return found


def unwrap(data: object, text: str = "#cloud-config\n") -> tuple[Mapping[str, Any], Path, list[Problem]]:
    """Return the answers in a file, bare or below `autoinstall:`, where they are in it, and what is wrong around them.

    Sources: subiquity's server (read_config), cloud-init's rule that user-data begin with `#cloud-config`.
    """
    if not isinstance(data, dict):
        return {}, (), [Problem((), "These are no answers; expected keys such as `version` and `identity`.")]
    if "autoinstall" not in data:
        if not any(key in SECTIONS for key in data):
            return {}, (), [Problem((), "There is no `autoinstall` here, and no section of it.")]
        return data, (), []
    problems = []
    for key in data:
        if key == "autoinstall":
            continue
        if key in SECTIONS:
            hint = "Indent it below `autoinstall:`."
        else:
            hint = "What is for the installed system goes below `autoinstall:` into `user-data`."
        problems.append(Problem((key,), f"{shown(key)} stands beside `autoinstall`, not in it.", hint, key=True))
    if not text.startswith("#cloud-config"):
        words = "The first line is not `#cloud-config`: cloud-init passes over such a file. prebake puts it there."
        problems.append(Problem((), words, severity="warning"))
    inner = data["autoinstall"]
    if not isinstance(inner, dict):
        problems.append(Problem(("autoinstall",), "`autoinstall` is empty or no mapping.", "Indent what follows."))
        inner = {}
    return inner, ("autoinstall",), problems


def _outline(answers: Mapping[str, Any]) -> Iterator[Problem]:
    if "version" not in answers:
        yield Problem((), "`version: 1` is missing.")
    elif answers["version"] != 1 or isinstance(answers["version"], bool):
        yield Problem(("version",), f"The version is {shown(answers['version'])}; expected `1`.")
    for key, value in answers.items():
        if key not in SECTIONS:
            hint = advice(key, SECTIONS)
            yield Problem(
                (key,), f"{shown(key)} is no section of autoinstall; the installer ignores it.", hint, key=True
            )
        elif value is None and key != "proxy":
            yield Problem((key,), f"`{key}` is empty.")
        else:
            yield from SECTIONS[key].check(value, (key,))
    if "identity" not in answers and "user-data" not in answers:
        yield Problem((), "There is neither `identity` nor `user-data`: nobody could log in.")


def _since(answers: Mapping[str, Any], installer: Version) -> Iterator[Problem]:
    """Traps of a release's installer that is older than a key. Source: the schemas of its versions."""
    for path, first in SINCE.items():
        here: Any = answers
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        if here is None or installer >= version(first):
            continue
        does = "refuses it" if path in FATAL else "ignores it without a word"
        yield Problem(
            path,
            f"`{dotted(path)}` is known since installer {first}; this release's {does}.",
            "Use a newer point release, or leave it out.",
            key=True,
        )


def ruled(rule: Callable[[str], object], value: object, path: Path) -> Iterator[Problem]:
    """Yield what a rule of `builder.autoinstall.values` says against a text; other values are not looked at."""
    try:
        if isinstance(value, str):
            rule(value)
    except ValueError as error:
        yield Problem(path, str(error))


def _identity(answers: Mapping[str, Any], installer: Version) -> Iterator[Problem]:
    """Look at what the validator takes: a plain-text password, and until 26.04 any user name."""
    identity = answers.get("identity", {})
    rules = (
        ("hostname", values.hostname),
        ("realname", values.full_name),
    )
    for key, rule in rules:
        yield from ruled(rule, identity.get(key), ("identity", key))
    name = identity.get("username")
    severity: Severity = "error" if installer >= CHECKS_NAMES or name in known.RESERVED - {"admin"} else "warning"
    for one in ruled(values.username, name, ("identity", "username")):
        yield replace(one, severity=severity)
    password = identity.get("password")
    if isinstance(password, str) and LOCKED.fullmatch(password):
        words = "Nobody can log in with a password, nor can prebake, which has to finish and prove an image."
        yield Problem(("identity", "password"), words, severity="warning")
    else:
        yield from ruled(values.password_hash, password, ("identity", "password"))


def _words(answers: Mapping[str, Any]) -> Iterator[Problem]:
    """Look for unknown locales, keyboards and zones: the validator passes them, and the install fails at a zone."""
    for one in ruled(values.locale, answers.get("locale"), ("locale",)):
        short = f"{answers['locale']}.UTF-8" in known.locales()  # the installer takes it, in another character set
        yield replace(one, severity="warning") if short else one
    keyboard = answers.get("keyboard", {})
    layout = keyboard.get("layout")
    wrong = list(ruled(values.keyboard, layout, ("keyboard", "layout")))
    yield from wrong
    if layout and not wrong:
        yield from ruled(lambda one: values.variant(layout, one), keyboard.get("variant"), ("keyboard", "variant"))
    if answers.get("timezone") not in {"geoip", ""}:
        yield from ruled(values.timezone, answers.get("timezone"), ("timezone",))
    if answers.get("proxy"):
        yield from ruled(url, answers["proxy"], ("proxy",))


def _names(answers: Mapping[str, Any]) -> Iterator[Problem]:
    for number, name in enumerate(answers.get("packages", ())):
        yield from ruled(values.package, name, ("packages", number))
    for number, one in enumerate(answers.get("snaps", ())):
        yield from ruled(values.snap, one.get("name"), ("snaps", number, "name"))
        if one.get("channel"):
            yield from ruled(values.channel, one["channel"], ("snaps", number, "channel"))


def _reporting(answers: Mapping[str, Any]) -> Iterator[Problem]:
    for name, one in answers.get("reporting", {}).items():
        kind = one.get("type") if isinstance(one, dict) else None
        if kind not in REPORTERS:
            hint = nearest(kind, REPORTERS) or expected(REPORTERS)
            yield Problem(("reporting", name), f"The installer crashes at a report of the type {shown(kind)}.", hint)


def _unattended(answers: Mapping[str, Any]) -> Iterator[Problem]:
    if answers.get("interactive-sections"):
        words = "The installer would stop and ask; an image is made without anybody there."
        yield Problem(("interactive-sections",), words, "Leave it out.", key=True)


def _apt(answers: Mapping[str, Any]) -> Iterator[Problem]:
    apt = answers.get("apt", {})
    if "primary" in apt and "mirror-selection" in apt:
        yield Problem(("apt", "primary"), "`primary` and `mirror-selection` exclude each other.", "Keep one.", key=True)


def _kernel(answers: Mapping[str, Any]) -> Iterator[Problem]:
    kernel = answers.get("kernel")
    if kernel is not None and len({"package", "flavor"} & kernel.keys()) != 1:
        yield Problem(("kernel",), "`kernel` needs either `package` or `flavor`.")


def _ssh(answers: Mapping[str, Any]) -> Iterator[Problem]:
    ssh = answers.get("ssh", {})
    if ssh.get("install-server") and ssh.get("allow-pw") is False and not ssh.get("authorized-keys"):
        words = "Nobody could log in through SSH: no password is allowed, and there is no key."
        yield Problem(("ssh",), words, "Give `authorized-keys`.", severity="warning")


def _network(answers: Mapping[str, Any]) -> Iterator[Problem]:
    network = answers.get("network")
    if network is None:
        return
    path: Path = ("network",)
    if "network" in network:
        network, path = network["network"], ("network", "network")
    yield from _netplan(network, path)
    for kind in ("ethernets", "wifis"):
        for name, one in network.get(kind, {}).items():
            if isinstance(one, dict) and "match" not in one and CARD.fullmatch(str(name)):
                words = f"Only a card called {shown(name)} is set up; on other machines it has another name."
                yield Problem((*path, kind, name), words, 'Use `match: {name: "e*"}`.', severity="warning", key=True)


def _netplan(network: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    try:
        netplan(network)
    except ValueError as error:
        yield Problem(path, str(error))


def _user_data(answers: Mapping[str, Any]) -> Iterator[Problem]:
    """Sections that slipped into `user-data` reach cloud-init, which does not know them."""
    own = {
        "version",
        "packages",
        "locale",
        "timezone",
        "keyboard",
        "network",
        "snaps",
        "apt",
        "ssh",
        "reporting",
        "drivers",
    }
    for key in answers.get("user-data", {}):
        if key in SECTIONS and key not in own:
            yield Problem(("user-data", key), f"{shown(key)} is autoinstall's; cloud-init does not know it.", key=True)


def _source(answers: Mapping[str, Any], sources: Collection[str]) -> Iterator[Problem]:
    """Look for an unknown id, which is a KeyError without words in the installer."""
    wanted = answers.get("source", {}).get("id")
    if wanted is not None and sources and wanted not in sources:
        yield Problem(("source", "id"), f"The medium has no source {shown(wanted)}.", advice(wanted, sources))


def users_at_install(installer: Version) -> bool:
    """Return whether an installer makes the user itself, not the first boot: 24.04.4's do, and those since 26.04."""
    return (installer[:3] >= (24, 4, 4) and installer < (24, 8)) or installer >= (26, 4)


def _late(answers: Mapping[str, Any], installer: Version) -> Iterator[Problem]:
    """Late-commands that are too early for the installed system."""
    user = re.escape(str(answers.get("identity", {}).get("username", "")))
    needs = re.compile(rf"\b(chown|chgrp|usermod|gpasswd|passwd)\b.*\b{user}\b|\b(sudo|su|runuser)\b.* {user}\b")
    home = re.compile(rf"/home/{user}\b")
    for number, one in enumerate(answers.get("late-commands", ())):
        text = one if isinstance(one, str) else " ".join(one)
        path: Path = ("late-commands", number)
        early = bool(user) and not users_at_install(installer)
        if early and (needs.search(text) or home.search(text)):
            fails = needs.search(text) and "||" not in text
            words = f"This release's installer leaves {shown(user)} to the first boot: there is no such user yet."
            severity: Severity = "error" if fails else "warning"
            yield Problem(path, words, "Do it in `user-data` with `runcmd`.", severity=severity)
        if DISABLES_CLOUD_INIT.search(text) and not users_at_install(installer):
            words = "cloud-init makes the user and the network at the first boot; here it is switched off before."
            yield Problem(path, words, "Leave that to prebake, which does it afterwards.")


def unique(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems without repetitions, in order."""
    return list(dict.fromkeys(problems))
