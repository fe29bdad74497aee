"""The class file: what may stand in it, and what it means. Its JSON Schema and its page in docs/ are made of this.

Every value arrives as the text that a person wrote (`builder.autoinstall.located`), so `22.10` stays a release and
`no` a keyboard; only what is passed through to the installer or to netplan is what YAML makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from passlib.hash import bcrypt, md5_crypt, sha1_crypt, sha256_crypt, sha512_crypt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from builder.autoinstall import values
from builder.autoinstall.network import netplan, url
from builder.autoinstall.problems import advice, shown

if TYPE_CHECKING:
    from typing_extensions import Self

EXPORTS = ("ova", "vmdk", "vdi", "vhdx", "raw", "proxmox")
HASHERS = {"$6$": sha512_crypt, "$5$": sha256_crypt, "$1$": md5_crypt, "$sha1$": sha1_crypt, "$2": bcrypt}
SIZES = [{"type": "string", "pattern": r"^\d+(\.\d+)?\s*[KMGTkmgt]?(i?B)?$"}, {"type": "integer"}]
FIRMWARE = {"enum": ["bios", "uefi"]}
FIRMWARES = {"enum": ["bios", "uefi", "both"]}

Text = Annotated[str, Field(max_length=10_000)]
Size = WithJsonSchema({"anyOf": SIZES})
Budget = WithJsonSchema({"anyOf": [{"enum": ["keep", "remove"]}, *SIZES]})
Swap = WithJsonSchema({"anyOf": [{"const": "none"}, *SIZES]})
OneOrBoth = WithJsonSchema(
    {"anyOf": [FIRMWARES, {"type": "array", "items": FIRMWARE, "minItems": 1, "maxItems": 2, "uniqueItems": True}]}
)
Loose = WithJsonSchema({"type": ["string", "number"]})


def _short(key: str) -> BeforeValidator:
    """Let a plain text stand for a mapping with one key."""
    return BeforeValidator(lambda given: {key: given} if isinstance(given, str) else given)


def _said(given: object) -> object:
    if given is None:
        values.password("")
    return given


def _network(given: object) -> object:
    if isinstance(given, dict):
        return netplan(given)
    if given != "dhcp":
        raise ValueError(f"{shown(given)} is no network. {advice(given, ['dhcp'])} A netplan configuration also goes.")
    return given


def _once(given: list[str]) -> list[str]:
    if len(set(given)) < len(given):
        raise ValueError(f"`{given[0]}` stands there twice.")
    return given


def _firmwares(given: object) -> object:
    if given == "both":
        return ["bios", "uefi"]
    return [given] if isinstance(given, str) else given


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True, hide_input_in_errors=True)


class UserModel(_Strict):
    """Who can log in, and may use sudo."""

    name: Annotated[Text, AfterValidator(values.username)] = Field("ubuntu", description="The login name.")
    full_name: Annotated[Text, AfterValidator(values.full_name)] = Field(
        "Ubuntu", alias="full-name", description="The person's name."
    )
    password: Annotated[Annotated[Text, AfterValidator(values.password), Loose] | None, BeforeValidator(_said)] = Field(
        None,
        repr=False,
        description="The password in plain text; `powercoders` if nothing else is given. It can also come from "
        "`--password-file`, `PREBAKE_PASSWORD` or `--ask-password`, which go first.",
    )
    password_hash: Annotated[Annotated[Text, AfterValidator(values.password_hash)] | None, BeforeValidator(_said)] = (
        Field(
            None,
            alias="password-hash",
            repr=False,
            description="The password as crypt(3) hashes it (`$6$…`, `$y$…`). prebake logs in to finish and prove the "
            "image, so the password itself still has to come from a file, the environment or a prompt.",
        )
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.password and self.password_hash and not verified(self.password, self.password_hash):
            raise ValueError("The password is not the one that `password-hash` was made of.")
        return self


class KeyboardModel(_Strict):
    """A keyboard."""

    layout: Annotated[Text, AfterValidator(values.keyboard)] = Field("us", description="The layout: us, gb, de, ch, …")
    variant: Text = Field("", description="The layout's variant, such as `fr` of `ch`.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        values.variant(self.layout, self.variant)
        return self


class SnapModel(_Strict):
    """A snap."""

    name: Annotated[Text, AfterValidator(values.snap)] = Field(description="The snap's name.")
    channel: Annotated[Text, AfterValidator(values.channel)] | None = Field(None, description="Its channel.")
    classic: bool = Field(default=False, description="Whether it may do what no confined snap may.")


class FileModel(_Strict):
    """A file for the target: `source` names one beside the class file, `content` is its text."""

    path: Annotated[Text, AfterValidator(values.guest_path)] = Field(description="Where it goes, from `/` on.")
    source: Text | None = Field(None, description="A file on this host, relative to the class file.")
    content: Annotated[str, Field(max_length=1 << 20)] | None = Field(None, description="The text itself.")
    owner: Annotated[Text, AfterValidator(values.owner)] = Field("root", description="The user it belongs to.")
    group: Annotated[Text, AfterValidator(values.owner)] | None = Field(
        None, description="The group; by default the owner's."
    )
    mode: Annotated[int, BeforeValidator(lambda given: values.mode(str(given))), Loose] = Field(
        0o644, description="The permissions in octal digits.", json_schema_extra={"default": "0644"}
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.content is None):
            raise ValueError(f"The file {shown(self.path)} needs either `source` or `content`.")
        return self


class ClassFile(_Strict):
    """All that an instructor writes. Every key is optional; without any this is the lesson's machine."""

    model_config = ConfigDict(title="prebake class file")

    extends: Text | None = Field(
        None,
        description="Another class file to start from. `packages`, `snaps`, `files` and `run` are added to its own, "
        "mappings are merged key by key, everything else replaces.",
    )
    name: Annotated[Text, AfterValidator(values.name)] | None = Field(
        None, description="What the image is called; by default what the class file is called."
    )
    release: Annotated[Text, AfterValidator(values.release), Loose] = Field(
        "24.04",
        description="The Ubuntu release: `24.04` is the newest point release of that series, `24.04.3` that one; "
        "also a code name, `lts` or `latest`.",
    )
    arch: Literal["amd64", "arm64"] = Field("amd64", description="The processor's architecture.")
    disk: Annotated[int, BeforeValidator(lambda given: values.disk(str(given))), Size] = Field(
        10 * values.GIB,
        description="The disk's size, as in `10G`; it takes less room until it is filled.",
        json_schema_extra={"default": "10G"},
    )
    user: UserModel = Field(UserModel(), description="Who can log in.")
    hostname: Annotated[Text, AfterValidator(values.hostname)] = Field("ubuntu", description="The machine's name.")
    locale: Annotated[Text, AfterValidator(values.locale)] = Field("en_US.UTF-8", description="Language and region.")
    keyboard: Annotated[
        KeyboardModel,
        _short("layout"),
        WithJsonSchema({"anyOf": [{"type": "string"}, KeyboardModel.model_json_schema()]}),
    ] = Field(KeyboardModel(), description="The keyboard: a layout, or `{layout: ch, variant: fr}`.")
    timezone: Annotated[Text, AfterValidator(values.timezone)] | None = Field(
        None, description="The time zone, such as `Europe/Zurich`; by default UTC."
    )
    storage: Literal["direct", "lvm"] = Field(
        "direct", description="The entire disk as one file system, or as an LVM group that the root volume fills."
    )
    swap: Annotated[int, BeforeValidator(lambda given: values.swap(str(given))), Swap] = Field(
        0, description="The size of a swap file.", json_schema_extra={"default": "none"}
    )
    firmware: Annotated[
        list[Literal["bios", "uefi"]],
        BeforeValidator(_firmwares),
        AfterValidator(_once),
        Field(min_length=1, max_length=2),
        OneOrBoth,
    ] = Field(
        ["bios", "uefi"],
        description="What the image boots under; of a list the first is what it is installed under.",
        json_schema_extra={"default": "both"},
    )
    network: Annotated[
        Any, AfterValidator(_network), WithJsonSchema({"anyOf": [{"const": "dhcp"}, {"type": "object"}]})
    ] = Field(
        "dhcp", description="`dhcp` on whatever card there is, or a netplan configuration, which is passed through."
    )
    offline: bool | None = Field(
        None,
        description="`true`: nothing is fetched while the image is made. `false`: Ubuntu's archive must be reachable, "
        "or nothing starts. By default it is used if it is reachable.",
    )
    proxy: Annotated[Text, AfterValidator(url)] | None = Field(
        None, description="An HTTP proxy for apt and snap, also on the finished image."
    )
    mirror: Annotated[Text, AfterValidator(url)] | None = Field(
        None, description="Where packages come from instead of Ubuntu's archive, also on the finished image."
    )
    updates: Literal["none", "security", "all"] = Field(
        "security", description="Which updates are installed. `none` means that the installer is not let out."
    )
    source: Literal["server", "minimal"] = Field("server", description="The normal server, or the smallest.")
    packages: list[Annotated[Text, AfterValidator(values.package)]] = Field([], description="Packages to install.")
    snaps: list[
        Annotated[
            SnapModel,
            _short("name"),
            WithJsonSchema({"anyOf": [{"type": "string"}, SnapModel.model_json_schema()]}),
        ]
    ] = Field([], description="Snaps to install: names, or `{name: lxd, channel: 5.21/stable, classic: true}`.")
    files: list[FileModel] = Field([], description="Files to put on the machine.")
    run: list[Annotated[str, Field(max_length=100_000), AfterValidator(values.command)]] = Field(
        [], description="Commands, run as root one after the other when all else is there; one that fails ends it."
    )
    cloud_init: Literal["off", "nocloud"] = Field(
        "off",
        alias="cloud-init",
        description="`off`: cloud-init is not asked again. `nocloud`: it is where there is a seed (Proxmox, labs), and "
        "without one the image is the same as with `off`.",
    )
    firmware_packages: Annotated[
        int | None, BeforeValidator(lambda given: values.firmware_budget(str(given))), Budget
    ] = Field(
        256 << 20,
        alias="firmware-packages",
        description="Firmware for cards, which no virtual machine has: `remove`, `keep`, or a size from which it goes.",
        json_schema_extra={"default": "256M"},
    )
    may_fail: list[Annotated[Text, AfterValidator(values.unit)]] = Field(
        [], alias="may-fail", description="Systemd units that may have failed when the image is proved."
    )
    exports: list[Literal["ova", "vmdk", "vdi", "vhdx", "raw", "proxmox"]] = Field(
        [], description="Formats for other hypervisors."
    )
    autoinstall: dict[str, Any] = Field(
        {},
        description="Further sections of Ubuntu's autoinstall, passed through. Commands are added to prebake's own, "
        "any other section takes the place of the one prebake would write.",
    )


def verified(password: str, hashed: str) -> bool:
    """Return whether ``hashed`` was made of ``password``; True also if this host cannot tell (yescrypt and kin)."""
    for prefix, hasher in HASHERS.items():
        if hashed.startswith(prefix):
            try:
                return bool(hasher.verify(password, hashed))
            except Exception:  # noqa: BLE001 - a backend that is not there cannot tell
                return True
    return True
