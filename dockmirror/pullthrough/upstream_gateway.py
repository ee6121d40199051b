"""The gateway to the upstream: asks on a client's behalf, and gathers what the authorizer decides by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.verified import CorruptContent
from ..concurrency.backoff import RequestCircuitBreaker, is_outage
from ..concurrency.caching import TTLCache
from ..interfaces import Answer, IRegistry, IUpstream
from ..oci.digest import Digest
from ..oci.errors import Denied, RegistryError, TimedOut, Unauthorized, Unsupported
from ..oci.reference import Repository
from ..oci.request import Blob, Manifest, Ping, RegistryRequest, repository_of
from ..oci.token import TokenRequest
from .authorization import Decision, Facts, Outcome, authorize
from .grants import PUBLIC, PUBLIC_IN_OUTAGE, Extent, GrantCache, PublicRepositories
from .responses import bypassed

PATIENCE = 3.0
"""Seconds that the upstream gets where the store can answer in its stead."""
LEARNED = 3600.0
"""Seconds after which it is asked again whether everybody is given what some credentials were."""
_MOST = 10_000
_TOKENS = RegistryRequest(Ping())

Check = Callable[[RegistryRequest, bool], Awaitable[bool]]
"""Asks the upstream whether it gives something, and returns whether it has proven that.

The second argument tells whether the store can answer instead.
"""


@implementer(IUpstream)
class UpstreamGateway:
    """Asks with a client's credentials, or anonymously with the mirror's own token where it has none.

    Consent is remembered, a refusal ends what was remembered, an outage is given a rest.

    :param keep_deleted: whether what the upstream has no more is served on.
    """

    def __init__(
        self,
        registry: IUpstream,
        anonymous: IRegistry,
        grants: GrantCache,
        public: PublicRepositories,
        resting: RequestCircuitBreaker,
        clock: IReactorTime,
        keep_deleted: bool = False,
    ) -> None:
        self._registry = registry
        self.grants = grants
        self.public = public
        self._resting = resting
        self._resting_from_tokens = RequestCircuitBreaker(clock)
        self._anonymous = anonymous
        self._clock = clock
        self._keep_deleted = keep_deleted
        self._learning: TTLCache[Repository, bool] = TTLCache(clock, _MOST)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        return await self.ask(request)

    async def ask(self, request: RegistryRequest, have_stale: bool = False) -> Answer:
        """The upstream's answer.

        :param have_stale: whether the store can answer instead; then the upstream gets little time.
        :raises RegistryError: its refusal or failure; at once, while it rests from one.
        """
        rests = self._resting.error(request, have_stale)
        if rests is not None:
            raise rests
        registry = self._anonymous if request.credentials is None else self._registry
        try:
            answer = await self._patiently(registry.fetch(request), have_stale)
        except RegistryError as error:
            await self._failed(request, error)
            raise
        if answer.from_other_host:
            return answer
        self._resting.record_success(request)
        if answer.consents:
            try:
                await self.consented(request)
            except BaseException:
                answer.body.discard()
                raise
        return answer

    async def token(self, request: TokenRequest, have_stale: bool = False) -> Answer:
        """See ``ITokenService``; a token service rests by itself, and only where nothing is lost by it.

        :param have_stale: whether the client can do without.
        """
        rests = self._resting_from_tokens.error(_TOKENS, have_stale) if have_stale else None
        if rests is not None:
            raise rests
        try:
            answer = await self._patiently(self._registry.token(request), have_stale)
        except RegistryError as error:
            if have_stale and is_outage(error):
                self._resting_from_tokens.record_failure(_TOKENS, error)
            raise
        self._resting_from_tokens.record_success(_TOKENS)
        return answer

    async def check(self, request: RegistryRequest, have_stale: bool = False) -> bool:
        """See ``Check``.

        :raises RegistryError: when the upstream does not give it, or does not say.
        """
        asked = evolve(request, head=True, range=None, if_none_match=None)
        answer = await self.ask(asked, have_stale)
        answer.body.discard()
        return answer.consents

    async def facts(self, request: RegistryRequest, digest: Digest | None = None) -> Facts:
        """Return the remembered facts about a request; the caller adds what is stored.

        :param digest: of the held content, where the request does not name it.
        """
        repository, extent = repository_of(request.target), Extent.of(request.target)
        credentials, named = request.credentials, _digest_of(request)
        if repository is None:
            return Facts(credentials is None)
        age, digest = await self.public.age(repository, extent), named or digest
        granted = credentials is not None and self.grants.granted(repository, credentials, extent)
        imported = False
        if digest is not None and not granted and age >= PUBLIC_IN_OUTAGE:
            imported = await self.public.imported(repository, digest)
        return Facts(
            anonymous=credentials is None,
            granted=granted,
            public=age < PUBLIC,
            was_public=age < PUBLIC_IN_OUTAGE,
            imported=imported,
            mutable=named is None,
            keep_deleted=self._keep_deleted and extent is Extent.CONTENTS,
        )

    async def is_stale_allowed(
        self, request: RegistryRequest, facts: Facts, error: RegistryError, check: Check | None = None
    ) -> bool:
        """Return whether held content may be served in place of the error with which the upstream answered.

        :param check: how to ask for it anonymously, where that decides.
        """
        facts = evolve(facts, outcome=Outcome.of(error))
        if authorize(facts) is Decision.STALE:
            return True
        if authorize(evolve(facts, anonymous_outcome=Outcome.OUTAGE)) is not Decision.STALE:
            return False
        try:
            consents = await (check or self.check)(evolve(request, credentials=None), True)
            outcome = Outcome.CONSENT if consents else Outcome.UNPROVEN
        except RegistryError as failed:
            outcome = Outcome.of(failed)
        return authorize(evolve(facts, anonymous_outcome=outcome)) is Decision.STALE

    async def consult(self, request: RegistryRequest, facts: Facts, check: Check | None = None) -> Decision:
        """Ask the upstream whether it gives held content to this client, and decide by its answer.

        :raises RegistryError: its refusal or failure, where that denies it.
        """
        try:
            proven = await (check or self.check)(request, facts.have_stale)
        except RegistryError as error:
            now = evolve(await self.facts(request), held=facts.held)
            if not await self.is_stale_allowed(request, now, error, check):
                raise
            return Decision.STALE
        return authorize(evolve(facts, outcome=Outcome.CONSENT if proven else Outcome.UNPROVEN))

    async def is_known_gone(self, request: RegistryRequest, error: RegistryError) -> bool:
        """Return whether the upstream has said to a client that may pull from there that it has this no more.

        To others it may hide what it has.
        """
        return error.status == 404 and (await self.facts(request)).is_authorized

    def rests(self, request: RegistryRequest) -> RegistryError | None:
        """Why the upstream is not asked that now, where something is held that can stand in."""
        return self._resting.error(request, can_answer=True)

    async def consented(self, request: RegistryRequest) -> None:
        """Remember that the upstream has consented to this; see ``oci/consent.py``."""
        repository, extent = repository_of(request.target), Extent.of(request.target)
        if repository is None:
            return
        if request.credentials is None:
            await self.public.confirm(repository, extent)
            return
        self.grants.grant(repository, request.credentials, extent)
        if isinstance(request.target, Manifest) and await self.public.age(repository) >= PUBLIC:
            self._learn(request, repository)

    def _patiently(self, asking: Coroutine[Any, Any, Answer], have_stale: bool) -> Deferred[Answer]:
        asked = Deferred.fromCoroutine(asking)
        return asked.addTimeout(PATIENCE, self._clock, _late) if have_stale else asked

    async def _failed(self, request: RegistryRequest, error: RegistryError) -> None:
        if is_outage(error):
            self._resting.record_failure(request, error)
            return
        if not isinstance(error, CorruptContent):
            self._resting.record_success(request)
        repository = repository_of(request.target)
        if repository is None or not _is_refusal(error):
            return
        self.grants.revoke(repository, request.credentials)
        if request.credentials is None:
            await self.public.refuse(repository)

    def _learn(self, request: RegistryRequest, repository: Repository) -> None:
        """Ask anonymously, once in a while, for what some credentials were given.

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


