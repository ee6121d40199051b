"""Asking the upstream on somebody's behalf, and learning from what it says."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..content.verified import Corrupt
from ..interfaces import Answer, IRegistry
from ..oci.errors import Denied, RegistryError, TimedOut, Unauthorized
from ..oci.reference import Repository
from ..oci.request import Manifest, Ping, Request, repository_of
from ..oci.token import TokenRequest
from ..work.notes import Notes
from ..work.resting import Resting, is_outage
from .permission import Extent, Grants, Public

PATIENCE = 3.0
"""Seconds that the upstream gets where the store can answer in its stead."""
LEARNED = 3600.0
"""Seconds after which it is asked again whether everybody is given what some credentials were."""
_MOST = 10_000
_TOKENS = Request(Ping())


@implementer(IRegistry)
class Asking:
    """Asks with a client's credentials, or anonymously with the mirror's own token where it has none.

    Consent is remembered, a refusal ends what was remembered, an outage is given a rest.

    :param keep_vanished: whether what the upstream has no more is served on.
    """

    def __init__(
        self,
        registry: IRegistry,
        anonymous: IRegistry,
        grants: Grants,
        public: Public,
        resting: Resting,
        clock: IReactorTime,
        keep_vanished: bool = False,
    ) -> None:
        self._registry = registry
        self.grants = grants
        self.public = public
        self._resting = resting
        self._resting_from_tokens = Resting(clock)
        self._anonymous = anonymous
        self._clock = clock
        self.keep_vanished = keep_vanished
        self._learning: Notes[Repository, bool] = Notes(clock, _MOST)

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        return await self.ask(request)

    async def ask(self, request: Request, can_answer: bool = False) -> Answer:
        """The upstream's answer.

        :param can_answer: whether the store can answer instead; then the upstream gets little time.
        :raises RegistryError: its refusal or failure; at once, while it rests from one.
        """
        rests = self._resting.error(request, can_answer)
        if rests is not None:
            raise rests
        registry = self._anonymous if request.credentials is None else self._registry
        try:
            answer = await self._patiently(registry.fetch(request), can_answer)
        except RegistryError as error:
            await self._failed(request, error)
            raise
        if answer.elsewhere:
            return answer
        self._resting.succeeded(request)
        if answer.consents:
            try:
                await self.consented(request)
            except BaseException:
                answer.content.discard()
                raise
        return answer

    async def token(self, request: TokenRequest, can_answer: bool = False) -> Answer:
        """See ``IRegistry``; a token service rests by itself, and only where nothing is lost by it.

        :param can_answer: whether the client can do without.
        """
        rests = self._resting_from_tokens.error(_TOKENS, can_answer) if can_answer else None
        if rests is not None:
            raise rests
        try:
            answer = await self._patiently(self._registry.token(request), can_answer)
        except RegistryError as error:
            if can_answer and is_outage(error):
                self._resting_from_tokens.failed(_TOKENS, error)
            raise
        self._resting_from_tokens.succeeded(_TOKENS)
        return answer

    async def check(self, request: Request, can_answer: bool = False) -> bool:
        """Ask the upstream only whether it gives this; return whether it has proven that.

        :raises RegistryError: when it does not, or does not say.
        """
        asked = evolve(request, head=True, range=None, if_none_match=None)
        answer = await self.ask(asked, can_answer)
        answer.content.discard()
        return answer.consents

    def rests(self, request: Request) -> RegistryError | None:
        """Why the upstream is not asked that now, where something is held that can stand in."""
        return self._resting.error(request, can_answer=True)

    def _patiently(self, asking: Coroutine[Any, Any, Answer], can_answer: bool) -> Deferred[Answer]:
        asked = Deferred.fromCoroutine(asking)
        return asked.addTimeout(PATIENCE, self._clock, _late) if can_answer else asked

    async def consented(self, request: Request) -> None:
        """Remember that the upstream has consented to this; see ``oci/consent.py``."""
        repository, extent = repository_of(request.target), Extent.of(request.target)
        if repository is None:
            return
        if request.credentials is None:
            await self.public.confirm(repository, extent)
            return
        self.grants.grant(repository, request.credentials, extent)
        if isinstance(request.target, Manifest) and not await self.public.known(repository):
            self._learn(request, repository)

    async def _failed(self, request: Request, error: RegistryError) -> None:
        if is_outage(error):
            self._resting.failed(request, error)
            return
        if not isinstance(error, Corrupt):
            self._resting.succeeded(request)
        repository = repository_of(request.target)
        if repository is None or not _is_refusal(error):
            return
        if request.credentials is None:
            await self.public.refuse(repository)
        else:
            self.grants.revoke(repository, request.credentials)

    def _learn(self, request: Request, repository: Repository) -> None:
        """Whether everybody is given what these credentials were: asked anonymously, once in a while.

        A client's token is opaque; though it may well be one that anybody can have, only this tells.
        """
        if self._learning.get(repository) is None and self.public.learns():
            self._learning.put(repository, True, LEARNED)
            asking = Deferred.fromCoroutine(self.check(evolve(request, credentials=None)))
            asking.addErrback(self._not_learnt, repository)

    def _not_learnt(self, failure: Failure, repository: Repository) -> None:
        failure.trap(RegistryError)
        if isinstance(failure.value, RegistryError) and is_outage(failure.value):
            self._learning.drop(repository)


def _is_refusal(error: RegistryError) -> bool:
    """Whether it was said that these credentials, or everybody, may not have this."""
    return error.status in (401, 403) or isinstance(error, Unauthorized | Denied)


def _late(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the upstream did not answer within {seconds:g} s")
