"""Renders the answers: what the installer is told, as two files of cloud-init's NoCloud datasource."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from builder.autoinstall import loaders
from builder.autoinstall.content import sections_for
from builder.autoinstall.hidden import masked, secrets
from builder.autoinstall.lint import lint
from builder.autoinstall.problems import refuse
from builder.autoinstall.sections import version
from builder.errors import AnswersError
from builder.resources import templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.autoinstall.problems import Problem
    from builder.autoinstall.sections import Version
    from builder.spec import Spec

SEED = "/nocloud"
"""The folder on the medium that holds the answers; the live system sees it at /cdrom/nocloud/."""
KERNEL_ARGUMENTS = ("autoinstall", f"ds=nocloud;s=/cdrom{SEED}/")
"""What the kernel command line must say for the live system to find the answers and use them unasked."""
EVIDENCE_PORT = "org.prebake.evidence"
SENTINEL = "prebake-sentinel"
EVIDENCE = (
    "mkdir -p /var/crash; journalctl -b --no-pager > /var/log/installer/installer-journal.txt 2>&1; "
    "tar -cz -C / --exclude='autoinstall-user-data*' var/log/installer var/crash "
    f"> /dev/virtio-ports/{EVIDENCE_PORT} || true"
)
SHORTEST_SECRET = 4
"""What is shorter is not looked for in logs: it would be found everywhere."""
POWER_OFF = "sync; poweroff -f"
INSTALLED = "/run/prebake-installed"
"""The file in the live session that says that the last late-command has run."""
SOURCES = {"server": "ubuntu-server", "minimal": "ubuntu-server-minimal"}
"""The ids in casper/install-sources.yaml of Ubuntu's live-server media."""
COMMANDS = ("early-commands", "late-commands", "error-commands")
KNOWS_SOURCE = version("22.10.1")
KNOWS_FALLBACK = version("23.04")


