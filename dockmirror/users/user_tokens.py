"""The mirror's own tokens for users who have logged in, and the keys that sign them.

These tokens are valid for this mirror only and never passed on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import jwt
from twisted.internet.interfaces import IReactorTime

from ..system.posix import chown_to_parent

LIFETIME = 300
"""Seconds; clients expect at least 60."""
_ALGORITHM = "HS256"
_TYPE = "dockmirror-access"


class UserTokens:
    """Issues tokens signed with the first key, and accepts those signed with any key.

    Source: RFC 7519; the type is explicit (RFC 8725, 3.11) and the algorithm is pinned (3.1).

    :ivar life: seconds for which a token is valid.
    """

    life = LIFETIME

    def __init__(self, keys: Sequence[bytes], clock: IReactorTime) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, name: str) -> str:
        """Return a token for the user, valid for ``LIFETIME`` seconds."""
        now = int(self._clock.seconds())
        claims = {"sub": name, "iat": now, "exp": now + LIFETIME}
        return jwt.encode(claims, self._keys[0], _ALGORITHM, {"typ": _TYPE})

    def verify(self, token: str) -> str | None:
        """Return the user that the token names, or None if it is invalid or expired."""
        for key in self._keys:
            try:
                # Its time is looked at below, by the clock that we were given.
                decoded = jwt.decode_complete(
                    token,
                    key,
                    [_ALGORITHM],
                    {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                continue
            claims = decoded["payload"]
            if decoded["header"].get("typ") != _TYPE or not isinstance(claims["exp"], int):
                return None
            return str(claims["sub"]) if self._clock.seconds() < claims["exp"] else None
        return None


_MIN_BYTES = 32


def read_signing_keys(path: Path) -> tuple[bytes, ...]:
    """Read keys from a file, one per line in hexadecimal; create it with a new key if it is missing.

    The first key signs, and all are accepted: a new first line replaces a key without logging users out.

    :raises OSError: when the file can be neither read nor created.
    :raises ValueError: when it holds no valid keys, or others may read it.
    """
    if not path.exists():
        _create(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"others may read {path}: expected mode 0600")
        lines = file.read().split()
    try:
        keys = tuple(bytes.fromhex(line.decode("ascii")) for line in lines)
    except ValueError:
        keys = ()
    if not keys or any(len(key) < _MIN_BYTES for key in keys):
        raise ValueError(
            f"expected keys of at least {_MIN_BYTES} bytes in {path}, in hexadecimal, one a line"
        )
    return keys


def _create(path: Path) -> None:
    """Create the file atomically; if two processes do so at once, the first file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(_MIN_BYTES)}\n")
            file.flush()
            os.fsync(descriptor)
        chown_to_parent(temporary)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
