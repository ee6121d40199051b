"""Authentication: of the users of the mirror, and of operators at the operations endpoint.

As with any registry, a client gets a token for its user name and password at ``/v2/auth``.  The mirror checks
these credentials and never passes them on to an upstream.  The operations endpoint demands a token for each
write, and none for reading.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import evolve, frozen
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.web.resource import IResource, Resource, getChildForRequest
from zope.interface import implementer

from ..body.bodies import json_body
from ..concurrency.coroutines import SingleFlight
from ..http.connections import get_peer_network
from ..http.server_request import ServerRequest
from ..interfaces import Answer, ITokenService
from ..oci.errors import Challenge, Denied, RegistryError, Unauthorized
from ..oci.token import TokenRequest
from ..system.networks import Network, client_network
from ..users import ApiTokens, Htpasswd, UserTokens
from .client_limits import FailedLogins
from .respond import RefusalResource, RequestFilter, render_coroutine
from .site import TokenResource

_BASIC = Challenge("Basic", {})
_BEARER = Challenge("Bearer", {})
_INVALID = Challenge("Bearer", {"error": "invalid_token"})
_OPERATIONS_CHALLENGE = (Challenge("Basic", {"realm": "dockmirror operations"}),)
ANONYMOUS = ""


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
        passwords = PasswordVerifier(self._checker, self._failed_logins, self._running, _network(request))
        if request.is_token_request:
            return TokenResource(_UserTokenService(passwords, self._tokens))
        scheme, _, value = (request.field("authorization") or "").partition(" ")
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
    request.drop_credentials()
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


class PasswordVerifier:
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

    def __init__(self, passwords: PasswordVerifier, tokens: UserTokens) -> None:
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


@frozen
class Actor:
    """The name of the token, if it is valid, and the address of a client that changes something."""

    token: str
    client: str


RecordRefusal = Callable[[Actor, str, str], Awaitable[None]]
"""Records a change that was refused: by whom, the method and the path, and the reason."""


class TokenAuth:
    """Checks the token of a request: ``Basic NAME:SECRET``, or ``Bearer NAME.SECRET``.

    :param tokens: None if the settings name no file of tokens; then nothing can be written.
    :param failed_logins: limits wrong tokens.
    """

    def __init__(
        self, tokens: ApiTokens | None, failed_logins: FailedLogins, record_refusal: RecordRefusal
    ) -> None:
        self._tokens = tokens
        self._failed_logins = failed_logins
        self._record_refusal = record_refusal
        self._running: SingleFlight[tuple[Network | None, bytes, bytes], str] = SingleFlight()

    async def actor(self, request: ServerRequest, scope: str) -> Actor:
        """Return who makes a request that may change something, and record it if it is refused.

        A request without a token is only challenged, and not recorded.

        :raises Denied: for another site's request, which a browser sends with the user's own token; when
            there are no tokens, or this one lacks the scope.
        :raises Unauthorized: when there is no token, or a wrong one.
        """
        client, name = str(getattr(request.getClientAddress(), "host", None) or "unix"), ANONYMOUS
        try:
            if request.field("sec-fetch-site") in ("cross-site", "same-site"):
                raise Denied("a page of another site may not change anything here")
            name = await self._authenticate(request)
            self._check_scope(name, scope)
        except RegistryError as error:
            is_challenge = request.field("authorization") is None and error.status == 401
            if request.method not in (b"GET", b"HEAD") and not is_challenge:
                asked = b"%s %s" % (request.method, request.path)
                await self._record_refusal(Actor(name, client), asked.decode("ascii", "replace"), str(error))
            raise
        return Actor(name, client)

    async def authorize_read(self, request: ServerRequest) -> str:
        """Return the name of the token, or ``ANONYMOUS``; a token that is sent must be valid.

        :raises Unauthorized: for a wrong token.
        """
        if self._tokens is None or request.field("authorization") is None:
            return ANONYMOUS
        name = await self._authenticate(request)
        self._check_scope(name, "read")
        return name

    async def _authenticate(self, request: ServerRequest) -> str:
        if self._tokens is None:
            raise Denied("this needs a token, and 'api_tokens_file' is not set")
        return await self._verify(self._tokens, request)

    def _check_scope(self, name: str, scope: str) -> None:
        if self._tokens is None or not self._tokens.has_scope(name, scope):
            raise Denied(f"the token {name} does not have the scope '{scope}'")

    async def _verify(self, tokens: ApiTokens, request: ServerRequest) -> str:
        scheme, _, value = (request.field("authorization") or "").partition(" ")
        network = get_peer_network(request.getClientAddress())
        verifier = PasswordVerifier(tokens, self._failed_logins, self._running, network)
        try:
            if scheme.lower() == "basic":
                return await verifier.verify_basic(value)
            if scheme.lower() == "bearer":
                name, _, secret = value.strip().partition(".")
                return await verifier.verify(name.encode(), secret.encode())
        except Unauthorized:
            raise Unauthorized("unknown token", challenges=_OPERATIONS_CHALLENGE) from None
        raise Unauthorized("a token of 'api_tokens_file' is required", challenges=_OPERATIONS_CHALLENGE)
