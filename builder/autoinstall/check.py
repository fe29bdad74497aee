"""The last look at a machine before anything expensive starts, however it was described."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.autoinstall import values
from builder.autoinstall.lint import ruled
from builder.autoinstall.model import EXPORTS, verified
from builder.autoinstall.problems import Problem, advice, refuse, shown

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
OWNED = (
    *("version", "identity", "shutdown", "interactive-sections", "locale", "keyboard", "timezone", "network"),
    *("proxy", "updates", "source", "packages", "snaps"),
)
"""Sections of autoinstall that the class file has a key of its own for, or that are prebake's."""


def check(spec: Spec, *, login: bool = True) -> None:
    """Refuse a machine that cannot be.

    With ``login`` its password has to fit its hash. Raises AnswersError that names all that is wrong and what was
    expected.
    """
    found = [*problems_of(spec), *_together(spec)]
    refuse([*found, *(_login(spec.user) if login else ())], "The machine")


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
        ("proxy", values.url, spec.proxy or None),
        ("mirror", values.url, spec.mirror or None),
        *(("packages", values.package, one) for one in content.packages),
        *(("snaps", values.snap, one.name) for one in content.snaps),
        *(("files", values.guest_path, one.path) for one in content.files),
        *(("run", values.command, one) for one in content.commands),
    )
    for key, rule, value in rules:
        if value is not None:
            yield from ruled(rule, value, (key,))
    for key, known in CHOICES.items():
        value = getattr(spec, key)
        if value not in known:
            yield Problem((key,), f"{shown(value)} is no choice of `{key}`.", advice(value, known))
    for one in spec.exports:
        if one not in EXPORTS:
            yield Problem(("exports",), f"{shown(one)} is no format to export.", advice(one, EXPORTS))


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
    for key in OWNED:
        if key in spec.autoinstall:
            hint = "Use the class file's own key." if key not in {"version", "shutdown"} else "Leave it out."
            words = f"`{key}` cannot stand under `autoinstall`: prebake writes it."
            yield Problem(("autoinstall", key), words, hint, key=True)
