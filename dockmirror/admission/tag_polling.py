"""Asks upstreams by HEAD what tags name, so that digests grow old although nobody pulls them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..concurrency.caching import TTLCache
from ..concurrency.periodic_task import PeriodicTask
from ..interfaces import IRegistry, ITagHistory
from ..oci.errors import RegistryError
from ..oci.media import EVERYTHING
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, RegistryRequest
from .cool_down_source import CoolDownSource
from .policies import Policies
from .verdict import Subject

CHECK_INTERVAL = 600.0
"""Seconds between two searches for tags that are due."""
PULLED_SECONDS = 30 * 86_400.0
"""Seconds since its last pull for which a tag is polled."""
SHORTEST, LONGEST = 3600.0, 12 * 3600.0
"""Seconds between two polls of a tag, at least and at most."""
_POLLS_PER_AGE = 14
PAUSE = 1.0
"""Seconds between two requests to the same upstream."""
LIMITED_SECONDS = 6 * 3600.0
"""Seconds for which an upstream is not polled after a 429."""
_log = Logger()


def poll_interval(min_age: float) -> float:
    """Return the seconds after which a tag is polled again, by the age that its digests must have."""
    return min(LONGEST, max(SHORTEST, min_age / _POLLS_PER_AGE))


@frozen
class PolledUpstream:
    """An upstream whose tags are polled.

    :ivar registry: asks it without credentials, and records its answers.
    :ivar is_public: returns whether the upstream gives the repository to everybody.
    """

    policies: Policies
    source: CoolDownSource
    registry: IRegistry
    is_public: Callable[[Repository], Awaitable[bool]]


class TagPolling(PeriodicTask):
    """Polls the tags under a cool-down that clients have pulled lately; one process of one machine does it.

    :ivar upstreams: what is polled, by the upstreams' names in the settings; a reload replaces it.
    :param claim: returns a function that ends the turn of this process, or None if another one polls.
    """

    def __init__(
        self,
        upstreams: Callable[[], Mapping[str, PolledUpstream]],
        history: ITagHistory,
        claim: Callable[[], Awaitable[Callable[[], None] | None]],
        clock: IReactorTime,
    ) -> None:
        super().__init__(self.poll, CHECK_INTERVAL, clock, "cannot poll the tags of upstreams")
        self._upstreams = upstreams
        self._history = history
        self._claim = claim
        self._clock = clock
        self._limited: TTLCache[str, bool] = TTLCache(clock, 1000)

    async def poll(self) -> None:
        """Ask about all tags that are due."""
        polled = {name: each for name, each in self._upstreams().items() if each.policies.sets("min_age")}
        release = await self._claim() if polled else None
        if release is None:
            return
        try:
            polling = [Deferred.fromCoroutine(self._poll(name, each)) for name, each in polled.items()]
            await gatherResults(polling, consumeErrors=True)
        finally:
            release()

    async def _poll(self, name: str, upstream: PolledUpstream) -> None:
        for repository, tag in await self._history.tags(name):
            if self._limited.get(name):
                return
            subject = Subject(name, repository, tag)
            if await self._is_due(subject, tag, upstream):
                await self._ask(subject, tag, upstream)
                await deferLater(self._clock, PAUSE)

    async def _is_due(self, subject: Subject, tag: Tag, upstream: PolledUpstream) -> bool:
        policy = upstream.policies.find(subject, "min_age")
        if policy is None or policy.mode == "off" or not policy.min_age:
            return False
        key, now = (subject.upstream, subject.repository, tag), self._clock.seconds()
        if now - await self._history.last_pull(*key) > PULLED_SECONDS:
            return False
        sightings = await self._history.sightings(*key)
        if sightings and now - sightings[-1].last < poll_interval(policy.min_age):
            return False
        return await upstream.is_public(subject.repository)

    async def _ask(self, subject: Subject, tag: Tag, upstream: PolledUpstream) -> None:
        request = RegistryRequest(Manifest(subject.repository, tag), head=True, accept=EVERYTHING)
        try:
            (await upstream.registry.fetch(request)).body.discard()
        except RegistryError as error:
            if error.status == 429:
                self._limited.put(subject.upstream, True, LIMITED_SECONDS)
            _log.info("{tag} was not polled: {error}", tag=str(subject), error=error.summary)
            return
        await upstream.source.keep_current(subject)
