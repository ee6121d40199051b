"""Registry requests to an upstream, with redirects, retries, and the tokens of its token service.

Source: distribution's token specification; its OAuth2 variant for POST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..body.bodies import json_body
from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import SingleFlight, TTLCache
from ..headers import lines
from ..interfaces import Answer
from ..oci.errors import (
    Challenge,
    Denied,
    NameInvalid,
    RegistryError,
    Unavailable,
    Unsupported,
    find_challenge,
    parse_challenges,
)
from ..oci.media import EVERYTHING, accepts_everything
from ..oci.request import Blob, Manifest, RegistryRequest, Repository, Tags, Target
from ..oci.token import MARKER_ANSWER, Credentials, Scope, Token, TokenRequest, complete_token
from .addresses import parse_origin
from .upstream_client import Header, UpstreamClient
from .upstream_responses import (
    AUTHORIZATION,
    OTHER_HOST_REFUSALS,
    REDIRECT_STATUSES,
    FinalResponse,
    follow_redirects,
    is_web_page,
    read_refusal,
    wrap_other_host_refusal,
)

TOKEN_LIMIT = 64 * 1024
CHALLENGES_TTL = 300.0
"""Seconds for which the challenges of ``/v2/`` are remembered."""
HEADS_AVOIDED_TTL = 3600.0
"""Seconds for which it is remembered that an upstream redirects or does not support HEAD."""
_MAX_KINDS = 10


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


class RegistryClient:
    """Sends registry requests to one upstream.

    :param url: the upstream's URL, without a slash at the end.
    :param headers: returns the headers to send with a request.
    """

    def __init__(
        self,
        url: str,
        client: UpstreamClient,
        challenges: ChallengeCache,
        clock: IReactorTime,
        headers: Callable[[RegistryRequest], Iterable[Header]] | None = None,
    ) -> None:
        self._url = url
        self._client = client
        self._challenges = challenges
        self._headers = headers or request_headers
        self._heads_avoided: TTLCache[type[Target], bool] = TTLCache(clock, _MAX_KINDS)

    async def send(self, request: RegistryRequest) -> IResponse:
        """Return the response of ``follow``."""
        return (await self.follow(request)).response

    async def follow(self, request: RegistryRequest) -> FinalResponse:
        """Return the successful response, 200, 206 or 304, after all redirects, its body unread.

        A 304 to a request without a condition is no success: nothing is known to be unchanged.  Nor is a 206,
        except for a blob.

        :raises RegistryError: the upstream's refusal; a 401's challenges are remembered for token requests.
        :raises Unavailable: when what no digest verifies came by a redirect without TLS.
        """
        method = "HEAD" if request.head else "GET"
        url = self._url + request.path_and_query()
        headers = tuple(self._headers(request))
        final = await follow_redirects(self._client, method, url, headers)
        if final.is_other_origin and final.response.code in OTHER_HOST_REFUSALS:
            final = await self._retry_at_other_host(final, method, url, headers)
        if final.is_unencrypted and not _is_verified(request.target):
            self._client.release(final.response)
            raise Unavailable("the upstream redirects from https to http, where a tag or list can be forged")
        if _is_success(final.response, request):
            return final
        raise await self._read_refusal(request, final.response, final.is_other_origin)

    async def send_to(self, url: str, request: RegistryRequest) -> IResponse:
        """Send a request, without credentials, to a URL that the upstream has redirected to before.

        :raises RegistryError: the refusal, which says nothing about the upstream itself.
        """
        without_login = evolve(request, credentials=None)
        response = (
            await follow_redirects(self._client, "GET", url, tuple(self._headers(without_login)))
        ).response
        if not _is_success(response, request):
            raise await read_refusal(self._client, response, request.target.unknown)
        return response

    async def head(self, request: RegistryRequest) -> IResponse | None:
        """Return the registry's own response to a HEAD; None if it redirects or does not support HEAD.

        This is remembered for each kind of content, and no HEAD is sent meanwhile.  A 304 without a condition
        is no response either, but is not remembered.

        :raises RegistryError: the refusal, as in ``send``.
        """
        kind = type(request.target)
        if self._heads_avoided.get(kind):
            return None
        url = self._url + request.path_and_query()
        response = await self._client.request("HEAD", url, tuple(self._headers(request)))
        if _is_success(response, request):
            return response
        if response.code == 304:
            self._client.release(response)
            return None
        if response.code in REDIRECT_STATUSES | {405}:
            self._client.release(response)
            self._heads_avoided.put(kind, True, HEADS_AVOIDED_TTL)
            return None
        raise await self._read_refusal(request, response)

    async def _read_refusal(
        self, request: RegistryRequest, response: IResponse, is_other_origin: bool = False
    ) -> RegistryError:
        """Return the error to raise; remember the challenges of a 401 by the upstream itself."""
        error = await read_refusal(self._client, response, request.target.unknown)
        if is_other_origin and error.status in OTHER_HOST_REFUSALS:
            return wrap_other_host_refusal(error)
        self._challenges.learn(error.challenges)
        return error

    async def _retry_at_other_host(
        self, refused: FinalResponse, method: str, url: str, headers: tuple[Header, ...]
    ) -> FinalResponse:
        """Retry a request that the host behind a redirect has refused.

        Another registry that challenges is given an anonymous token (registry.k8s.io redirects to such); an
        expired signed URL is requested anew from the upstream.
        """
        self._client.release(refused.response)
        challenges = parse_challenges(lines(refused.response.headers, "WWW-Authenticate"))
        challenge = find_challenge(challenges, "Bearer")
        if challenge is None:
            return await follow_redirects(self._client, method, url, headers)
        try:
            token = await fetch_anonymous_token(self._client, challenge)
        except RegistryError as error:
            raise error if is_outage(error) else wrap_other_host_refusal(error) from error
        anonymous = (
            *(h for h in headers if h[0] != AUTHORIZATION),
            _authorization(Credentials.bearer(token.value)),
        )
        return evolve(
            await follow_redirects(self._client, method, refused.url, anonymous),
            is_other_origin=True,
            is_redirected=True,
            is_unencrypted=refused.is_unencrypted,
        )


def _is_verified(target: Target) -> bool:
    """Return whether the digest in a request verifies the answer's bytes."""
    return isinstance(target, Blob) or (isinstance(target, Manifest) and target.digest is not None)


def _is_success(response: IResponse, request: RegistryRequest) -> bool:
    is_part = response.code == 206 and isinstance(request.target, Blob)
    is_unmodified = response.code == 304 and request.if_none_match is not None
    return response.code == 200 or is_part or is_unmodified


def request_headers(request: RegistryRequest) -> Iterator[Header]:
    """Yield the few headers that an upstream is sent."""
    if isinstance(request.target, Manifest) and accepts_everything(request.accept):
        yield "Accept", ", ".join(EVERYTHING)
    for accepted in request.accept:
        yield "Accept", accepted
    if request.range is not None and isinstance(request.target, Blob) and not request.head:
        yield "Range", str(request.range)
    if request.if_none_match is not None:
        yield "If-None-Match", request.if_none_match
    if request.no_cache and not isinstance(request.target, Blob):
        yield "Cache-Control", "no-cache"
    if request.credentials is not None:
        yield _authorization(request.credentials)


def _authorization(credentials: Credentials) -> Header:
    return AUTHORIZATION, credentials.header
