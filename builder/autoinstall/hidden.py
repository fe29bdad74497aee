"""What in answers is nobody else's business: found, and masked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.autoinstall.network import credentials_in, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = "********"
SECRET = frozenset(
    {"password", "pass", "passwd", "hashed_passwd", "plain_text_passwd", "token", "key", "secret", "passphrase"}
)
"""Keys in autoinstall and cloud-config whose texts are nobody else's business, with `_` for `-`; so are `*_private`."""
ACCOUNTS = "chpasswd's accounts"
LONG_LINE = 16
"""A line of a secret of several lines, such as a private key, is looked for by itself from this length on."""


def masked(value: object, hashed: str, key: object = "") -> object:
    """Return a copy of answers that shows no secret."""
    if isinstance(value, dict):
        whole = key == "chpasswd"
        return {name: masked(inner, hashed, "password" if whole else name) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner, hashed, key if hidden(key) else "") for inner in value]
    if (
        (hidden(key) or key == "content")
        and isinstance(value, (str, int))
        and not isinstance(value, bool)
        and value != ""
    ):
        return MASK
    if not isinstance(value, str):
        return value
    value = without_credentials(value)
    return value.replace(hashed, MASK) if hashed else value


def secrets(value: object, key: object = "") -> Iterator[str]:
    """Yield the secrets in answers."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from secrets(inner, ACCOUNTS if key == "chpasswd" else name)
    elif isinstance(value, list):
        for inner in value:
            yield from secrets(inner, key if hidden(key) or key == ACCOUNTS else "")
    elif key == ACCOUNTS and isinstance(value, str):
        # A line each of a user's name, which is no secret, and a password.
        yield from (line.partition(":")[2] or line for line in value.splitlines())
    elif hidden(key) and isinstance(value, (str, int)) and not isinstance(value, bool):
        yield from [str(value), *(line for line in str(value).splitlines() if len(line) >= LONG_LINE)]
    elif isinstance(value, str):
        yield from credentials_in(value)


def hidden(key: object) -> bool:
    """Tell whether what stands under ``key`` is a secret."""
    name = str(key).replace("-", "_")
    return name in SECRET or name.endswith("_private")
