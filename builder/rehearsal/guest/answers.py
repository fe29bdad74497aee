"""Where the answers come from, and which of them the installer refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

COMBINED = Path("/var/lib/cloud/instance/cloud-config.txt")
LIVE = Path("/autoinstall.yaml")
MEDIUM = Path("/cdrom/autoinstall.yaml")

Answers = dict[str, Any]

SECTIONS: dict[str, type] = {
    "apt": dict,
    "early-commands": list,
    "error-commands": list,
    "identity": dict,
    "keyboard": dict,
    "late-commands": list,
    "locale": str,
    "network": dict,
    "packages": list,
    "proxy": str,
    "refresh-installer": dict,
    "shutdown": str,
    "snaps": list,
    "source": dict,
    "ssh": dict,
    "storage": dict,
    "timezone": str,
    "updates": str,
    "user-data": dict,
}
OPTIONAL = {"proxy"}
CHOICES = {"shutdown": ("reboot", "poweroff"), "updates": ("security", "all")}
CLOSED = {
    "identity": {"realname", "username", "hostname", "password"},
    "keyboard": {"layout", "variant", "toggle"},
    "refresh-installer": {"update", "channel"},
}
REQUIRED = {"identity": {"username", "hostname", "password"}, "keyboard": {"layout"}}
KNOWN = {
    *SECTIONS,
    "version",
    "active-directory",
    "codecs",
    "debconf-selections",
    "drivers",
    "interactive-sections",
    "kernel",
    "oem",
    "reporting",
    "ubuntu-advantage",
    "ubuntu-pro",
}


class AnswersError(Exception):
    """The answers are refused; the text is the one the real installer prints."""


def locate(cmdline: list[str]) -> tuple[Answers | None, str]:
    """Find the answers in the order of the real installer; return them with their text, or None."""
    for word in cmdline:
        if word.startswith("subiquity.autoinstallpath="):
            return _bare(Path(word.partition("=")[2]))
    if LIVE.exists():
        return _bare(LIVE)
    if COMBINED.exists():
        text = COMBINED.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        if isinstance(config, dict) and "autoinstall" in config:
            return config["autoinstall"], yaml.safe_dump(config["autoinstall"])
    if MEDIUM.exists():
        return _bare(MEDIUM)
    return None, ""


def _bare(path: Path) -> tuple[Answers, str]:
    text = path.read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    if not isinstance(data, dict):
        raise AnswersError("")
    if "autoinstall" in data:
        if len(data) > 1:
            raise AnswersError("autoinstall.yaml is not a valid cloud config datasource.")
        data = data["autoinstall"]
    return data, text


def check_core(answers: Answers) -> list[str]:
    """Check the version; return the unknown top-level keys, which only earn a warning."""
    if answers.get("version") != 1:
        raise AnswersError("Malformed autoinstall in 'version or interactive-sections' section")
    return sorted(set(answers) - KNOWN)


def check_section(name: str, answers: Answers) -> None:
    """Refuse a section of the wrong shape, with no more detail than the real installer gives."""
    value = answers.get(name)
    if value is None and (name not in answers or name in OPTIONAL):
        return
    good = isinstance(value, SECTIONS[name])
    if good and isinstance(value, dict):
        keys = {str(key) for key in value}
        good = REQUIRED.get(name, set()) <= keys <= CLOSED.get(name, keys)
    if good and name in CHOICES:
        good = value in CHOICES[name]
    if good and name == "identity":
        good = all(isinstance(part, str) for part in answers["identity"].values())
    if not good:
        raise AnswersError(f"Malformed autoinstall in '{name}' section")


def check_identity(answers: Answers) -> None:
    """Someone must be able to log in."""
    if "identity" not in answers and "user-data" not in answers:
        raise AnswersError("neither identity nor user-data provided")
    if answers.get("identity", {}).get("username") in {"root", "admin", "daemon", "nobody"}:
        raise AnswersError(f"Username is reserved by the system: {answers['identity']['username']}")


def carried(cmdline: list[str]) -> list[str]:
    """Return the kernel arguments that the installed system keeps.

    All that stands after a `---` with blanks on both sides, and every `console=` before it; a `---` that is
    the last word is no separator. `BOOT_IMAGE=`, `BOOTIF=` and `initrd=` are dropped.
    """
    split = cmdline.index("---") if "---" in cmdline[:-1] else len(cmdline)
    kept = [word for word in cmdline[:split] if word.startswith("console=")]
    kept += [word for word in cmdline[split + 1 :] if word != "---"]
    return [word for word in kept if not word.startswith(("BOOT_IMAGE=", "BOOTIF=", "initrd="))]
