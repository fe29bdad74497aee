"""The machine that a class comes to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.spec import Content, File, Snap, Spec, User

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from builder.autoinstall.model import ClassFile

SSH_SERVERS = frozenset({"openssh-server", "ssh", "task-ssh-server", "dropbear", "tinyssh"})


def spec_of(model: ClassFile, name: str, *, password: str | None = None, memory: int = 4096, cpus: int = 2) -> Spec:
    """Return the machine that a class describes; ``password`` goes before the one that it holds."""
    netplan = None if isinstance(model.network, str) else model.network
    network = {None: "auto", True: "offline", False: "nat"}[model.offline]
    content = Content(
        packages=tuple(model.packages),
        snaps=tuple(Snap(one.name, one.channel or "", one.classic) for one in model.snaps),
        files=tuple(
            File(
                one.path,
                Path(one.source) if one.source else None,
                one.content or "",
                one.owner,
                one.group or "",
                one.mode,
            )
            for one in model.files
        ),
        commands=tuple(model.run),
    )
    user = User(
        model.user.name,
        model.user.full_name,
        password if password is not None else model.user.password or User.password,
        model.user.password_hash or "",
    )
    storage = _mapping(model.autoinstall.get("storage"))
    layout = _mapping(storage.get("layout")) if storage else {"name": "direct"}
    return Spec(
        name=name,
        disk=model.disk,
        memory=memory,
        cpus=cpus,
        user=user,
        hostname=model.hostname,
        locale=model.locale,
        keyboard=model.keyboard.layout,
        keyboard_variant=model.keyboard.variant,
        timezone=model.timezone or "",
        source=model.source,
        storage=model.storage,
        swap=None if storage and not model.swap else model.swap,
        firmware=model.firmware[0],
        both=len(model.firmware) > 1 and model.arch == "amd64" and not storage,
        network=network,
        netplan=netplan,
        proxy=model.proxy or "",
        mirror=model.mirror or "",
        updates=model.updates,
        content=content,
        cloud_init=model.cloud_init,
        firmware_budget=model.firmware_packages,
        may_fail=tuple(one if "." in one else f"{one}.service" for one in model.may_fail),
        exports=tuple(model.exports),
        autoinstall=model.autoinstall,
        whole_disk=layout.get("name") == "direct" or layout.get("sizing-policy") == "all",
        boots_online="user-data" in model.autoinstall,
        ssh_server=_mapping(model.autoinstall.get("ssh")).get("install-server") is True or brings_ssh(model.packages),
    )


def brings_ssh(packages: Iterable[str]) -> bool:
    """Return whether packages bring a server of SSH."""
    return any(re.split("[:=/]", one)[0] in SSH_SERVERS for one in packages)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
