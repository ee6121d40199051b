"""Authentication of the operations endpoint: a token for each write, and none for reading."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...concurrency.coroutines import SingleFlight
from ...headers import first
from ...http.connections import get_peer_network
from ...http.server_request import ServerRequest
from ...oci.errors import Challenge, Denied, RegistryError, Unauthorized
from ...system.networks import Network
from ...users import ApiTokens
from ..auth import PasswordVerifier
from ..failed_logins import FailedLogins
from ..image_actions import Actor

_CHALLENGE = (Challenge("Basic", {"realm": "dockmirror operations"}),)
ANONYMOUS = ""
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
            if first(request.requestHeaders, "Sec-Fetch-Site") in ("cross-site", "same-site"):
                raise Denied("a page of another site may not change anything here")
            name = await self._authenticate(request)
            self._check_scope(name, scope)
        except RegistryError as error:
            is_challenge = first(request.requestHeaders, "Authorization") is None and error.status == 401
            if request.method not in (b"GET", b"HEAD") and not is_challenge:
                asked = b"%s %s" % (request.method, request.path)
                await self._record_refusal(Actor(name, client), asked.decode("ascii", "replace"), str(error))
            raise
        return Actor(name, client)

    async def authorize_read(self, request: ServerRequest) -> str:
        """Return the name of the token, or ``ANONYMOUS``; a token that is sent must be valid.

        :raises Unauthorized: for a wrong token.
        """
        if self._tokens is None or first(request.requestHeaders, "Authorization") is None:
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
        scheme, _, value = (first(request.requestHeaders, "Authorization") or "").partition(" ")
        network = get_peer_network(request.getClientAddress())
        verifier = PasswordVerifier(tokens, self._failed_logins, self._running, network)
        try:
            if scheme.lower() == "basic":
                return await verifier.verify_basic(value)
            if scheme.lower() == "bearer":
                name, _, secret = value.strip().partition(".")
                return await verifier.verify(name.encode(), secret.encode())
        except Unauthorized:
            raise Unauthorized("unknown token", challenges=_CHALLENGE) from None
        raise Unauthorized("a token of 'api_tokens_file' is required", challenges=_CHALLENGE)
