"""Lists of tags and referrers, cached by their query.

A query with parameters that the specification does not define is passed on, as a registry's own pages may
need it, but not cached: it would let a client fill the cache with copies of one list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from attrs import astuple, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..body.in_memory import BytesBody
from ..body.wrappers import Tee
from ..interfaces import Answer, IDocumentStore
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.request import InRepository, Referrers, RegistryRequest, Repository, Tags
from .authorization import MAX_STALE, Decision, Facts, authorize
from .error_tolerant_store import ErrorTolerantDocumentStore
from .generations import Generations, without_doubts
from .upstream_gateway import UpstreamGateway, bypassed

LIMIT = 4 * 1024 * 1024
"""Bytes; a longer list is passed on and not cached."""

PARAMETERS = {Tags: ("last", "n"), Referrers: ("artifactType",)}
"""The parameters of cached lists, each given at most once."""

_FILTERS = "OCI-Filters-Applied"
_log = Logger()


@frozen
class _CachedList:
    """A list as the upstream sent it.

    :ivar fetched_at: seconds since the epoch.
    :ivar generation: the repository's, from before the request.
    :ivar filters: the value of ``OCI-Filters-Applied``, if the registry has filtered the list.
    """

    fetched_at: float
    media_type: str | None
    next_page: tuple[tuple[str, str], ...] | None
    body: str
    generation: str = ""
    filters: str | None = None

    @classmethod
    def read(cls, document: bytes | None) -> _CachedList | None:
        try:
            fetched_at, media_type, next_page, body, *rest = json.loads(document or b"null")
            pages = None if next_page is None else tuple((key, value) for key, value in next_page)
            return cls(float(fetched_at), media_type, pages, body, *rest)
        except (ValueError, TypeError):
            return None

    def write(self) -> bytes:
        return json.dumps(astuple(self)).encode()

    def answer(self, status: CacheStatus) -> Answer:
        data = self.body.encode()
        content = BytesBody(data, Descriptor(self.media_type, None, len(data)))
        headers = () if self.filters is None else ((_FILTERS, self.filters),)
        return Answer(content, headers=headers, next_page=self.next_page, cache=status)


class ListCache:
    """The lists of one registry's repositories.

    :param partition: returns the cache partition of a repository.
    :param tag_ttl: returns the seconds for which the list of a public repository is fresh.
    :param generations: the registry's generations; a list from an earlier one is not used.
    """

    def __init__(
        self,
        partition: Callable[[Repository], str],
        gateway: UpstreamGateway,
        documents: IDocumentStore,
        clock: IReactorTime,
        tag_ttl: Callable[[InRepository], float],
        generations: Generations,
    ) -> None:
        self._generations = generations
        self._partition = partition
        self._gateway = gateway
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self._tag_ttl = tag_ttl

    async def fetch(self, request: RegistryRequest, target: Tags | Referrers) -> Answer:
        if not _is_cacheable(request, target):
            return bypassed(await self._gateway.fetch(request))
        name = self._name(request, target.repository)
        generation = (
            await self._generations.generation(self._generations.store_name(target.repository))
        ).decode()
        cached = _CachedList.read(await self._documents.read(name))
        if cached is not None and without_doubts(cached.generation) != without_doubts(generation):
            cached = None
        age = self._clock.seconds() - cached.fetched_at if cached else 0.0
        facts = await self._facts(request, target, cached, generation)
        if cached and authorize(facts) is Decision.ALLOW:
            return cached.answer(CacheStatus(age=age))
        try:
            answer = await self._gateway.fetch(request, facts.have_stale)
        except RegistryError as error:
            facts = await self._facts(request, target, cached, generation)
            if cached is None or not await self._gateway.is_stale_allowed(request, facts, error):
                raise
            _log.warn("{target} is served stale: {error}", target=str(target), error=error.summary)
            return cached.answer(CacheStatus(CacheResult.STALE, age, error.summary))
        return self._remember(name, generation, answer)

    async def _facts(
        self, request: RegistryRequest, target: Tags | Referrers, cached: _CachedList | None, generation: str
    ) -> Facts:
        """Return the facts about a request.

        :param generation: the repository's current one.
        """
        facts = await self._gateway.facts(request)
        if cached is None:
            return evolve(facts, held=False)
        age = self._clock.seconds() - cached.fetched_at
        return evolve(
            facts,
            in_doubt=cached.generation != generation,
            fresh=0 <= age < self._tag_ttl(target) and not request.revalidate,
            expired=age >= MAX_STALE,
        )

    def _remember(self, name: str, generation: str, answer: Answer) -> Answer:
        content = Tee(answer.body, LIMIT, lambda body: self._store(name, generation, answer, body))
        return evolve(answer, body=content, cache=CacheStatus(CacheResult.MISS))

    def _store(self, name: str, generation: str, answer: Answer, body: bytes) -> None:
        """Store a list that is complete JSON; without ``Content-Length``, a truncated one looks complete."""
        try:
            json.loads(body)
            text = body.decode()
        except (ValueError, RecursionError):
            return
        media_type = answer.body.descriptor.media_type
        confirmed = self._clock.seconds() - (answer.age or 0.0)
        filters = dict(answer.headers).get(_FILTERS)
        cached = _CachedList(confirmed, media_type, answer.next_page, text, generation, filters)
        Deferred.fromCoroutine(self._documents.write(name, cached.write()))

    def _name(self, request: RegistryRequest, repository: Repository) -> str:
        normalized = evolve(request, query=tuple(sorted(request.query))).path_and_query()
        return f"lists/{self._partition(repository)}/{hashlib.sha256(normalized.encode()).hexdigest()}"


def _is_cacheable(request: RegistryRequest, target: Tags | Referrers) -> bool:
    names = [name for name, _ in request.query]
    return len(names) == len(set(names)) and set(names) <= set(PARAMETERS[type(target)])
