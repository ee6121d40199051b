"""Credentials, tokens with their scopes, and the requests for tokens.

Source: distribution's "Token Authentication Specification" (GET) and "Oauth2 Token Authentication"
(POST forms); RFC 6749, 4.3 and 6.  Some clients read only ``token``, others only ``access_token``, so
responses have both.  A scope is ``type:name:action,action``; several are separated by spaces or by repeated
parameters.  Its name may contain colons (a host with a port); other text (public.ecr.aws uses ``aws``) is
kept verbatim.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping

from attrs import evolve, field, frozen

from .errors import Unavailable, Unsupported

_HARMLESS = {"account", "client_id", "offline_token", "access_type", "grant_type", "username"}
_HANDLED = {"scope", "service", "ns"}
_LONGEST = 10**9
_VALUE = re.compile(r"[!-~]+")  # what may follow ``Bearer`` in a header

_CREDENTIALS = re.compile(r"(?i:bearer) +[!-~]+ *|(?i:basic) +[A-Za-z0-9+/]+={0,2} *")

MARKER = "anonymous"
"""The token given where none is needed; when it comes back, it counts as no credentials."""
MARKER_ANSWER = json.dumps({"token": MARKER, "access_token": MARKER, "expires_in": 3600}).encode()


@frozen
class Credentials:
    """The value of an ``Authorization`` field; it never appears in logs or errors."""

    header: str = field(repr=False)

    @classmethod
    def parse(cls, header: str) -> Credentials:
        """Parse the credentials of a registry's client: a token, or a user name and a password.

        :raises Unsupported: when they are neither; the message does not repeat them.
        """
        if not _CREDENTIALS.fullmatch(header):
            raise Unsupported("malformed Authorization: expected Bearer or Basic", status=400)
        return cls(header)

    @classmethod
    def bearer(cls, token: str) -> Credentials:
        """Return the credentials of a token (RFC 6750, 2.1)."""
        return cls(f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credentials:
        """Return the credentials of a user name and password (RFC 7617)."""
        return cls("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())

    def fingerprint(self) -> str:
        """Return a hash that identifies these credentials in a cache key without revealing them."""
        return hashlib.sha256(self.header.encode("utf-8", "surrogateescape")).hexdigest()

    def is_bearer(self, token: str) -> bool:
        """Return whether these are exactly this token."""
        scheme, _, value = self.header.partition(" ")
        return scheme.lower() == "bearer" and value.strip() == token


@frozen
class Scope:
    """A resource and the actions on it; a scope that is a mere word has neither name nor actions."""

    type: str
    name: str = ""
    actions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Parse a scope; every text is valid."""
        kind, _, rest = text.partition(":")
        name, colon, actions = rest.rpartition(":")
        return cls(kind, name, tuple(actions.split(","))) if colon else cls(text)

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}" if self.actions else self.type

    @property
    def is_repository(self) -> bool:
        """True for access to a repository, whose name the mirror may have to complete."""
        return self.type.partition("(")[0] == "repository" and bool(self.actions)

    def renamed(self, name: str) -> Scope:
        """Return the same access to another repository."""
        return evolve(self, name=name)


def pull_scope(repository: object) -> Scope:
    return Scope("repository", str(repository), ("pull",))


CATALOG = Scope("registry", "catalog", ("*",))


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """Parse all ``scope`` parameters, each of which may hold several; without duplicates."""
    return tuple(dict.fromkeys(Scope.parse(text) for value in values for text in value.split()))


@frozen
class TokenRequest:
    """A client's request to a token service.

    :ivar form: True if it was a POST of a form rather than a GET.
    :ivar parameters: all except scope and service, verbatim; those of a form may include a password.
    """

    scopes: tuple[Scope, ...] = ()
    form: bool = False
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    credentials: Credentials | None = None

    @classmethod
    def parse(
        cls, pairs: Iterable[tuple[str, str]], form: bool = False, credentials: Credentials | None = None
    ) -> TokenRequest:
        """Parse the parameters of query and form together."""
        listed = tuple(pairs)
        scopes = parse_scopes(value for key, value in listed if key == "scope")
        rest = tuple((key, value) for key, value in listed if key not in _HANDLED)
        return cls(scopes, form, rest, credentials)

    @property
    def is_anonymous(self) -> bool:
        """True if it contains nothing that could be a secret."""
        return self.credentials is None and all(key in _HARMLESS for key, _ in self.parameters)

    def map_scopes(self, change: Callable[[Scope], Scope]) -> TokenRequest:
        """Return the request with each scope changed, without duplicates."""
        return evolve(self, scopes=tuple(dict.fromkeys(map(change, self.scopes))))

    def pairs(self, service: str) -> list[tuple[str, str]]:
        """Return the parameters for the token service, as query or as form.

        A form has one ``scope`` with words separated by spaces (RFC 6749, 3.3), a query one for each.
        """
        scopes = [str(scope) for scope in self.scopes]
        listed = [" ".join(scopes)] if self.form and scopes else scopes
        service_pairs = [("service", service)] if service else []
        return [*service_pairs, *(("scope", scope) for scope in listed), *self.parameters]


@frozen
class Token:
    """A token of a token service; ``expires_in`` is in seconds, 60 if the service does not state it."""

    value: str = field(repr=False)
    expires_in: float = 60.0

    @classmethod
    def parse(cls, body: bytes) -> Token:
        """:raises Unavailable: when the response contains no token."""
        fields = _token_fields(body)
        value = fields.get("token") or fields.get("access_token")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise Unavailable("the token service's answer holds no token")
        life = fields.get("expires_in")
        return cls(value, float(min(life, _LONGEST)) if isinstance(life, int | float) and life > 0 else 60.0)


def complete_token(body: bytes) -> bytes:
    """Return the response with the token under both names.

    :raises Unavailable: when it contains no token.
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
    """The login of an account: user name and password, an identity token, or neither for anonymous access.

    :ivar credentials: the user name and password (Basic).
    :ivar identity_token: only token services accept it.
    """

    credentials: Credentials | None = None
    identity_token: str | None = field(default=None, repr=False)

    def token_request(self, scope: Scope) -> TokenRequest:
        """Return the request for a token with this scope.

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
