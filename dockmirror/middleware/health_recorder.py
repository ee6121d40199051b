"""Registries of which it is noted what came of asking them, and what was given of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..concurrency.circuit_breaker import is_outage
from ..interfaces import Answer, IBody, IRegistry
from ..oci.errors import RegistryError
from ..oci.request import Manifest, Ping, RegistryRequest, repository_of
from ..oci.token import TokenRequest
from ..status.pull_counts import PullCounts
from ..status.upstream_health import AddressHealth


@implementer(IRegistry)
class HealthRecorder:
    """Notes whether there was an answer of use."""

    def __init__(self, registry: IRegistry, outcome: AddressHealth) -> None:
        self._registry = registry
        self._outcome = outcome

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``; what ``/v2/`` demands of everybody is remembered, and says nothing of now."""
        remembered = isinstance(request.target, Ping) and request.credentials is None
        return await self._noting(self._registry.fetch(request), remembered)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._noting(self._registry.token(request))

    async def _noting(self, asked: Coroutine[Any, Any, Answer], remembered: bool = False) -> Answer:
        try:
            answer = await asked
        except RegistryError as error:
            if is_outage(error):
                self._outcome.failed(str(error))
            elif not remembered:
                self._outcome.answered()
            raise
        if not remembered:
            self._outcome.answered()
        return answer


@implementer(IRegistry)
class PullCounter:
    """Notes what clients are sent of each repository.

    :param name: the registry's, in the names of images.
    """

    def __init__(self, registry: IRegistry, name: str, popular: PullCounts) -> None:
        self._registry = registry
        self._name = name
        self._popular = popular

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        answer = await self._registry.fetch(request)
        repository = repository_of(request.target)
        if repository is None or request.head or answer.status not in (200, 206):
            return answer
        manifests = int(isinstance(request.target, Manifest))
        content = _Delivered(answer.body, f"{self._name}/{repository}", manifests, self._popular)
        return evolve(answer, body=content)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)


@implementer(IBody)
class _Delivered:
    def __init__(self, content: IBody, repository: str, manifests: int, popular: PullCounts) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._note: Callable[[], None] = lambda: popular.sent(
            repository, manifests, self.descriptor.size or 0
        )

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        return self._content.deliver(consumer).addCallback(lambda _: self._note())

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()
