"""In front of everything, where only those who are named may use the mirror.

A token of the mirror's own is asked for by name and password at ``/v2/auth``, as of any registry.  What a
client brings is looked at here and goes no further.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Coroutine
from typing import Any, Protocol

from attrs import evolve
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource, Resource, getChildForRequest
from zope.interface import implementer

from ..body.in_memory import json_body
from ..concurrency.single_flight import SingleFlight
from ..headers import first
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IRegistry
from ..oci.challenge import Challenge
from ..oci.errors import RegistryError, Unauthorized, Unsupported
from ..oci.request import RegistryRequest as Asked
from ..oci.token import TokenRequest
from ..system.networks import Network, client_network
from .failed_logins import FailedLogins
from .filter import RefusalResource, RequestFilter
from .registry_api import TokenResource
from .respond import render_coroutine

_BASIC = Challenge("Basic", {})
_BEARER = Challenge("Bearer", {})
_INVALID = Challenge("Bearer", {"error": "invalid_token"})


class TokenIssuer(Protocol):
    """Gives tokens and knows them again; see ``UserTokens``."""

    life: int

    def issue(self, name: str) -> str:
        """A token for that name."""

    def verify(self, token: str) -> str | None:
        """Whose token it is; None where it is none, or no more."""


class Checker(Protocol):
    """Compares passwords; see ``Htpasswd``."""

    def is_verified(self, credentials: UsernamePassword) -> bool:
        """Whether this password of this name was right before, which takes no time."""

    def requestAvatarId(self, credentials: UsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fires with the name, or fails with ``UnauthorizedLogin``."""


class AuthFilter(RequestFilter):
    """Lets through whoever shows a token of ours, or a name and a password.

    :param guesses: limits how often a client may be wrong.
    """

    def __init__(
        self, resource: IResource, checker: Checker, tokens: TokenIssuer, guesses: FailedLogins
    ) -> None:
        super().__init__(resource)
        self._checker = checker
        self._tokens = tokens
        self._guesses = guesses
        self._running: SingleFlight[tuple[Network | None, bytes, bytes], str] = SingleFlight()

    def check(self, request: ServerRequest) -> IResource | None:
        """See ``RequestFilter``.

        :raises Unauthorized: with the challenge that suits a registry's client, or a browser.
        """
        passwords = _Passwords(self._checker, self._guesses, self._running, _network(request))
        if request.is_token:
            return TokenResource(_UserTokenRegistry(passwords, self._tokens))
        scheme, _, value = (first(request.requestHeaders, "Authorization") or "").partition(" ")
        if scheme.lower() == "basic":
            return _PasswordCheck(self, passwords.name(value))
        if scheme.lower() == "bearer":
            name = self._tokens.verify(value.strip())
            if name is None:
                raise Unauthorized(challenges=(_INVALID,))
            authenticate(request, name)
            return None
        raise Unauthorized(challenges=(_BEARER if _is_registry(request) else _BASIC,))


def authenticate(request: ServerRequest, name: str) -> None:
    """Notes who asks; what proves it is taken away, so that it can go nowhere."""
    request.requestHeaders.removeHeader("Authorization")
    if request.admitted_client is not None:
        request.admitted_client = evolve(request.admitted_client, user=name)


def _network(request: ServerRequest) -> Network | None:
    address = request.admitted_client.address if request.admitted_client else None
    return None if address is None else client_network(address)


def _is_registry(request: ServerRequest) -> bool:
    return b"v2" in request.path.split(b"/")[1:3]


class _PasswordCheck(Resource):
    """Goes on to what was asked for when the password proves to be right."""

    isLeaf = True

    def __init__(self, members: AuthFilter, checking: Coroutine[Any, Any, str]) -> None:
        super().__init__()
        self._members = members
        self._checking = checking

    def render(self, request: ServerRequest) -> int:
        """Answers later."""
        return render_coroutine(request, self._go_on(request))

    async def _go_on(self, request: ServerRequest) -> None:
        request.render(await self._resource(request))

    async def _resource(self, request: ServerRequest) -> IResource:
        try:
            authenticate(request, await self._checking)
        except RegistryError as error:
            return RefusalResource(error)
        segments = request.prepath or []  # of which the last has been used up to get here
        below = self._members.resource.getChildWithDefault(segments[-1], request)
        return IResource(getChildForRequest(below, request))


class _Passwords:
    """Names by their passwords, as one client network sends them, with errors that clients understand.

    :param running: what is being compared; the same password, sent again meanwhile, waits for the outcome.
    """

    def __init__(
        self,
        checker: Checker,
        guesses: FailedLogins,
        running: SingleFlight[tuple[Network | None, bytes, bytes], str],
        network: Network | None,
    ) -> None:
        self._checker = checker
        self._guesses = guesses
        self._running = running
        self._network = network

    async def name(self, encoded: str) -> str:
        """Who sent this as Basic (RFC 7617, 2).

        :raises Unauthorized: for whoever did not know the password.
        :raises TooManyRequests: for a network that has sent too many wrong passwords.
        """
        try:
            name, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except ValueError:
            raise Unauthorized(challenges=(_BASIC,)) from None
        return await self.check(name, password)

    async def check(self, name: bytes, password: bytes) -> str:
        """See ``name``; a password that was verified already is not limited."""
        credentials = UsernamePassword(name, password)
        if self._checker.is_verified(credentials):
            return await self._compared(credentials)
        return await self._running.get(
            (self._network, name, password),
            lambda: self._guesses.attempt(self._network, name, lambda: self._compared(credentials)),
        )

    async def _compared(self, credentials: UsernamePassword) -> str:
        try:
            return bytes(await self._checker.requestAvatarId(credentials)).decode()
        except UnauthorizedLogin:
            raise Unauthorized("no such name, or not its password", challenges=(_BASIC,)) from None


@implementer(IRegistry)
class _UserTokenRegistry:
    """The token service: what a token is good for is not said in it, but looked at in each request."""

    def __init__(self, passwords: _Passwords, tokens: TokenIssuer) -> None:
        self._passwords = passwords
        self._tokens = tokens

    async def fetch(self, request: Asked) -> Answer:
        """:raises Unsupported: always; there is nothing but tokens."""
        raise Unsupported

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``: by Basic, or by a form's name and password (RFC 6749, 4.3)."""
        token = self._tokens.issue(await self._name(request))
        body = {"token": token, "access_token": token, "expires_in": self._tokens.life}
        return Answer(json_body(json.dumps(body).encode()))

    async def _name(self, request: TokenRequest) -> str:
        if request.credentials is not None:
            scheme, _, value = request.credentials.header.partition(" ")
            if scheme.lower() == "basic":
                return await self._passwords.name(value)
        form = dict(request.parameters) if request.form else {}
        if form.get("grant_type") == "password":
            return await self._passwords.check(
                form.get("username", "").encode(), form.get("password", "").encode()
            )
        if form.get("grant_type") == "refresh_token":
            raise Unauthorized("refresh tokens are not given here: log in once more", challenges=(_BASIC,))
        raise Unauthorized("this mirror is for those who have a name and a password", challenges=(_BASIC,))
