"""Authentication: only users with a password or one of the mirror's own tokens may use the mirror.

As with any registry, a client gets a token for its user name and password at ``/v2/auth``.  The mirror
checks these credentials and never passes them on to an upstream.  Failed logins are limited for each client
network, to slow down password guessing.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from math import ceil
from struct import Struct
from typing import Any

from attrs import evolve
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource, getChildForRequest
from zope.interface import implementer

from ..body.in_memory import json_body
from ..concurrency.single_flight import SingleFlight
from ..headers import first
from ..http.server_request import ServerRequest
from ..interfaces import Answer, ITokenService
from ..oci.challenge import Challenge
from ..oci.errors import RegistryError, TooManyRequests, Unauthorized
from ..oci.token import TokenRequest
from ..system.networks import Network, client_network
from ..system.shared_table import SharedTable, hash_key
from ..users.htpasswd import Htpasswd
from ..users.user_tokens import UserTokens
from .filter import RefusalResource, RequestFilter
from .registry_api import TokenResource
from .respond import render_coroutine

WINDOW = 60.0
"""Seconds, from the first failed login, in which failures are counted together."""
MAX_PER_NAME = 10
"""Failed logins that a network may make with one user name in a window."""
MAX_PER_NETWORK = 100
"""Failed logins that a network may make in a window."""
MAX_CONCURRENT = 16
"""Passwords of one network that are compared, or wait for it, at the same time."""
_SLOT = Struct("<QdQ")
"""Key of the network or name, start of the window, number of failures."""
FAILED_LOGINS_SIZE = 16_384 * _SLOT.size
"""Bytes of memory for 16,384 networks and names."""


class FailedLogins:
    """Limits the wrong passwords that a client network may try; networks do not affect each other.

    A login counts as failed until it succeeds, so that parallel attempts do not evade the limit.

    :param memory: at most ``FAILED_LOGINS_SIZE`` bytes, zeroed at first, shared by the processes of a mirror.
    """

    def __init__(self, memory: memoryview, clock: IReactorTime) -> None:
        self._failures = SharedTable(memory, _SLOT, lambda record: record[1])
        self._clock = clock
        self._running: Counter[str] = Counter()

    async def attempt(self, network: Network | None, name: bytes, check: Callable[[], Awaitable[str]]) -> str:
        """Return the result of a password check.

        :param network: None for clients on a socket without addresses, who count as one network.
        :param check: raises ``Unauthorized`` for a wrong password.
        :raises TooManyRequests: when the network has failed too often; the password is not compared.
        """
        origin = str(network or "")
        by_name = hash_key(f"name {origin} ".encode() + name)
        by_network = hash_key(f"network {origin}".encode())
        self._refuse(by_name, MAX_PER_NAME)
        self._refuse(by_network, MAX_PER_NETWORK)
        if self._running[origin] >= MAX_CONCURRENT:
            raise TooManyRequests("too many logins at once from your network", retry_after="1")
        self._running[origin] += 1
        self._add(by_name, 1)
        self._add(by_network, 1)
        failed = False
        try:
            return await check()
        except Unauthorized:
            failed = True
            raise
        finally:
            self._leave(origin)
            if not failed:
                self._add(by_name, -1)
                self._add(by_network, -1)

    def _refuse(self, key: int, limit: int) -> None:
        _, began, count = self._find(key)
        if count >= limit:
            left = str(max(1, ceil(began + WINDOW - self._clock.seconds())))
            raise TooManyRequests(
                f"too many failed logins from your network; try again in {left} s", retry_after=left
            )

    def _add(self, key: int, count: int) -> None:
        offset, began, before = self._find(key)
        self._failures.put(offset, key, began, max(0, before + count))

    def _find(self, key: int) -> tuple[int, float, int]:
        now = self._clock.seconds()
        offset, record = self._failures.find(key)
        if record is not None and record[1] <= now < record[1] + WINDOW:
            return offset, record[1], record[2]
        return offset, now, 0

    def _leave(self, origin: str) -> None:
        self._running[origin] -= 1
        if not self._running[origin]:
            del self._running[origin]


_BASIC = Challenge("Basic", {})
_BEARER = Challenge("Bearer", {})
_INVALID = Challenge("Bearer", {"error": "invalid_token"})


class AuthFilter(RequestFilter):
    """Lets requests pass that carry a user token, or a user name and password.

    :param failed_logins: limits wrong passwords.
    """

    def __init__(
        self, resource: IResource, checker: Htpasswd, tokens: UserTokens, failed_logins: FailedLogins
    ) -> None:
        super().__init__(resource)
        self._checker = checker
        self._tokens = tokens
        self._failed_logins = failed_logins
        self._running: SingleFlight[tuple[Network | None, bytes, bytes], str] = SingleFlight()

    def check(self, request: ServerRequest) -> IResource | None:
        """:raises Unauthorized: with a Bearer challenge for registry clients, and Basic for browsers."""
        passwords = _PasswordVerifier(self._checker, self._failed_logins, self._running, _network(request))
        if request.is_token_request:
            return TokenResource(_UserTokenService(passwords, self._tokens))
        scheme, _, value = (first(request.requestHeaders, "Authorization") or "").partition(" ")
        if scheme.lower() == "basic":
            return _PasswordCheck(self, passwords.verify_basic(value))
        if scheme.lower() == "bearer":
            name = self._tokens.verify(value.strip())
            if name is None:
                raise Unauthorized(challenges=(_INVALID,))
            authenticate(request, name)
            return None
        raise Unauthorized(challenges=(_BEARER if _is_registry(request) else _BASIC,))


def authenticate(request: ServerRequest, name: str) -> None:
    """Record the user in the request and drop the credentials, so that they are not passed on."""
    request.requestHeaders.removeHeader("Authorization")
    if request.admitted_client is not None:
        request.admitted_client = evolve(request.admitted_client, user=name)


def _network(request: ServerRequest) -> Network | None:
    address = request.admitted_client.address if request.admitted_client else None
    return None if address is None else client_network(address)


def _is_registry(request: ServerRequest) -> bool:
    return b"v2" in request.path.split(b"/")[1:3]


class _PasswordCheck(Resource):
    """Renders the requested resource once the password is verified."""

    isLeaf = True

    def __init__(self, auth_filter: AuthFilter, verification: Coroutine[Any, Any, str]) -> None:
        super().__init__()
        self._filter = auth_filter
        self._verification = verification

    def render(self, request: ServerRequest) -> int:
        return render_coroutine(request, self._render(request))

    async def _render(self, request: ServerRequest) -> None:
        request.render(await self._resource(request))

    async def _resource(self, request: ServerRequest) -> IResource:
        try:
            authenticate(request, await self._verification)
        except RegistryError as error:
            return RefusalResource(error)
        segments = request.prepath or []  # its last segment was consumed to get here
        child = self._filter.resource.getChildWithDefault(segments[-1], request)
        return IResource(getChildForRequest(child, request))


class _PasswordVerifier:
    """Verifies the passwords that one client network sends, and raises errors that clients understand.

    :param running: comparisons in progress; the same password sent again meanwhile shares the result.
    """

    def __init__(
        self,
        checker: Htpasswd,
        failed_logins: FailedLogins,
        running: SingleFlight[tuple[Network | None, bytes, bytes], str],
        network: Network | None,
    ) -> None:
        self._checker = checker
        self._failed_logins = failed_logins
        self._running = running
        self._network = network

    async def verify_basic(self, encoded: str) -> str:
        """Return the user of Basic credentials (RFC 7617, 2).

        :raises Unauthorized: for a wrong user name or password.
        :raises TooManyRequests: when the network has sent too many wrong passwords.
        """
        try:
            name, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except ValueError:
            raise Unauthorized(challenges=(_BASIC,)) from None
        return await self.verify(name, password)

    async def verify(self, name: bytes, password: bytes) -> str:
        """Return the user name if the password is right; one that was verified before is not rate limited.

        :raises Unauthorized: for a wrong user name or password.
        :raises TooManyRequests: when the network has sent too many wrong passwords.
        """
        credentials = UsernamePassword(name, password)
        if self._checker.is_verified(credentials):
            return await self._compare(credentials)
        return await self._running.get(
            (self._network, name, password),
            lambda: self._failed_logins.attempt(self._network, name, lambda: self._compare(credentials)),
        )

    async def _compare(self, credentials: UsernamePassword) -> str:
        try:
            return bytes(await self._checker.requestAvatarId(credentials)).decode()
        except UnauthorizedLogin:
            raise Unauthorized("invalid username or password", challenges=(_BASIC,)) from None


@implementer(ITokenService)
class _UserTokenService:
    """The token service for users; a token grants no scopes, since each request is checked anyway."""

    def __init__(self, passwords: _PasswordVerifier, tokens: UserTokens) -> None:
        self._passwords = passwords
        self._tokens = tokens

    async def token(self, request: TokenRequest) -> Answer:
        """Issue a token for Basic credentials or a form's password grant (RFC 6749, 4.3)."""
        token = self._tokens.issue(await self._name(request))
        body = {"token": token, "access_token": token, "expires_in": self._tokens.life}
        return Answer(json_body(json.dumps(body).encode()))

    async def _name(self, request: TokenRequest) -> str:
        if request.credentials is not None:
            scheme, _, value = request.credentials.header.partition(" ")
            if scheme.lower() == "basic":
                return await self._passwords.verify_basic(value)
        form = dict(request.parameters) if request.form else {}
        if form.get("grant_type") == "password":
            return await self._passwords.verify(
                form.get("username", "").encode(), form.get("password", "").encode()
            )
        if form.get("grant_type") == "refresh_token":
            raise Unauthorized("refresh tokens are not supported: log in again", challenges=(_BASIC,))
        raise Unauthorized("this mirror requires a username and password", challenges=(_BASIC,))
