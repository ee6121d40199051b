"""The gateway to the upstream: asks on a client's behalf, and gathers what the authorizer decides by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.bodies import CorruptContent
from ..concurrency.backoff import RequestCircuitBreaker, is_outage
from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IRegistry, IUpstream
from ..oci.digest import Digest
from ..oci.errors import Denied, RegistryError, TimedOut, Unauthorized, Unsupported
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.request import Blob, Manifest, Ping, RegistryRequest, Repository, repository_of
from ..oci.token import TokenRequest
from .authorization import (
    PUBLIC_STALE_TTL,
    PUBLIC_TTL,
    Decision,
    Extent,
    Facts,
    GrantCache,
    Outcome,
    PublicRepositories,
    authorize,
)

TIMEOUT_WITH_STALE = 3.0
"""Seconds that the upstream has to answer if stored content can be served instead."""
PROBE_INTERVAL = 3600.0
"""Seconds after which the upstream is asked again whether content that credentials got is public."""
_MOST = 10_000
_TOKENS = RegistryRequest(Ping())

Check = Callable[[RegistryRequest, bool], Awaitable[bool]]
"""Asks the upstream for consent, and returns whether it has proven it.

The second argument states whether the store can answer instead.
"""


@implementer(IUpstream)
@define(eq=False)
class UpstreamGateway:
    """Asks with a client's credentials, or, if it has none, with the mirror's own anonymous token.

    Consent is remembered, a refusal revokes it, and an outage opens a circuit breaker.

    :param keep_deleted: True if content that the upstream has deleted is still served.
    """

    _registry: IUpstream
    _anonymous: IRegistry
    grants: GrantCache
    public: PublicRepositories
    _breaker: RequestCircuitBreaker
    _clock: IReactorTime
    _keep_deleted: bool = False
    _token_breaker: RequestCircuitBreaker = field(init=False)
    _recent_probes: TTLCache[Repository, bool] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._token_breaker = RequestCircuitBreaker(self._clock)
        self._recent_probes = TTLCache(self._clock, _MOST)

    async def fetch(self, request: RegistryRequest, have_stale: bool = False) -> Answer:
        """Return the upstream's answer.

        :param have_stale: True if the store can answer instead; then the timeout is short.
        :raises RegistryError: its refusal or failure; at once while the circuit is open.
        """
        open_circuit = self._breaker.error(request, have_stale)
        if open_circuit is not None:
            raise open_circuit
        registry = self._anonymous if request.credentials is None else self._registry
        try:
            answer = await self._with_timeout(registry.fetch(request), have_stale)
        except RegistryError as error:
            await self._record_failure(request, error)
            raise
        if answer.from_other_host:
            return answer
        self._breaker.record_success(request)
        if answer.consents:
            try:
                await self.record_consent(request)
            except BaseException:
                answer.body.discard()
                raise
        return answer

    async def token(self, request: TokenRequest, have_stale: bool = False) -> Answer:
        """Return a token; token requests have a breaker of their own.

        :param have_stale: True if the client can pull without a token; otherwise the breaker is ignored.
        """
        open_circuit = self._token_breaker.error(_TOKENS, have_stale) if have_stale else None
        if open_circuit is not None:
            raise open_circuit
        try:
            answer = await self._with_timeout(self._registry.token(request), have_stale)
        except RegistryError as error:
            if have_stale and is_outage(error):
                self._token_breaker.record_failure(_TOKENS, error)
            raise
        self._token_breaker.record_success(_TOKENS)
        return answer

    async def check(self, request: RegistryRequest, have_stale: bool = False) -> bool:
        """:raises RegistryError: when the upstream refuses it, or does not answer."""
        check_request = evolve(request, head=True, range=None, if_none_match=None)
        answer = await self.fetch(check_request, have_stale)
        answer.body.discard()
        return answer.consents

    async def facts(self, request: RegistryRequest, digest: Digest | None = None) -> Facts:
        """Return the remembered facts about a request; the caller adds what is stored.

        :param digest: of the stored content, if the request is for a tag.
        """
        credentials, requested = request.credentials, _digest_of(request)
        repository = repository_of(request.target)
        if repository is None:
            return Facts(credentials is None)
        extent, digest = Extent.of(request.target), requested or digest
        age = await self.public.age(repository, extent)
        granted = credentials is not None and self.grants.is_granted(repository, credentials, extent)
        imported = False
        if digest is not None and not granted and age >= PUBLIC_STALE_TTL:
            imported = await self.public.is_imported(repository, digest)
        return Facts(
            anonymous=credentials is None,
            granted=granted,
            public=age < PUBLIC_TTL,
            was_public=age < PUBLIC_STALE_TTL,
            imported=imported,
            mutable=requested is None,
            keep_deleted=self._keep_deleted and extent is Extent.CONTENTS,
        )

    async def is_stale_allowed(
        self, request: RegistryRequest, facts: Facts, error: RegistryError, check: Check | None = None
    ) -> bool:
        """Return whether stored content may be served instead of the upstream's error.

        :param check: asks the upstream anonymously, if that decides.
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
        """Ask the upstream whether it gives stored content to this client, and decide by its answer.

        :raises RegistryError: its refusal or failure, unless the content is served stale.
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
        """Return whether the upstream's 404 to an authorized client proves that the content is gone.

        From unauthorized clients it may hide content.
        """
        return error.status == 404 and (await self.facts(request)).is_authorized

    def open_circuit(self, request: RegistryRequest) -> RegistryError | None:
        """Return the error for which the circuit is open if stored content can be served, or None."""
        return self._breaker.error(request, can_answer=True)

    async def record_consent(self, request: RegistryRequest) -> None:
        """Remember the upstream's consent to a request; see ``oci/consent.py``."""
        repository, extent = repository_of(request.target), Extent.of(request.target)
        if repository is None:
            return
        if request.credentials is None:
            await self.public.confirm(repository, extent)
            return
        self.grants.grant(repository, request.credentials, extent)
        if isinstance(request.target, Manifest) and await self.public.age(repository) >= PUBLIC_TTL:
            self._probe_anonymously(request, repository)

    def _with_timeout(self, answering: Coroutine[Any, Any, Answer], have_stale: bool) -> Deferred[Answer]:
        check_request = Deferred.fromCoroutine(answering)
        return (
            check_request.addTimeout(TIMEOUT_WITH_STALE, self._clock, _raise_timeout)
            if have_stale
            else check_request
        )

    async def _record_failure(self, request: RegistryRequest, error: RegistryError) -> None:
        if is_outage(error):
            self._breaker.record_failure(request, error)
            return
        if not isinstance(error, CorruptContent):
            self._breaker.record_success(request)
        repository = repository_of(request.target)
        if repository is None or not _is_refusal(error):
            return
        self.grants.revoke(repository, request.credentials)
        if request.credentials is None:
            await self.public.refuse(repository)

    def _probe_anonymously(self, request: RegistryRequest, repository: Repository) -> None:
        """Ask anonymously, at most once an hour, for content that some credentials got.

        A client's token is opaque: only this shows whether the repository is public.
        """
        if self._recent_probes.get(repository) is None and self.public.may_mark_public(repository):
            self._recent_probes.put(repository, True, PROBE_INTERVAL)
            answering = Deferred.fromCoroutine(self.check(evolve(request, credentials=None)))
            answering.addErrback(self._allow_probe, repository)

    def _allow_probe(self, failure: Failure, repository: Repository) -> None:
        failure.trap(RegistryError)
        if isinstance(failure.value, RegistryError) and is_outage(failure.value):
            self._recent_probes.drop(repository)


@implementer(IRegistry)
class PushProbeBypass:
    """Sends the existence checks of pushes upstream instead of to the cache.

    Docker, containerd and skopeo send a HEAD for each blob and manifest before they push it.  Cached content
    may have been deleted at the upstream since; if the cache answered, the push would leave it out.  The
    cache answers a HEAD of a tag without credentials, as such a client mostly pulls.
    """

    def __init__(self, cached: IRegistry, gateway: UpstreamGateway) -> None:
        self._cached = cached
        self._gateway = gateway

    async def fetch(self, request: RegistryRequest) -> Answer:
        """While the upstream does not answer, the cache does."""
        if not _may_be_push_probe(request):
            return await self._cached.fetch(request)
        try:
            return bypassed(await self._gateway.fetch(request, have_stale=True))
        except RegistryError as error:
            if not is_outage(error) and not isinstance(error, Unsupported):
                raise
        return await self._cached.fetch(request)


def bypassed(answer: Answer) -> Answer:
    """Return an answer of the upstream with the status that the cache was not used."""
    return evolve(answer, cache=CacheStatus(CacheResult.BYPASS))


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


def _raise_timeout(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the upstream did not answer within {seconds:g} s")
