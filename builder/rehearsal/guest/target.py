"""Makes the unpacked system one that boots, answers to its name and lets its user in."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .answers import carried
from .events import step
from .run import in_target, run
from .storage import TARGET, UEFI, Executor, fstab, make_swap

if TYPE_CHECKING:
    from .answers import Answers

CASPER = Path("/cdrom/casper")
GROUPS = "adm,cdrom,dip,sudo,users"
DISABLED = "/etc/cloud/cloud-init.disabled"
CLEANED = (
    "etc/cloud/cloud-init.disabled",
    "etc/cloud/cloud.cfg.d/90-installer-network.cfg",
    "etc/cloud/cloud.cfg.d/99-installer.cfg",
    "etc/cloud/ds-identify.cfg",
)


def settings() -> dict[str, Any]:
    """Return what the medium says of its own behaviour: when the user is created."""
    path = CASPER / "rehearsal.json"
    return json.loads(path.read_text()) if path.exists() else {}


def source(answers: Answers) -> Path:
    """Return the squashfs the answers' source names; an unknown one is a KeyError with no text."""
    known = {row["id"]: row for row in yaml.safe_load((CASPER / "install-sources.yaml").read_text())}
    default = next(name for name, row in known.items() if row.get("default"))
    wanted = answers.get("source", {}).get("id", default)
    if wanted not in known:
        raise KeyError
    return CASPER / str(known[wanted]["path"])


def extract(squashfs: Path) -> None:
    """Unpack the system."""
    run(["unsquashfs", "-force", "-no-progress", "-dest", str(TARGET), str(squashfs)])


def curthooks(answers: Answers, storage: Executor, path: str) -> None:
    """Configure what curtin configures: swap, fstab, kernel arguments, boot loader."""
    with step(f"{path}/writing-apt-config", "configuring apt configuring apt"):
        pass
    with step(f"{path}/installing-missing-packages", "installing missing packages"):
        pass
    with step(f"{path}/installing-kernel", "installing kernel"):
        if not list((TARGET / "boot").glob("vmlinuz-*")):
            raise FileNotFoundError("no kernel in the source")
    with step(f"{path}/setting-up-swap", "setting up swap"):
        swap = make_swap(answers)
    with step(f"{path}/writing-etc-fstab", "writing etc/fstab"):
        text = fstab(storage.mounts()) + ("/swap.img none swap sw 0 0\n" if swap else "")
        (TARGET / "etc/fstab").write_text(text)
    with step(f"{path}/final-kernel-configuration", "final kernel configuration"):
        arguments = " ".join(carried(Path("/proc/cmdline").read_text().split()))
        (TARGET / "etc/default/grub").write_text(
            "GRUB_DEFAULT=0\nGRUB_TIMEOUT_STYLE=hidden\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\n"
            "GRUB_TERMINAL=console\nGRUB_DISABLE_RECOVERY=true\n"
            f'GRUB_CMDLINE_LINUX_DEFAULT="{arguments}"\nGRUB_CMDLINE_LINUX=""\n'
        )
    with (
        step(f"{path}/configuring-bootloader", "configuring target system bootloader"),
        step(f"{path}/install-grub", "installing grub to target devices"),
    ):
        _install_grub(storage)


def _install_grub(storage: Executor) -> None:
    disks = [a for a in storage.actions if a.get("grub_device")]
    for action in disks:
        device = storage.devices[action["id"]]
        if UEFI and action["type"] == "partition":
            in_target(
                [
                    "grub-install",
                    "--target=x86_64-efi",
                    "--efi-directory=/boot/efi",
                    "--bootloader-id=debian",
                    "--recheck",
                    "--force-extra-removable",
                ]
            )
        elif not UEFI:
            in_target(["grub-install", "--target=i386-pc", "--recheck", device])
    in_target(["update-grub"])


def install_package(name: str, path: str) -> None:
    """Install one package from what apt knows in the target."""
    argv = ["apt-get", "--quiet", "--assume-yes", "install", name]
    with (
        step(f"{path}/install_{name}", f"installing {name}"),
        step(f"{path}/install_{name}/cmd-system-install", "curtin command system-install"),
    ):
        in_target(["env", "DEBIAN_FRONTEND=noninteractive", *argv])


