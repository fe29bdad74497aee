"""An instructor's own autoinstall file: linted like ours, with only what the pipeline needs added."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from builder.autoinstall.lint import lint, unique, unwrap
from builder.autoinstall.located import read
from builder.autoinstall.machine import brings_ssh
from builder.autoinstall.model import verified
from builder.autoinstall.problems import Problem, refuse
from builder.autoinstall.render import finish
from builder.spec import PROXIES, Spec, User

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path as FilePath

    from builder.autoinstall.problems import Path
    from builder.autoinstall.render import Answers
    from builder.autoinstall.sections import Version


@dataclass(frozen=True)
class OwnAnswers:
    """Answers from a file: the sections below `autoinstall:`, and what is wrong or will surprise, with places."""

    path: FilePath
    answers: Mapping[str, Any]
    problems: tuple[Problem, ...]

    @property
    def needs(self) -> str:
        """What of the answers is fetched: "packages", "snaps", or nothing."""
        return next((key for key in ("packages", "snaps") if self.answers.get(key)), "")

    @property
    def warnings(self) -> list[Problem]:
        """What will surprise."""
        return [one for one in self.problems if one.severity == "warning"]


def examine(path: FilePath, installer: Version | None = None, sources: Collection[str] = ()) -> OwnAnswers:
    """Read and lint an autoinstall file, bare or below `autoinstall:`; parameters as `lint` has them.

    Raises AnswersError if it cannot be read or is no YAML.
    """
    document = read(path)
    inner, base, around = unwrap(document.data, document.text)
    found = [document.located(one) for one in around]
    if inner or not around:
        found += [document.located(one, base) for one in lint(inner, installer, sources)]
    return OwnAnswers(path, inner, tuple(unique(found)))


def load(path: FilePath, installer: Version | None = None, sources: Collection[str] = ()) -> OwnAnswers:
    """Read an autoinstall file. Raises AnswersError that lists all that is wrong with it."""
    own = examine(path, installer, sources)
    refuse(own.problems, f"`{path}`")
    identity = own.answers.get("identity")
    if identity is None:
        problem = Problem((), "`identity` is missing: prebake logs in as that user to finish and prove the image.")
        refuse([replace(problem, place=read(path).place(()))], f"`{path}`")
        raise AssertionError(problem)
    groups = identity.get("groups", ["sudo"])
    groups = groups.get("override", ["sudo"]) if isinstance(groups, dict) else groups
    if "sudo" not in groups:
        problem = Problem(
            ("identity", "groups"), "`sudo` is missing: prebake becomes root to finish and prove the image."
        )
        refuse([problem], f"`{path}`")
    return own


def spec_for(own: OwnAnswers, spec: Spec, password: str | None, *, login: bool = True) -> Spec:
    """Return ``spec`` as its own answers make it: user, host name, language, layout.

    Raises AnswersError if the password is not known but needed: with ``login`` prebake logs in with it.
    """
    identity = own.answers["identity"]
    storage = own.answers.get("storage") or {}
    layout = storage.get("layout") or {}
    keyboard = own.answers.get("keyboard") or {}
    apt = own.answers.get("apt") or {}
    known = check_password(identity["password"], password, str(own.path)) if login else User.password
    return replace(
        spec,
        user=User(identity["username"], identity.get("realname", ""), known, identity["password"]),
        hostname=identity["hostname"],
        locale=own.answers.get("locale", spec.locale),
        keyboard=keyboard.get("layout", spec.keyboard),
        keyboard_variant=keyboard.get("variant", ""),
        timezone=own.answers.get("timezone", ""),
        both=False,
        boots_online="user-data" in own.answers,
        storage="lvm" if layout.get("name") == "lvm" else "direct",
        whole_disk=layout.get("name") == "direct" or layout.get("sizing-policy") == "all",
        ssh_server=(own.answers.get("ssh") or {}).get("install-server") is True
        or brings_ssh(own.answers.get("packages", ())),
        swap=None,
        proxy=own.answers.get("proxy") or next((str(apt[key]) for key in PROXIES if apt.get(key)), ""),
        mirror=_mirror(apt),
        netplan=_netplan(own.answers.get("network")),
    )


def _mirror(apt: Mapping[str, Any]) -> str:
    """Return the first mirror that answers name, or an empty text."""
    rows = apt.get("mirror-selection", {}).get("primary", apt.get("primary", ()))
    return next((str(row["uri"]) for row in rows if isinstance(row, dict) and "uri" in row), "")


def _netplan(network: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if network is None else network.get("network", network)


def check_password(hashed: str, password: str | None, where: str, path: Path = ()) -> str:
    """Return the password that ``hashed`` was made of: the given one, or the lesson's if it fits.

    Raises AnswersError if it does not.
    """
    if not hashed.startswith("$"):
        problem = Problem(path, f"{where} holds no password anybody could log in with, as prebake has to.")
        refuse([problem], where)
    if password is not None and verified(password, hashed):
        return password
    if password is None and not hashed.startswith(("$y$", "$gy$", "$7$", "$2")) and verified(User.password, hashed):
        return User.password
    if password is None:
        words = f"{where} holds only the password's hash, and prebake logs in to finish and prove the image."
        problem = Problem(path, words, "Give the password with --password-file, PREBAKE_PASSWORD or --ask-password.")
    else:
        problem = Problem(path, f"The password is not the one that the hash in {where} was made of.")
    refuse([problem], where)
    raise AssertionError(problem)


def answers_of(own: OwnAnswers, *, tty: str, watched: bool) -> Answers:
    """Return the two files for the medium; see `finish`."""
    hashed = (own.answers.get("identity") or {}).get("password", "")
    return finish(own.answers, password_hash=hashed, tty=tty, watched=watched)
