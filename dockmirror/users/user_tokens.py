"""Tokens of the mirror's own, for those who have shown their password.

They are good for this mirror alone and never travel further.
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
"""Seconds; the least that clients expect of a token is 60."""
_ALGORITHM = "HS256"
_TYPE = "dockmirror-access"


class UserTokens:
    """Signed by the first key, believed by any.

    Source: RFC 7519; the type is explicit (RFC 8725, 3.11) and the algorithm is pinned (3.1).

    :ivar life: seconds for which a token is good.
    """

    life = LIFETIME

    def __init__(self, keys: Sequence[bytes], clock: IReactorTime) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, name: str) -> str:
        """A token that says who this is, for ``LIFE`` seconds."""
        now = int(self._clock.seconds())
        claims = {"sub": name, "iat": now, "exp": now + LIFETIME}
        return jwt.encode(claims, self._keys[0], _ALGORITHM, {"typ": _TYPE})

    def verify(self, token: str) -> str | None:
        """Whose it is; None where it is not one of ours, or not any more."""
        for key in self._keys:
            try:
                # Its time is looked at below, by the clock that we were given.
                whole = jwt.decode_complete(
                    token,
                    key,
                    [_ALGORITHM],
                    {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                continue
            claims = whole["payload"]
            if whole["header"].get("typ") != _TYPE or not isinstance(claims["exp"], int):
                return None
            return str(claims["sub"]) if self._clock.seconds() < claims["exp"] else None
        return None


_BYTES = 32


def read_signing_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in the file, one a line in hexadecimal; made with one where there is no file.

    The first is signed with, all are believed: a new line on top replaces a key without a break.

    :raises OSError: when the file can be neither read nor made.
    :raises ValueError: when it holds no keys, or others may read it.
    """
    if not path.exists():
        _make(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"others may read {path}: expected mode 0600")
        lines = file.read().split()
    try:
        keys = tuple(bytes.fromhex(line.decode("ascii")) for line in lines)
    except ValueError:
        keys = ()
    if not keys or any(len(key) < _BYTES for key in keys):
        raise ValueError(f"expected keys of at least {_BYTES} bytes in {path}, in hexadecimal, one a line")
    return keys


def _make(path: Path) -> None:
    """Whole or not at all; of two processes that do it at once the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(_BYTES)}\n")
            file.flush()
            os.fsync(descriptor)
        chown_to_parent(beside)
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
