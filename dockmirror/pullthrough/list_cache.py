"""Tags and referrers: remembered for a while with their query, and for when the upstream is down.

A query with parameters that the specification does not have is passed on, as a registry's own pages may need
it, and not remembered: it would let a client fill the cache with copies of one list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..body.in_memory import BytesBody
from ..body.wrappers import Tee
from ..interfaces import Answer, IDocumentStore
from ..oci.cache_status import CacheResult, CacheStatus
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError
from ..oci.request import InRepository, Referrers, RegistryRequest, Tags
from .authorization import Decision, Facts, authorize
from .error_tolerant_store import ErrorTolerantDocumentStore
from .generations import ReadOnlyGenerations, without_doubts
from .responses import STALE, bypassed
from .upstream_gateway import UpstreamGateway

LIMIT = 4 * 1024 * 1024
"""Bytes; a longer list is passed on and not remembered."""

PARAMETERS = {Tags: ("last", "n"), Referrers: ("artifactType",)}
"""By which the lists that are remembered differ, each given at most once."""

_log = Logger()


@frozen
class _CachedList:
    """A list as it was given.

    :ivar at: seconds since the epoch.
    :ivar mark: of the repository, before it was asked for; see ``Generations``.
    """

    at: float
    media_type: str | None
    next_page: tuple[tuple[str, str], ...] | None
    body: str
    mark: str = ""

    @classmethod
    def read(cls, document: bytes | None) -> _CachedList | None:
        try:
            at, media_type, next_page, body, *mark = json.loads(document or b"null")
            pages = None if next_page is None else tuple((key, value) for key, value in next_page)
            return cls(float(at), media_type, pages, body, *mark)
        except (ValueError, TypeError):
            return None

    def write(self) -> bytes:
        marked = [self.mark] if self.mark else []
        return json.dumps([self.at, self.media_type, self.next_page, self.body, *marked]).encode()

    def answer(self, told: CacheStatus) -> Answer:
        data = self.body.encode()
        content = BytesBody(data, Descriptor(self.media_type, None, len(data)))
        return Answer(content, next_page=self.next_page, cache=told)


class ListCache:
    """The lists of one registry's repositories.

    :param entry: the upstream's name.
    :param tag_ttl: tells for how many seconds a list is believed without asking, where it is public.
    :param changes: of this registry, through the mirror; a list from before one is as if it was not there.
    """

    def __init__(
        self,
        entry: str,
        gateway: UpstreamGateway,
        documents: IDocumentStore,
        clock: IReactorTime,
        tag_ttl: Callable[[InRepository], float],
        changes: ReadOnlyGenerations,
    ) -> None:
        self._changes = changes
        self._entry = entry
        self._gateway = gateway
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self._tag_ttl = tag_ttl

    async def fetch(self, request: RegistryRequest, target: Tags | Referrers) -> Answer:
        """See ``IRegistry``."""
        if not _is_rememberable(request, target):
            return bypassed(await self._gateway.ask(request))
        name = self._name(request)
        mark = (await self._changes.generation(self._changes.place(target.repository))).decode()
        listed = _CachedList.read(await self._documents.read(name))
        if listed is not None and without_doubts(listed.mark) != without_doubts(mark):
            listed = None
        age = self._clock.seconds() - listed.at if listed else 0.0
        facts = await self._facts(request, target, listed, mark)
        if listed and authorize(facts) is Decision.ALLOW:
            return listed.answer(CacheStatus(age=age))
        try:
            answer = await self._gateway.ask(request, facts.have_stale)
        except RegistryError as error:
            facts = await self._facts(request, target, listed, mark)
            if listed is None or not await self._gateway.is_stale_allowed(request, facts, error):
                raise
            _log.warn("{target} is served stale: {error}", target=str(target), error=str(error))
            return listed.answer(CacheStatus(CacheResult.STALE, age, str(error)))
        return self._kept(name, mark, answer)

    async def _facts(
        self, request: RegistryRequest, target: Tags | Referrers, listed: _CachedList | None, mark: str
    ) -> Facts:
        """Return the facts that are known of a request.

        :param mark: of the repository now.
        """
        facts = await self._gateway.facts(request)
        if listed is None:
            return evolve(facts, held=False)
        age = self._clock.seconds() - listed.at
        return evolve(
            facts,
            in_doubt=listed.mark != mark,
            fresh=0 <= age < self._tag_ttl(target),
            expired=age >= STALE,
        )

    def _kept(self, name: str, mark: str, answer: Answer) -> Answer:
        content = Tee(answer.body, LIMIT, lambda body: self._keep(name, mark, answer, body))
        return evolve(answer, body=content, cache=CacheStatus(CacheResult.MISS))

    def _keep(self, name: str, mark: str, answer: Answer, body: bytes) -> None:
        """Only what is whole is of use: where no length was told, a document that was cut off ends early."""
        try:
            json.loads(body)
            text = body.decode()
        except (ValueError, RecursionError):
            return
        media_type = answer.body.descriptor.media_type
        listed = _CachedList(self._clock.seconds(), media_type, answer.next_page, text, mark)
        Deferred.fromCoroutine(self._documents.write(name, listed.write()))

    def _name(self, request: RegistryRequest) -> str:
        asked = evolve(request, query=tuple(sorted(request.query))).path_and_query()
        return f"lists/{self._entry}/{hashlib.sha256(asked.encode()).hexdigest()}"


def _is_rememberable(request: RegistryRequest, target: Tags | Referrers) -> bool:
    names = [name for name, _ in request.query]
    return len(names) == len(set(names)) and set(names) <= set(PARAMETERS[type(target)])