@dataclass(frozen=True)
class Answers:
    """The two files, the token that proves the end of this very installation, and what must not be shown.

    ``added`` says, a line each, what was put into an instructor's own answers; ``warnings`` are what will surprise.
    """

    user_data: str = field(repr=False)
    meta_data: str
    token: str
    password_hash: str = field(repr=False)
    added: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def files(self) -> dict[str, bytes]:
        """Return the files to put on the medium, by their absolute path."""
        return {
            f"{SEED}/user-data": self.user_data.encode(),
            f"{SEED}/meta-data": self.meta_data.encode(),
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: the hash, and what else the answers hold below keys that say so."""
        found = [self.password_hash, *secrets(yaml.safe_load(self.user_data))]
        return tuple(dict.fromkeys(one for one in found if len(one) >= SHORTEST_SECRET))

    def masked(self) -> str:
        """Return the user-data with asterisks for the password's hash and for what else is secret in them."""
        return f"#cloud-config\n{_dump(masked(yaml.safe_load(self.user_data), self.password_hash))}"


def sentinel_command(kind: str, token: str, tty: str) -> str:
    """Return a shell command that says how the installation ended, straight on the serial line.

    The line it prints does not stand in the command itself, for the installer announces every command.
    A machine without that serial port must not fail for it.
    """
    return f"printf '\\n%s:%s:%s\\n' {SENTINEL} {kind} {token} > /dev/{tty} || true"


def render(
    spec: Spec,
    *,
    password_hash: str,
    tty: str = "ttyS0",
    watched: bool = True,
    installer: Version | None = None,
    folders: Sequence[Path] = (),
) -> Answers:
    """Render the answers for one machine.

    ``tty`` is the guest's serial port; ``watched`` adds what the pipeline reads (sentinels, evidence, power
    off) and is off for an ISO that a person boots on a real computer, whose installer then also gets what a class
    adds. ``installer`` is the version that will read them, by default the newest; ``folders`` may hold templates of
    the user's that go before ours.

    Raises AnswersError if a template is broken, or what it renders to is not valid for that installer.
    """
    spec = replace(spec, both=spec.both and watched)  # a computer's disk is not known, nor its firmware
    text = _expand("user-data.j2", _values(spec, password_hash, installer), folders)
    inner = prove(text, spec, password_hash)
    inner = merged(inner, {} if watched else sections_for(spec.content))
    inner = merged(inner, spec.autoinstall)
    problems = lint(inner, installer)
    refuse(problems, "The rendered user-data")
    if spec.both:
        inner = loaders.with_other(inner, spec.firmware)
    made = finish(inner, password_hash=password_hash, tty=tty, watched=watched, folders=folders)
    return replace(made, warnings=tuple(problems))


def finish(
    inner: Mapping[str, Any],
    *,
    password_hash: str,
    tty: str,
    watched: bool,
    folders: Sequence[Path] = (),
) -> Answers:
    """Make the two files of answers, after adding what the pipeline needs if it is to watch. Parameters as above.

    The token is a hash of the answers, salt and all, so no other build has it.
    """
    digest = hashlib.sha256((_dump(inner) + tty).encode()).hexdigest()
    token = digest[:32]
    added: tuple[str, ...] = ()
    if watched:
        inner, added = watchable(inner, token, tty)
    return Answers(
        user_data=f"#cloud-config\n{_dump({'autoinstall': dict(inner)})}",
        meta_data=_expand("meta-data.j2", {"instance_id": f"prebake-{token}"}, folders),
        token=token,
        password_hash=password_hash,
        added=added,
    )


def witness_command(token: str, tty: str) -> str:
    """Return a shell command that has systemd watch the installer, whose child the command is.

    An installer that is killed says nothing: systemd ends it as a whole when the kernel kills one of its programs for
    want of memory. The witness then saves the logs, says that the installation failed and switches off; it keeps still
    once the installation has succeeded, or while the system shuts down. Where it cannot be it is not missed.
    """
    watch = (
        "while kill -0 $1 2> /dev/null; do sleep 2; done; sleep 3; "
        f'[ -e {INSTALLED} ] || [ "$(systemctl is-system-running)" = stopping ] && exit; '
        f"{EVIDENCE}; {sentinel_command('failed', token, tty)}; sleep 2; {POWER_OFF}"
    )
    return f"systemd-run --quiet --collect sh -c {shlex.quote(watch)} witness $PPID || true"


def watchable(inner: Mapping[str, Any], token: str, tty: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the answers with what tells how the installation ends, and that in words.

    The first early-command sets up a witness. The first act of the error-commands is to save the logs, the last
    late-command the word of success: it runs only if all that can fail has gone well. A machine that is
    to be kept on serial port and screen must go off.
    """
    failed = sentinel_command("failed", token, tty) + "; sleep 2"
    more = {
        "error-commands": [EVIDENCE, failed, POWER_OFF],
        "late-commands": [f"{sentinel_command('installed', token, tty)}; : > {INSTALLED}"],
    }
    found = merged(inner, {})
    refreshed = found.get("refresh-installer")
    watched = not (
        isinstance(refreshed, dict) and refreshed.get("update")
    )  # an installer that starts anew is no dead one
    if watched:
        found["early-commands"] = [witness_command(token, tty), *found.get("early-commands", [])]
    for key, commands in more.items():
        found[key] = [*found.get(key, []), *commands]
    added = [
        *(["early-commands: a witness, which tells if the installer is killed"] if watched else []),
        "error-commands: the logs through a virtio port, the word that it failed, power-off",
        "late-commands: the word that it succeeded, as the last one",
    ]
    if found.get("shutdown") != "poweroff":
        found["shutdown"] = "poweroff"
        added.append("shutdown: poweroff")
    return found, tuple(added)


def merged(inner: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return answers with further sections: commands go before ours, of `user-data` each key, the rest replaces."""
    found = dict(inner)
    for key, value in extra.items():
        old = found.get(key)
        if key in COMMANDS and isinstance(old, list) and isinstance(value, list):
            found[key] = [*value, *old]
        elif key == "user-data" and isinstance(old, dict) and isinstance(value, dict):
            both = {name for name in old.keys() & value.keys() if isinstance(old[name], list)}
            joined = {name: [*old[name], *value[name]] for name in both if isinstance(value[name], list)}
            found[key] = {**old, **value, **joined}
        else:
            found[key] = value
    return found


def scalar(text: str) -> str:
    """Return ``text`` as one YAML scalar in double quotes, on one line, whatever is in it."""
    return str(yaml.safe_dump(text, default_style='"', width=float("inf"))).removesuffix("\n")


def data(value: object) -> str:
    """Return any plain value as YAML on one line."""
    return (
        str(yaml.safe_dump(value, default_flow_style=True, width=float("inf"))).removesuffix("\n").removesuffix("\n...")
    )


def _values(spec: Spec, password_hash: str, installer: Version | None) -> dict[str, Any]:
    return {
        "locale": spec.locale,
        "keyboard": spec.keyboard,
        "keyboard_variant": spec.keyboard_variant,
        "timezone": spec.timezone,
        "source": SOURCES[spec.source] if installer is None or installer >= KNOWS_SOURCE else "",
        "fallback": _fallback(spec) if installer is None or installer >= KNOWS_FALLBACK else "",
        "storage": spec.storage,
        "storage_config": loaders.layout(spec.storage, spec.firmware) if spec.both else None,
        "swap": spec.swap or 0,
        "hostname": spec.hostname,
        "full_name": spec.user.full_name,
        "username": spec.user.name,
        "password_hash": password_hash,
        "netplan": spec.netplan,
        "proxy": spec.proxy,
        "mirror": spec.mirror,
        "updates": "all" if spec.updates == "all" else "security",
    }


def _fallback(spec: Spec) -> str:
    """Return what an unusable mirror means: the end where the network is asked for, otherwise an offline install."""
    return "abort" if spec.network == "nat" and spec.updates != "none" else "offline-install"


def _dump(value: object) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, width=float("inf")))


