"""The last look at a machine before anything expensive starts, however it was described."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.autoinstall import known, values
from builder.autoinstall.lint import ruled
from builder.autoinstall.model import EXPORTS, verified
from builder.autoinstall.network import url
from builder.autoinstall.problems import Problem, Severity, advice, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.spec import Spec, User

CHOICES = {
    "storage": ("direct", "lvm"),
    "firmware": ("bios", "uefi"),
    "network": ("nat", "offline", "auto"),
    "updates": ("none", "security", "all"),
    "source": ("server", "minimal"),
}
SWEPT = ("tmp", "var/tmp", "run", "dev", "proc", "sys", "etc/netplan", "var/log", "var/cache/apt")
"""Where a file does not stay: what the seal clears (templates/guest/seal.sh), and what is no disk."""
TOLD = ("user", "hostname", "locale", "keyboard", "timezone", "proxy", "mirror")
"""What an instructor's own answers tell."""
OWNED = (
    *("version", "identity", "shutdown", "interactive-sections", "locale", "keyboard", "timezone", "network"),
    *("proxy", "updates", "source", "packages", "snaps"),
)
"""Sections of autoinstall that the class file has a key of its own for, or that are prebake's."""


def check(spec: Spec, *, login: bool = True, own: bool = False) -> list[Problem]:
    """Refuse a machine that cannot be; return what will surprise.

    With ``login`` its password has to fit its hash. What is in an instructor's ``own`` answers has been looked at
    there, by the rules of the installer that reads them. Raises AnswersError that names all that is wrong and what was
    expected.
    """
    found = [*problems_of(spec), *_together(spec)]
    found = [one for one in found if not own or one.path[0] not in TOLD]
    refuse([*found, *(_login(spec.user) if login else ())], "The machine")
    return [one for one in found if one.severity == "warning"]


def problems_of(spec: Spec) -> Iterator[Problem]:
    """Yield what is wrong with a machine."""
    user, content = spec.user, spec.content
    rules = (
        ("name", values.name, spec.name),
        ("user.name", values.username, user.name),
        ("user.full-name", values.full_name, user.full_name),
        ("user.password", values.password, user.password),
        ("user.password-hash", values.password_hash, user.password_hash or None),
        ("hostname", values.hostname, spec.hostname),
        ("locale", values.locale, spec.locale),
        ("keyboard", values.keyboard, spec.keyboard),
        ("keyboard", lambda one: values.variant(spec.keyboard, one), spec.keyboard_variant),
        ("timezone", values.timezone, spec.timezone or None),
        ("disk", values.disk, str(spec.disk)),
        ("proxy", url, spec.proxy or None),
        ("mirror", url, spec.mirror or None),
        *(("packages", values.package, one) for one in content.packages),
        *(("snaps", values.snap, one.name) for one in content.snaps),
        *(("files", values.guest_path, one.path) for one in content.files),
        *(("run", values.command, one) for one in content.commands),
    )
    for key, rule, value in rules:
        if value is not None:
            yield from ruled(rule, value, tuple(key.split(".")))
    for key, choices in CHOICES.items():
        value = getattr(spec, key)
        if value not in choices:
            yield Problem((key,), f"{shown(value)} is no choice of `{key}`.", advice(value, choices))
    for one in spec.exports:
        if one not in EXPORTS:
            yield Problem(("exports",), f"{shown(one)} is no format to export.", advice(one, EXPORTS))


def _files(spec: Spec) -> Iterator[Problem]:
    """Yield files that would not be there in the end, or belong to nobody."""
    users = known.RESERVED | {spec.user.name, "nobody"}
    for number, file in enumerate(spec.content.files):
        swept = next((one for one in SWEPT if f"{file.path}/".startswith(f"/{one}/")), None)
        if "/.cache/" in file.path or file.path.endswith("/.bash_history"):
            swept = file.path.rpartition("/")[2] if "/.cache/" not in file.path else ".cache"
        if swept:
            words = f"{shown(file.path)} would not be there in the end: prebake clears `{swept}` at the end."
            yield Problem(("files", number, "path"), words, "Put it elsewhere, such as /opt or the user's home.")
        for key, name in (("owner", file.owner), ("group", file.group)):
            if name and name not in users and not name.isdigit():
                brought = bool(spec.content.packages)
                words = f"Nobody called {shown(name)} is on the machine{', unless a package brings one' * brought}."
                hint = advice(name, [spec.user.name, "root", "www-data"])
                severity: Severity = "warning" if brought else "error"
                yield Problem(("files", number, key), words, hint, severity=severity)


def _login(user: User) -> Iterator[Problem]:
    if user.password_hash and not verified(user.password, user.password_hash):
        words = "The password is not the one that `password-hash` was made of."
        hint = "prebake logs in to finish and prove the image: give it with --password-file or PREBAKE_PASSWORD."
        yield Problem(("user", "password-hash"), words, hint)


def _together(spec: Spec) -> Iterator[Problem]:
    """Yield what does not go together."""
    if spec.network == "offline" and spec.content.fetches:
        key = "packages" if spec.content.packages else "snaps"
        yield Problem((key,), f"`{key}` are fetched, but the machine is to be made offline.", "Leave one of them out.")
    if spec.updates == "all" and spec.network == "offline":
        yield Problem(("updates",), "Updates are fetched, but the machine is to be made offline.")
    yield from _files(spec)
    if spec.swap and spec.swap > spec.disk - values.SMALLEST_DISK:
        swap, disk = f"{spec.swap / values.GIB:.1f} GiB", f"{spec.disk / values.GIB:.1f} GiB"
        words = f"A swap file of {swap} leaves no room on a disk of {disk}."
        yield Problem(("swap",), words, "Make the disk larger, or the swap file smaller.")
    for key, section, own in (
        ("mirror", "apt", spec.mirror),
        ("swap", "storage", spec.swap),
        ("storage", "storage", spec.storage != "direct"),
    ):
        if own and section in spec.autoinstall:
            words = f"`autoinstall: {section}` would take the place of `{key}`."
            yield Problem((key,), words, "Say it in one of the two.")
    for key in OWNED:
        if key in spec.autoinstall:
            hint = "Use the class file's own key." if key not in {"version", "shutdown"} else "Leave it out."
            words = f"`{key}` cannot stand under `autoinstall`: prebake writes it."
            yield Problem(("autoinstall", key), words, hint, key=True)
