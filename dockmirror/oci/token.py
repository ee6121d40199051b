"""A token asked for and given.

Source: distribution's "Token Authentication Specification" (GET) and "Oauth2 Token Authentication"
(POST forms); RFC 6749, 4.3 and 6.  Clients read ``token`` or ``access_token`` or only one of them
depending on who they are, so both are always given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

from attrs import evolve, field, frozen

from .credentials import Credentials
from .errors import Unavailable
from .scope import Scope, parse_scopes

_HARMLESS = {"account", "client_id", "offline_token", "access_type", "grant_type", "username"}
_OURS = {"scope", "service", "ns"}
_LONGEST = 10**9
_VALUE = re.compile(r"[!-~]+")  # what may follow ``Bearer`` in a header

MARKER = "anonymous"
"""A token that stands for none: given where none is needed, and no credentials when it comes back."""
MARKER_ANSWER = json.dumps({"token": MARKER, "access_token": MARKER, "expires_in": 3600}).encode()


@frozen
class TokenRequest:
    """What a client asks a token service for.

    :ivar form: whether it was a POST of a form rather than a GET.
    :ivar parameters: all but scope and service, as they came; a form's may hold a password.
    """

    scopes: tuple[Scope, ...] = ()
    form: bool = False
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    credentials: Credentials | None = None

    @classmethod
    def parse(
        cls, pairs: Iterable[tuple[str, str]], form: bool = False, credentials: Credentials | None = None
    ) -> TokenRequest:
        """From the parameters of query and form together."""
        listed = tuple(pairs)
        scopes = parse_scopes(value for key, value in listed if key == "scope")
        rest = tuple((key, value) for key, value in listed if key not in _OURS)
        return cls(scopes, form, rest, credentials)

    @property
    def is_anonymous(self) -> bool:
        """Whether nothing in it could be a secret."""
        return self.credentials is None and all(key in _HARMLESS for key, _ in self.parameters)

    def map_scopes(self, change: Callable[[Scope], Scope]) -> TokenRequest:
        """The same with each scope changed; those that became equal are asked for once."""
        return evolve(self, scopes=tuple(dict.fromkeys(map(change, self.scopes))))

    def pairs(self, service: str) -> list[tuple[str, str]]:
        """What the token service is sent, as query or as form.

        A form has one ``scope`` of words separated by spaces (RFC 6749, 3.3), a query one for each.
        """
        scopes = [str(scope) for scope in self.scopes]
        listed = [" ".join(scopes)] if self.form and scopes else scopes
        named = [("service", service)] if service else []
        return [*named, *(("scope", scope) for scope in listed), *self.parameters]


@frozen
class Token:
    """What a token service gave; ``expires_in`` in seconds, 60 where it does not say."""

    value: str = field(repr=False)
    expires_in: float = 60.0

    @classmethod
    def parse(cls, body: bytes) -> Token:
        """:raises Unavailable: when there is no token in the answer."""
        fields = _token_fields(body)
        value = fields.get("token") or fields.get("access_token")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise Unavailable("the token service's answer holds no token")
        life = fields.get("expires_in")
        return cls(value, float(min(life, _LONGEST)) if isinstance(life, int | float) and life > 0 else 60.0)


def complete_token(body: bytes) -> bytes:
    """The same answer with the token under both names.

    :raises Unavailable: when there is no token in it.
    """
    value = Token.parse(body).value
    return json.dumps({**_token_fields(body), "token": value, "access_token": value}).encode()


def _token_fields(body: bytes) -> Mapping[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise Unavailable("the token service's answer is not the JSON of a token")
    return fields


@frozen
class Login:
    """A name and a password, or an identity token, or neither: then it is anybody.

    :ivar credentials: the name and the password (Basic).
    :ivar identity_token: of which token services alone know.
    """

    credentials: Credentials | None = None
    identity_token: str | None = field(default=None, repr=False)

    def token_request(self, scope: Scope) -> TokenRequest:
        """The request for a token.

        Source: distribution's "Oauth2 Token Authentication", where an identity token is a refresh token.
        """
        if self.identity_token is None:
            return TokenRequest(scopes=(scope,), credentials=self.credentials)
        grant = {
            "grant_type": "refresh_token",
            "client_id": "dockmirror",
            "refresh_token": self.identity_token,
        }
        return TokenRequest(scopes=(scope,), form=True, parameters=tuple(grant.items()))
