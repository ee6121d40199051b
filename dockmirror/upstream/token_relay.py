"""The token dance: what an upstream's challenge asks for, relayed or done for ourselves.

Source: distribution's token specification; its OAuth2 variant for POST.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit, urlunsplit

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..body.in_memory import json_body
from ..concurrency.single_flight import SingleFlight
from ..headers import lines
from ..interfaces import Answer
from ..oci.challenge import Challenge, find_challenge, parse_challenges
from ..oci.errors import Unavailable, Unsupported
from ..oci.token import MARKER_ANSWER, Token, TokenRequest, complete_token
from .redirects import follow_redirects
from .refusals import is_web_page, read_refusal
from .trusted_realms import TrustedRealms
from .upstream_client import Header, UpstreamClient

TOKEN_LIMIT = 64 * 1024
REMEMBERED = 300.0
"""Seconds for which what ``/v2/`` said holds."""


class ChallengeCache:
    """What an upstream's own ``/v2/`` demands, asked anew every few minutes."""

    def __init__(self, client: UpstreamClient, url: str, clock: IReactorTime) -> None:
        self._client = client
        self._url = f"{url}/v2/"
        self._clock = clock
        self._known: tuple[float, tuple[Challenge, ...]] | None = None
        self._elsewhere: Challenge | None = None
        self._joined: SingleFlight[None, tuple[Challenge, ...]] = SingleFlight()

    async def challenges(self) -> tuple[Challenge, ...]:
        """Those of an anonymous ``/v2/``; none where everybody is let in.

        :raises RegistryError: when the upstream gives neither.
        """
        if self._known is not None and self._clock.seconds() - self._known[0] < REMEMBERED:
            return self._known[1]
        return await self._joined.get(None, self._ask)

    async def token_service(self) -> Challenge | None:
        """The ``Bearer`` challenge to take a token by; None where the upstream has no tokens."""
        challenge = find_challenge(await self.challenges(), "Bearer")
        return challenge if challenge is not None and challenge.get("realm") else self._elsewhere

    def learn(self, challenges: Iterable[Challenge]) -> None:
        """What a resource demanded: all there is to go by where ``/v2/`` itself demands nothing."""
        self._elsewhere = find_challenge(challenges, "Bearer") or self._elsewhere

    async def _ask(self) -> tuple[Challenge, ...]:
        response = (await follow_redirects(self._client, "GET", self._url, ())).response
        if response.code not in (200, 401):
            raise await read_refusal(self._client, response)
        self._client.release(response)
        if response.code == 200 and is_web_page(response):
            raise Unavailable(
                "the upstream's /v2/ is a web page: something else answers there", upstream_status=200
            )
        self._known = self._clock.seconds(), _demanded(response)
        return self._known[1]


def _demanded(response: IResponse) -> tuple[Challenge, ...]:
    if response.code != 401:
        return ()
    return parse_challenges(lines(response.headers, "WWW-Authenticate")) or (Challenge("Bearer"),)


class TokenRelay:
    """Takes a client's request for a token to the upstream's token service, if that may see it."""

    def __init__(self, client: UpstreamClient, handshake: ChallengeCache, realms: TrustedRealms) -> None:
        self._client = client
        self._handshake = handshake
        self._realms = realms

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry.token``."""
        challenge = await self._handshake.token_service()
        if challenge is None:
            if find_challenge(await self._handshake.challenges(), "Basic"):
                raise Unsupported(
                    "the upstream has no tokens: it asks for a name and a password (Basic)", status=404
                )
            return Answer(json_body(MARKER_ANSWER))
        realm = parse_realm(challenge)
        if not request.is_anonymous:
            self._realms.check(realm)
        body = await ask_token(self._client, challenge, request)
        return Answer(json_body(complete_token(body)), upstream_status=200)


async def anonymous_token(client: UpstreamClient, challenge: Challenge) -> Token:
    """The token that anybody is given for what the challenge itself names."""
    scope = challenge.get("scope")
    return Token.parse(
        await ask_token(client, challenge, TokenRequest.parse([("scope", scope)] if scope else []))
    )


async def ask_token(client: UpstreamClient, challenge: Challenge, request: TokenRequest) -> bytes:
    """The body of a token service's consent; its redirects are not followed: a 307 would replay a password.

    :raises RegistryError: as it refused; a form that it does not know with 405, after which clients
        ask again by GET, as after 501 they do not.
    """
    pairs = tuple(request.pairs(challenge.get("service")))
    headers: tuple[Header, ...] = ()
    if request.credentials is not None:
        headers = (("Authorization", request.credentials.header),)
    realm = parse_realm(challenge)
    if request.form:
        response = await client.request("POST", realm, headers, form=pairs)
    else:
        response = await client.request("GET", _with_query(realm, pairs), headers)
    if response.code == 501 and request.form:
        client.release(response)
        raise Unsupported("the token service takes no forms", upstream_status=501)
    if response.code != 200:
        raise await read_refusal(client, response)
    return await client.read(response, TOKEN_LIMIT)


def parse_realm(challenge: Challenge) -> str:
    """The token service's address.

    :raises Unavailable: when the challenge names none.
    """
    realm = challenge.get("realm")
    try:
        parts = urlsplit(realm)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not realm.isascii() or not realm.isprintable() or " " in realm:
        raise Unavailable("the upstream's challenge names no token service")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _with_query(realm: str, pairs: tuple[tuple[str, str], ...]) -> str:
    parts = urlsplit(realm)
    query = "&".join(filter(None, (parts.query, urlencode(pairs))))
    return urlunsplit(parts._replace(query=query))
