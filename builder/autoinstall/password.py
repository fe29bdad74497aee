"""The password, hashed for crypt(3) of the target."""

from __future__ import annotations

from passlib.hash import sha512_crypt

ROUNDS = 5000
"""The default of crypt(3) for `$6$`: more makes every login of an emulated machine slow."""


def hash_password(password: str, salt: str | None = None) -> str:
    """Return ``password`` as a SHA-512 crypt string (`$6$salt$hash`); the salt is random unless given.

    Source of the format: crypt(5), "sha512crypt".
    """
    settings = sha512_crypt.using(rounds=ROUNDS, **({"salt": salt} if salt else {}))
    return str(settings.hash(password))
