"""Tokens of the mirror's own, for those who have shown their password.

They are good for this mirror alone and never travel further.
"""

from __future__ import annotations

from collections.abc import Sequence

import jwt
from twisted.internet.interfaces import IReactorTime

LIFE = 300
"""Seconds; the least that clients expect of a token is 60."""
_ALGORITHM = "HS256"
_TYPE = "dockmirror-access"


class UserTokens:
    """Signed by the first key, believed by any.

    Source: RFC 7519; the type is explicit (RFC 8725, 3.11) and the algorithm is pinned (3.1).

    :ivar life: seconds for which a token is good.
    """

    life = LIFE

    def __init__(self, keys: Sequence[bytes], clock: IReactorTime) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, name: str) -> str:
        """A token that says who this is, for ``LIFE`` seconds."""
        now = int(self._clock.seconds())
        claims = {"sub": name, "iat": now, "exp": now + LIFE}
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