def _expand(name: str, values: Mapping[str, Any], folders: Sequence[Path]) -> str:
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader([*folders, templates() / "autoinstall"]),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # YAML, not HTML; every value goes through a filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["scalar"] = scalar
    environment.filters["data"] = data
    try:
        return environment.get_template(name).render(values)
    except jinja2.TemplateError as error:
        where = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise AnswersError(f"The template {name}{where} cannot be rendered: {error}.") from error
    except Exception as error:  # a template is a program, and may fail in every way
        raise AnswersError(f"The template {name} cannot be rendered: {str(error) or type(error).__name__}.") from error


def _layout(told: Mapping[str, Any], spec: Spec) -> dict[str, tuple[Any, Any]]:
    if spec.both:
        return {"firmware": (told.get("config"), loaders.layout(spec.storage, spec.firmware))}
    return {
        "storage": (told["layout"]["name"], spec.storage),
        "sizing-policy": (told["layout"].get("sizing-policy") == "all", spec.storage == "lvm"),
    }


def _optional(told: Mapping[str, Any], spec: Spec) -> dict[str, tuple[Any, Any]]:
    """Return what arrived and what was asked for, of what a machine need not have."""
    return {
        "keyboard variant": (told["keyboard"].get("variant", ""), spec.keyboard_variant),
        "time zone": (told.get("timezone"), spec.timezone),
        "swap": (told["storage"].get("swap", {}).get("size"), spec.swap),
        "proxy": (told.get("proxy"), spec.proxy),
        "mirror": (
            [one["uri"] for one in told.get("apt", {}).get("primary", [])],
            [spec.mirror] if spec.mirror else [],
        ),
        "network": (told.get("network"), spec.netplan),
    }


def prove(text: str, spec: Spec, password_hash: str) -> dict[str, Any]:
    """Read rendered user-data back, make sure that they say what was meant, and return what is in them.

    Raises AnswersError if they are not YAML, or not answers, or a value did not arrive unchanged.
    """
    if not text.startswith("#cloud-config\n"):
        raise AnswersError("The rendered user-data does not begin with #cloud-config; the installer would not see it.")
    try:
        told = yaml.safe_load(text)["autoinstall"]
        identity = told["identity"]
        arrived = {
            "version": (told["version"], 1),
            "username": (identity["username"], spec.user.name),
            "password_hash": (identity["password"], password_hash),
            "hostname": (identity["hostname"], spec.hostname),
            "full name": (identity.get("realname", ""), spec.user.full_name),
            "locale": (told["locale"], spec.locale),
            "keyboard": (told["keyboard"]["layout"], spec.keyboard),
            **_layout(told["storage"], spec),
        }
        arrived |= {key: pair for key, pair in _optional(told, spec).items() if pair[1]}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:  # an empty section has no keys to ask for
        reason = str(error).splitlines()[0]
        raise AnswersError(f"The rendered user-data cannot be read back: {reason}.") from None
    changed = [key for key, (got, wanted) in arrived.items() if got != wanted]
    if changed:
        raise AnswersError(
            f"The rendered user-data does not say what was asked for: {', '.join(changed)}.",
            hint="A template for both firmwares places `storage_config`, as ours does; or use `firmware: bios`."
            if "firmware" in changed
            else "",
        )
    return dict(told)
