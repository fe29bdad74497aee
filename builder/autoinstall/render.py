"""Renders the answers: what the installer is told, as two files of cloud-init's NoCloud datasource."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from builder.errors import AnswersError
from builder.resources import templates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.spec import Spec

SEED = "/nocloud"
"""The folder on the medium that holds the answers; the live system sees it at /cdrom/nocloud/."""
KERNEL_ARGUMENTS = ("autoinstall", f"ds=nocloud;s=/cdrom{SEED}/")
"""What the kernel command line must say for the live system to find the answers and use them unasked."""
EVIDENCE_PORT = "org.prebake.evidence"
SENTINEL = "prebake-sentinel"
MASK = "********"
EVIDENCE = (
    "mkdir -p /var/crash; journalctl -b --no-pager > /var/log/installer/installer-journal.txt 2>&1; "
    "tar -cz -C / --exclude='autoinstall-user-data*' var/log/installer var/crash "
    f"> /dev/virtio-ports/{EVIDENCE_PORT} || true"
)


@dataclass(frozen=True)
class Answers:
    """The two files, the token that proves the end of this very installation, and what must not be shown."""

    user_data: str = field(repr=False)
    meta_data: str
    token: str
    password_hash: str = field(repr=False)

    def files(self) -> dict[str, bytes]:
        """Return the files to put on the medium, by their absolute path."""
        return {
            f"{SEED}/user-data": self.user_data.encode(),
            f"{SEED}/meta-data": self.meta_data.encode(),
        }

    def masked(self) -> str:
        """Return the user-data without the password's hash."""
        return self.user_data.replace(self.password_hash, MASK)


def sentinel_command(kind: str, token: str, tty: str) -> str:
    """Return a shell command that says how the installation ended, straight on the serial line.

    The line it prints does not stand in the command itself, for the installer announces every command.
    A machine without that serial port must not fail for it.
    """
    return f"printf '\\n%s:%s:%s\\n' {SENTINEL} {kind} {token} > /dev/{tty} || true"


def render(spec: Spec, *, password_hash: str, tty: str = "ttyS0", watched: bool = True) -> Answers:
    """Render the answers for one machine.

    ``tty`` is the guest's serial port; ``watched`` adds what the pipeline reads (sentinels, evidence, power
    off on failure) and is off for an ISO that a person boots on a real computer.

    Raises AnswersError if a template is broken or does not render to valid answers.
    """
    values: dict[str, Any] = {
        "locale": spec.locale,
        "keyboard": spec.keyboard,
        "keyboard_variant": spec.keyboard_variant,
        "timezone": spec.timezone,
        "source": spec.source,
        "storage": spec.storage,
        "hostname": spec.hostname,
        "full_name": spec.user.full_name,
        "username": spec.user.name,
        "password_hash": password_hash,
        "watched": watched,
        "evidence_command": EVIDENCE,
        "failed_command": "",
        "installed_command": "",
        "instance_id": "",
    }
    digest = hashlib.sha256((_expand("user-data.j2", values) + tty).encode()).hexdigest()
    token = digest[:32]
    values |= {
        "failed_command": sentinel_command("failed", token, tty) + "; sleep 2",
        "installed_command": sentinel_command("installed", token, tty),
        "instance_id": f"prebake-{token}",
    }
    answers = Answers(
        user_data=_expand("user-data.j2", values),
        meta_data=_expand("meta-data.j2", values),
        token=token,
        password_hash=password_hash,
    )
    prove(answers, values)
    return answers


def scalar(text: str) -> str:
    """Return ``text`` as one YAML scalar in double quotes, on one line, whatever is in it."""
    return str(yaml.safe_dump(text, default_style='"', width=float("inf"))).removesuffix("\n")


def _expand(name: str, values: Mapping[str, Any]) -> str:
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(templates() / "autoinstall"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # YAML, not HTML; every value goes through the filter `scalar`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["scalar"] = scalar
    try:
        return environment.get_template(name).render(values)
    except jinja2.TemplateError as error:
        where = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise AnswersError(f"The template {name}{where} cannot be rendered: {error}.") from error


def prove(answers: Answers, values: Mapping[str, Any]) -> None:
    """Read the rendered files back and make sure that they say what was meant.

    Raises AnswersError if they are not YAML, or not answers, or a value did not arrive unchanged.
    """
    if not answers.user_data.startswith("#cloud-config\n"):
        raise AnswersError("The rendered user-data does not begin with #cloud-config; the installer would not see it.")
    try:
        told = yaml.safe_load(answers.user_data)["autoinstall"]
        identity = told["identity"]
        arrived = {
            "username": identity["username"],
            "password_hash": identity["password"],
            "hostname": identity["hostname"],
            "storage": told["storage"]["layout"]["name"],
            "locale": told["locale"],
        }
        yaml.safe_load(answers.meta_data)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise AnswersError(f"The rendered user-data cannot be read back: {error}.") from error
    changed = [key for key, value in arrived.items() if value != values[key]]
    if changed or told["version"] != 1:
        raise AnswersError(
            f"The rendered user-data does not say what was asked for: {', '.join(changed) or 'version'}."
        )
