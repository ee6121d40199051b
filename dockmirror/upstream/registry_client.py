"""Registry requests to an upstream, with redirects and retries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import TTLCache
from ..headers import lines
from ..oci.errors import RegistryError, Unavailable, find_challenge, parse_challenges
from ..oci.media import EVERYTHING, accepts_everything
from ..oci.request import Blob, Manifest, RegistryRequest, Target
from ..oci.token import Credentials
from .token_relay import ChallengeCache, fetch_anonymous_token
from .upstream_client import Header, UpstreamClient
from .upstream_responses import (
    AUTHORIZATION,
    OTHER_HOST_REFUSALS,
    REDIRECT_STATUSES,
    FinalResponse,
    follow_redirects,
    read_refusal,
    wrap_other_host_refusal,
)

HEADS_AVOIDED_TTL = 3600.0
"""Seconds for which it is remembered that an upstream redirects or does not support HEAD."""
_MAX_KINDS = 10


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