def configure(answers: Answers) -> None:
    """Write identity, host name, locale, keyboard, time zone, network and cloud-init's first-boot orders."""
    etc = TARGET / "etc"
    identity = answers.get("identity", {})
    name = identity.get("hostname", "ubuntu-server")
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n\n::1 ip6-localhost ip6-loopback\n")
    (etc / "default/locale").write_text(f'LANG="{answers.get("locale", "en_US.UTF-8")}"\n')
    keyboard = answers.get("keyboard", {})
    (etc / "default/keyboard").write_text(
        f'XKBMODEL="pc105"\nXKBLAYOUT="{keyboard.get("layout", "us")}"\n'
        f'XKBVARIANT="{keyboard.get("variant", "")}"\nXKBOPTIONS=""\n'
    )
    zone = answers.get("timezone", "Etc/UTC")
    if not (TARGET / "usr/share/zoneinfo" / zone).exists():
        raise ValueError(f"unknown timezone: {zone}")
    (etc / "localtime").unlink(missing_ok=True)
    (etc / "localtime").symlink_to(f"/usr/share/zoneinfo/{zone}")
    (etc / "timezone").write_text(f"{zone}\n")
    (etc / "machine-id").write_text(Path("/etc/machine-id").read_text())
    cloud = etc / "cloud/cloud.cfg.d"
    cloud.mkdir(parents=True, exist_ok=True)
    at_install = settings().get("create-users") == "install"
    if identity and at_install:
        _create_user(identity)
    _private(cloud / "99-installer.cfg", yaml.safe_dump(first_boot(answers, user=not at_install)))
    _private(cloud / "90-installer-network.cfg", yaml.safe_dump(network(answers)))
    (etc / "cloud/ds-identify.cfg").write_text("policy: enabled\n")
    clean = etc / "cloud/clean.d/99-installer"
    clean.parent.mkdir(parents=True, exist_ok=True)
    clean.write_text("#!/bin/sh\nrm -f " + " ".join(f"/{path}" for path in CLEANED) + "\n")
    clean.chmod(0o755)


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _create_user(identity: dict[str, Any]) -> None:
    user = str(identity["username"])
    in_target(
        [
            "useradd",
            user,
            "--comment",
            str(identity.get("realname", user)),
            "--shell",
            "/bin/bash",
            "--groups",
            GROUPS,
            "--create-home",
        ]
    )
    in_target(["chpasswd", "--encrypted"], f"{user}:{identity['password']}\n")


def first_boot(answers: Answers, *, user: bool) -> dict[str, Any]:
    """Return the cloud-init configuration for the first boot, whose only datasource is None."""
    identity = answers.get("identity", {})
    data: dict[str, Any] = {
        "growpart": {"mode": "off"},
        "resize_rootfs": False,
        "preserve_hostname": True,
        "ssh_pwauth": bool(answers.get("ssh", {}).get("allow-pw")),
        "write_files": [{"path": DISABLED, "content": "Disabled by the installer.\n", "defer": True}],
        **answers.get("user-data", {}),
    }
    if identity and user:
        row = {
            "name": identity["username"],
            "gecos": identity.get("realname", identity["username"]),
            "passwd": identity["password"],
            "lock_passwd": False,
            "groups": GROUPS,
            "shell": "/bin/bash",
        }
        data["users"] = [row, *data.get("users", [])]
    elif identity:
        data.setdefault("users", [{"name": identity["username"], "lock_passwd": False}])
    return {
        "datasource_list": ["None"],
        "datasource": {
            "None": {
                "metadata": {"instance-id": str(uuid.uuid4())},
                "userdata_raw": "#cloud-config\n" + yaml.safe_dump(data),
            }
        },
    }


def network(answers: Answers) -> dict[str, Any]:
    """Return the network configuration that cloud-init renders: the answers' own, or one per present NIC."""
    wanted = answers.get("network")
    if wanted:
        return {"network": wanted.get("network", wanted)}
    cards = [p.name for p in Path("/sys/class/net").iterdir() if (p / "device").exists()]
    return {"network": {"version": 2, "ethernets": {name: {"dhcp4": True} for name in cards}}}
