"""Tokens: an upstream's challenges, its token service, and the realms that may see credentials.

Source: distribution's token specification; its OAuth2 variant for POST.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..body.in_memory import json_body
from ..concurrency.coroutines import SingleFlight
from ..headers import lines
from ..interfaces import Answer
from ..oci.errors import (
    Challenge,
    Denied,
    NameInvalid,
    Unavailable,
    Unsupported,
    find_challenge,
    parse_challenges,
)
from ..oci.request import Repository, Tags
from ..oci.token import MARKER_ANSWER, Scope, Token, TokenRequest, complete_token
from .addresses import parse_origin
from .upstream_client import Header, UpstreamClient
from .upstream_responses import follow_redirects, is_web_page, read_refusal

TOKEN_LIMIT = 64 * 1024
CHALLENGES_TTL = 300.0
"""Seconds for which the challenges of ``/v2/`` are remembered."""


class ChallengeCache:
    """Remembers for some minutes which credentials an upstream's ``/v2/`` demands."""

    def __init__(self, client: UpstreamClient, url: str, clock: IReactorTime) -> None:
        self._client = client
        self._url = f"{url}/v2/"
        self._clock = clock
        self._cached: tuple[float, tuple[Challenge, ...]] | None = None
        self._learnt: Challenge | None = None
        self._single_flight: SingleFlight[None, tuple[Challenge, ...]] = SingleFlight()

    async def get_challenges(self) -> tuple[Challenge, ...]:
        """Return the challenges of an anonymous ``/v2/``; none if the upstream needs no login.

        :raises RegistryError: when the upstream does not respond as a registry does.
        """
        if self._cached is not None and self._clock.seconds() - self._cached[0] < CHALLENGES_TTL:
            return self._cached[1]
        return await self._single_flight.get(None, self._fetch)

    async def find_token_service(self, scopes: Iterable[Scope] = ()) -> Challenge | None:
        """Return the ``Bearer`` challenge that names the token service; None if the upstream has none.

        :param scopes: if ``/v2/`` demands nothing, a repository of these is asked for its challenge: another
            process may have sent the client here.
        """
        challenges = await self.get_challenges()
        challenge = find_challenge(challenges, "Bearer")
        if challenge is not None and challenge.get("realm"):
            return challenge
        repository = next((scope.name for scope in scopes if scope.is_repository), None)
        if self._learnt is None and repository and not challenges:
            await self._ask_repository(repository)
        return self._learnt

    def learn(self, challenges: Iterable[Challenge]) -> None:
        """Remember the challenge of a resource, for an upstream whose ``/v2/`` itself demands nothing."""
        self._learnt = find_challenge(challenges, "Bearer") or self._learnt

    async def _ask_repository(self, name: str) -> None:
        """Learn the challenge of a repository; ignore an invalid name."""
        try:
            target = Tags(Repository.parse(name))
        except NameInvalid:
            return
        url = f"{self._url.removesuffix('/v2/')}{target}?n=1"
        final = await follow_redirects(self._client, "GET", url, ())
        self._client.release(final.response)
        if final.response.code == 401 and not final.is_other_origin:
            self.learn(parse_challenges(lines(final.response.headers, "WWW-Authenticate")))

    async def _fetch(self) -> tuple[Challenge, ...]:
        response = (await follow_redirects(self._client, "GET", self._url, ())).response
        if response.code not in (200, 401):
            raise await read_refusal(self._client, response)
        self._client.release(response)
        if response.code == 200 and is_web_page(response):
            raise Unavailable(
                "the upstream's /v2/ is a web page, not a registry; check its URL", upstream_status=200
            )
        self._cached = self._clock.seconds(), _parse_demands(response)
        return self._cached[1]


def _parse_demands(response: IResponse) -> tuple[Challenge, ...]:
    if response.code != 401:
        return ()
    return parse_challenges(lines(response.headers, "WWW-Authenticate")) or (Challenge("Bearer"),)


class TokenRelay:
    """Forwards a client's token request to the upstream's token service, if that is trusted."""

    def __init__(self, client: UpstreamClient, challenges: ChallengeCache, realms: TrustedRealms) -> None:
        self._client = client
        self._challenges = challenges
        self._realms = realms

    async def token(self, request: TokenRequest) -> Answer:
        """Return the token service's response, or a marker that means nothing if there is none."""
        challenge = await self._challenges.find_token_service(request.scopes)
        if challenge is None:
            if find_challenge(await self._challenges.get_challenges(), "Basic"):
                raise Unsupported(
                    "the upstream has no tokens: it requires a user name and password (Basic)", status=404
                )
            return Answer(json_body(MARKER_ANSWER))
        realm = parse_realm(challenge)
        if not request.is_anonymous:
            self._realms.check(realm)
        body = await request_token(self._client, challenge, request)
        return Answer(json_body(complete_token(body)), upstream_status=200)


async def fetch_anonymous_token(client: UpstreamClient, challenge: Challenge) -> Token:
    """Request a token without credentials, for the scope that the challenge names."""
    scope = challenge.get("scope")
    return Token.parse(
        await request_token(client, challenge, TokenRequest.parse([("scope", scope)] if scope else []))
    )


async def request_token(client: UpstreamClient, challenge: Challenge, request: TokenRequest) -> bytes:
    """Return the body of a token service's success; redirects are not followed: a 307 would replay a
    password.

    :raises RegistryError: the service's refusal; a form that it does not support with 405, after which
        clients retry by GET, as they do not after 501.
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
        raise Unsupported("the token service does not support POST", upstream_status=501)
    if response.code != 200:
        raise await read_refusal(client, response)
    return await client.read(response, TOKEN_LIMIT)


def parse_realm(challenge: Challenge) -> str:
    """Return the token service's URL.

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


@frozen
class TrustedRealms:
    """The token services of one upstream that may be sent credentials.

    The mistake to avoid is CVE-2026-33540: a registry, or an attacker in its place, names a realm of its own
    choice and is sent the password.

    :ivar url: the upstream's own; its host is trusted.
    :ivar further_realms: origins of further ones, by the built-in table or by the operator.
    """

    url: str
    further_realms: tuple[str, ...] = field(default=())

    def check(self, realm: str) -> None:
        """:raises Denied: when credentials must not be sent to a realm, saying why and how to allow it."""
        parts = urlsplit(realm)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if not self._is_encrypted_enough(parts):
            raise Denied(f"credentials are not sent to {shown}: it does not use https as the upstream does")
        target = parse_origin(realm)
        if target[1] != parse_origin(self.url)[1] and target not in map(parse_origin, self.further_realms):
            raise Denied(
                f"credentials are not sent to {shown}: that token service is not on the upstream's own host;"
                " the operator can add it to 'realms'"
            )

    def _is_encrypted_enough(self, realm: SplitResult) -> bool:
        return realm.scheme == "https" or (realm.scheme == "http" and urlsplit(self.url).scheme == "http")
