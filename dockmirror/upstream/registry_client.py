"""Sends one request to an upstream, and follows it until it is answered or refused."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..concurrency.circuit_breaker import is_outage
from ..concurrency.ttl_cache import TTLCache
from ..headers import lines
from ..oci.challenge import find_challenge, parse_challenges
from ..oci.credentials import Credentials
from ..oci.errors import RegistryError
from ..oci.media import EVERYTHING, accepts_everything
from ..oci.request import Blob, Manifest, RegistryRequest, Target
from .redirects import AUTHORIZATION, REDIRECTS, FinalResponse, follow_redirects
from .refusals import REFUSALS_BY_TARGET, read_refusal, refusal_by_other_host
from .token_relay import ChallengeCache, anonymous_token
from .upstream_client import Header, UpstreamClient

_ANSWERS = {200, 206, 304}
_KINDS = 10
HEADS_AVOIDED = 3600.0
"""Seconds for which it is remembered that an upstream redirects HEADs, or does not offer them."""


class RegistryClient:
    """Asks one upstream for what a request means.

    :param url: the upstream's address, without a slash at the end.
    """

    def __init__(
        self, url: str, client: UpstreamClient, handshake: ChallengeCache, clock: IReactorTime
    ) -> None:
        self._url = url
        self._client = client
        self._handshake = handshake
        self._heads_avoided: TTLCache[type[Target], bool] = TTLCache(clock, _KINDS)

    async def ask(self, request: RegistryRequest) -> IResponse:
        """The response of ``follow``."""
        return (await self.follow(request)).response

    async def follow(self, request: RegistryRequest) -> FinalResponse:
        """The upstream's answer, 200, 206 or 304, after all redirects, its body not yet read.

        :raises RegistryError: its refusal; a 401's challenges are remembered for the token dance.
        """
        method = "HEAD" if request.head else "GET"
        url = self._url + request.path_and_query()
        headers = tuple(_headers(request))
        followed = await follow_redirects(self._client, method, url, headers)
        if followed.moved and followed.response.code in REFUSALS_BY_TARGET:
            followed = await self._once_more(followed, method, url, headers)
        if followed.response.code in _ANSWERS:
            return followed
        raise await self._refusal(request, followed.response, followed.moved)

    async def ask_there(self, url: str, request: RegistryRequest) -> IResponse:
        """The answer of an address that the upstream has sent on to; no credentials are for it.

        :raises RegistryError: its refusal, which says nothing of the upstream.
        """
        bare = evolve(request, credentials=None)
        response = (await follow_redirects(self._client, "GET", url, tuple(_headers(bare)))).response
        if response.code not in _ANSWERS:
            raise await read_refusal(self._client, response, request.target.unknown)
        return response

    async def head(self, request: RegistryRequest) -> IResponse | None:
        """The registry's own answer to a HEAD; None where it redirects HEADs, or does not offer them.

        That is remembered, for each kind of content, and no HEAD is sent meanwhile.

        :raises RegistryError: the refusal, as of ``ask``.
        """
        kind = type(request.target)
        if self._heads_avoided.get(kind):
            return None
        url = self._url + request.path_and_query()
        response = await self._client.request("HEAD", url, tuple(_headers(request)))
        if response.code in _ANSWERS:
            return response
        if response.code in REDIRECTS | {405}:
            self._client.release(response)
            self._heads_avoided.put(kind, True, HEADS_AVOIDED)
            return None
        raise await self._refusal(request, response)

    async def _refusal(
        self, request: RegistryRequest, response: IResponse, moved: bool = False
    ) -> RegistryError:
        """The error to raise; what a 401 of the upstream itself demands is remembered."""
        error = await read_refusal(self._client, response, request.target.unknown)
        if moved and error.status in REFUSALS_BY_TARGET:
            return refusal_by_other_host(error)
        self._handshake.learn(error.challenges)
        return error

    async def _once_more(
        self, refused: FinalResponse, method: str, url: str, headers: tuple[Header, ...]
    ) -> FinalResponse:
        """After a refusal by the host that the upstream redirects to.

        Another registry that challenges is answered anonymously there (registry.k8s.io leads to
        such); a signed address that has ended is asked for anew.
        """
        self._client.release(refused.response)
        challenges = parse_challenges(lines(refused.response.headers, "WWW-Authenticate"))
        challenge = find_challenge(challenges, "Bearer")
        if challenge is None:
            return await follow_redirects(self._client, method, url, headers)
        try:
            token = await anonymous_token(self._client, challenge)
        except RegistryError as error:
            raise error if is_outage(error) else refusal_by_other_host(error) from error
        anonymous = (
            *(h for h in headers if h[0] != AUTHORIZATION),
            _authorization(Credentials.bearer(token.value)),
        )
        return evolve(
            await follow_redirects(self._client, method, refused.url, anonymous), moved=True, redirected=True
        )


def _headers(request: RegistryRequest) -> Iterator[Header]:
    """The few headers that an upstream is sent."""
    if isinstance(request.target, Manifest) and accepts_everything(request.accept):
        yield "Accept", ", ".join(EVERYTHING)
    for accepted in request.accept:
        yield "Accept", accepted
    if request.range is not None and isinstance(request.target, Blob) and not request.head:
        yield "Range", str(request.range)
    if request.if_none_match is not None:
        yield "If-None-Match", request.if_none_match
    if request.credentials is not None:
        yield _authorization(request.credentials)


def _authorization(credentials: Credentials) -> Header:
    return AUTHORIZATION, credentials.header