@implementer(IRegistry)
class PushProbeBypass:
    """Sends the existence checks of pushes upstream instead of to the cache.

    Docker, containerd and skopeo ask by HEAD for each blob and manifest before they push it.  What the cache
    holds may have been deleted at the upstream since; if it answered, the push would leave that out.  A tag
    without credentials is answered by the cache: such a client mostly pulls.
    """

    def __init__(self, cached: IRegistry, gateway: UpstreamGateway) -> None:
        self._cached = cached
        self._gateway = gateway

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``; while the upstream does not answer, the cache does."""
        if not _may_be_push_probe(request):
            return await self._cached.fetch(request)
        try:
            return bypassed(await self._gateway.ask(request, have_stale=True))
        except RegistryError as error:
            if not is_outage(error) and not isinstance(error, Unsupported):
                raise
        return await self._cached.fetch(request)


def _may_be_push_probe(request: RegistryRequest) -> bool:
    match request.target:
        case Blob():
            return request.head
        case Manifest() as target:
            return request.head and (target.digest is not None or request.credentials is not None)
    return False


def _digest_of(request: RegistryRequest) -> Digest | None:
    return request.target.digest if isinstance(request.target, Blob | Manifest) else None


def _is_refusal(error: RegistryError) -> bool:
    """Return whether the upstream refused these credentials, or everybody."""
    return error.status in (401, 403) or isinstance(error, Unauthorized | Denied)


def _late(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the upstream did not answer within {seconds:g} s")
