"""Sends one request to an upstream, and follows it until it is answered or refused."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..headers import lines
from ..oci.challenge import find_challenge, parse_challenges
from ..oci.credentials import Credentials
from ..oci.errors import RegistryError
from ..oci.media import EVERYTHING, admits_everything
from ..oci.request import Blob, Manifest, Request, Target
from ..work.notes import Notes
from ..work.resting import is_outage
from .client import Client, Header
from .redirects import AUTHORIZATION, REDIRECTS, Followed, follow
from .refusals import REFUSALS_BY_TARGET, refusal, refused_elsewhere
from .tokens import Handshake, anonymous_token

_ANSWERS = {200, 206, 304}
_KINDS = 10
HEADS_AVOIDED = 3600.0
"""Seconds for which it is remembered that an upstream redirects HEADs, or does not offer them."""


class Asking:
    """Asks one upstream for what a request means.

    :param url: the upstream's address, without a slash at the end.
    """

    def __init__(self, url: str, client: Client, handshake: Handshake, clock: IReactorTime) -> None:
        self._url = url
        self._client = client
        self._handshake = handshake
        self._heads_avoided: Notes[type[Target], bool] = Notes(clock, _KINDS)

    async def ask(self, request: Request) -> IResponse:
        """The response of ``follow``."""
        return (await self.follow(request)).response

    async def follow(self, request: Request) -> Followed:
        """The upstream's answer, 200, 206 or 304, after all redirects, its body not yet read.

        :raises RegistryError: its refusal; a 401's challenges are remembered for the token dance.
        """
        method = "HEAD" if request.head else "GET"
        url = self._url + request.path_and_query()
        headers = tuple(_headers(request))
        followed = await follow(self._client, method, url, headers)
        if followed.moved and followed.response.code in REFUSALS_BY_TARGET:
            followed = await self._once_more(followed, method, url, headers)
        if followed.response.code in _ANSWERS:
            return followed
        raise await self._refusal(request, followed.response, followed.moved)

    async def ask_there(self, url: str, request: Request) -> IResponse:
        """The answer of an address that the upstream has sent on to; no credentials are for it.

        :raises RegistryError: its refusal, which says nothing of the upstream.
        """
        bare = evolve(request, credentials=None)
        response = (await follow(self._client, "GET", url, tuple(_headers(bare)))).response
        if response.code not in _ANSWERS:
            raise await refusal(self._client, response, request.target.unknown)
        return response

    async def head(self, request: Request) -> IResponse | None:
        """The registry's own answer to a HEAD; None where it redirects HEADs, or does not offer them.

        That is remembered, for each kind of content, and no HEAD is sent meanwhile.

        :raises RegistryError: the refusal, as of ``ask``.
        """
        kind = type(request.target)
        if self._heads_avoided.get(kind):
            return None
        url = self._url + request.path_and_query()
        response = await self._client.ask("HEAD", url, tuple(_headers(request)))
        if response.code in _ANSWERS:
            return response
        if response.code in REDIRECTS | {405}:
            self._client.release(response)
            self._heads_avoided.put(kind, True, HEADS_AVOIDED)
            return None
        raise await self._refusal(request, response)

    async def _refusal(self, request: Request, response: IResponse, moved: bool = False) -> RegistryError:
        """The error to raise; what a 401 of the upstream itself demands is remembered."""
        error = await refusal(self._client, response, request.target.unknown)
        if moved and error.status in REFUSALS_BY_TARGET:
            return refused_elsewhere(error)
        self._handshake.learn(error.challenges)
        return error

    async def _once_more(
        self, refused: Followed, method: str, url: str, headers: tuple[Header, ...]
    ) -> Followed:
        """After a refusal by the host that the upstream redirects to.

        Another registry that challenges is answered anonymously there (registry.k8s.io leads to
        such); a signed address that has ended is asked for anew.
        """
        self._client.release(refused.response)
        challenges = parse_challenges(lines(refused.response.headers, "WWW-Authenticate"))
        challenge = find_challenge(challenges, "Bearer")
        if challenge is None:
            return await follow(self._client, method, url, headers)
        try:
            token = await anonymous_token(self._client, challenge)
        except RegistryError as error:
            raise error if is_outage(error) else refused_elsewhere(error) from error
        anonymous = (
            *(h for h in headers if h[0] != AUTHORIZATION),
            _authorization(Credentials.bearer(token.value)),
        )
        return evolve(await follow(self._client, method, refused.url, anonymous), moved=True, redirected=True)


def _headers(request: Request) -> Iterator[Header]:
    """The few headers that an upstream is sent."""
    if isinstance(request.target, Manifest) and admits_everything(request.accept):
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
