"""Several addresses of one upstream: what the first cannot answer is asked of the next."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..concurrency.circuit_breaker import RequestCircuitBreaker, is_outage
from ..interfaces import Answer, IRegistry
from ..oci.errors import RegistryError, TimedOut
from ..oci.request import Blob, Manifest, Ping, RegistryRequest, Target
from ..oci.token import TokenRequest
from .quarantine import Quarantined

SLOW = 3.0
"""Seconds without an answer after which it is the upstream that was too slow if whoever asked has left."""


def can_use_fallback(request: RegistryRequest) -> Target | None:
    """The content that another registry may be asked for as well: one by its digest, without credentials.

    Also whether that would be given: what one registry gives to everybody is everybody's.  None for all else.
    """
    target = request.target
    by_digest = isinstance(target, Blob) or (isinstance(target, Manifest) and target.digest is not None)
    return target if by_digest and request.credentials is None else None


@implementer(IRegistry)
class Failover:
    """One registry that is at several addresses: any of them may be asked for anything."""

    def __init__(self, registries: Sequence[IRegistry], clock: IReactorTime) -> None:
        self._all = [_UpstreamAddress(registry, clock) for registry in registries]

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``; fails as the first failed that was asked, where all do."""
        return await self._first(request, lambda address: address.fetch(request))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``; of the token service of one that can be asked for what the token is for."""
        asked = RegistryRequest(Ping(), credentials=request.credentials)
        return await self._first(asked, lambda address: address.token(request, asked))

    async def _first(
        self, request: RegistryRequest, ask: Callable[[_UpstreamAddress], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        failures: list[RegistryError] = []
        for address in _available(self._all, request):
            try:
                return await ask(address)
            except RegistryError as error:
                if not _may_ask_the_next(error):
                    raise
                failures.append(error)
        raise failures[0]


@implementer(IRegistry)
class FallbackMirror:
    """A registry whose contents others may have, too: these are asked for a digest that it cannot give.

    What they give is verified as anything is; what they do not give says nothing.

    :param others: are never given credentials.
    """

    def __init__(self, registry: IRegistry, others: Sequence[IRegistry], clock: IReactorTime) -> None:
        self._registry = registry
        self._own = _UpstreamAddress(registry, clock)
        self._others = [_UpstreamAddress(other, clock) for other in others]

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``; fails as the registry itself failed."""
        if can_use_fallback(request) is None:
            return await self._registry.fetch(request)
        failure = self._own.rests(request)
        for address in _available([self._own, *self._others], request):
            try:
                answer = await address.fetch(request)
            except RegistryError as error:
                if address is self._own:
                    if not _may_ask_the_next(error):
                        raise
                    failure = error
            else:
                return answer if address is self._own else evolve(answer, from_other_host=True)
        assert failure is not None
        raise failure

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``; of the registry itself alone."""
        return await self._registry.token(request)


class _UpstreamAddress:
    """A registry that is one of several, and rests when it has failed."""

    def __init__(self, registry: IRegistry, clock: IReactorTime) -> None:
        self._registry = registry
        self._resting = RequestCircuitBreaker(clock)
        self._clock = clock

    def rests(self, request: RegistryRequest) -> RegistryError | None:
        """Why it is better not asked for that now."""
        return self._resting.error(request, can_answer=True)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._ask(request, lambda: self._registry.fetch(request))

    async def token(self, request: TokenRequest, asked: RegistryRequest) -> Answer:
        """See ``IRegistry``.

        :param asked: stands for it.
        """
        return await self._ask(asked, lambda: self._registry.token(request))

    async def _ask(self, request: RegistryRequest, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        rests = self._resting.error(request, can_answer=False)
        if rests is not None:
            raise rests
        began = self._clock.seconds()
        try:
            answer = await ask()
        except CancelledError:
            if self._clock.seconds() - began >= SLOW:
                self._resting.record_failure(request, TimedOut("the upstream did not answer"))
            raise
        except Quarantined:
            raise
        except RegistryError as error:
            if is_outage(error):
                self._resting.record_failure(request, error)
            else:
                self._resting.record_success(request)
            raise
        self._resting.record_success(request)
        return answer


def _available(addresses: Sequence[_UpstreamAddress], request: RegistryRequest) -> Sequence[_UpstreamAddress]:
    """Those that do not rest; where all do, all."""
    return [address for address in addresses if address.rests(request) is None] or addresses


def _may_ask_the_next(error: RegistryError) -> bool:
    return is_outage(error) or isinstance(error, Quarantined)
