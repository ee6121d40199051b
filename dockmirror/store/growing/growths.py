"""Blobs on their way in: each fetched once from each registry, for everyone who asks meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...content.verified import Corrupt
from ...interfaces import IContents, IGrowth, IGrowths, ISource
from ...oci.consent import Held
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...status.values import Fetch as Told
from ...work.notes import Notes
from ..threads import InThread
from .arrival import Arrival
from .fetch import Fetch, Phase
from .growth import Growth
from .means import Means, Tally, Trouble
from .offer import Rejected
from .partial import Place, is_locked

FINISH = 64 * 1024 * 1024
"""Bytes; see ``Growths``."""
ALONE = 4
"""How many blobs are finished at once although nobody reads them."""
LEFT_ALONE = 60.0
"""Seconds for which a blob is not asked for again that came wrong from where nobody remembers that."""
_MOST = 10_000

_Key = tuple[str, Digest]


def _uncounted(size: int) -> None:
    """Nobody wants to know."""


@implementer(IGrowths)
class Growths:
    """Those on a local disk, shared with every other process on the same directory.

    :param root: under which everything lies.
    :param grown: is told how many bytes were written.
    :param finish: a blob of which less than so many bytes are missing, or less than half, is fetched
        although nobody reads it any more.
    :ivar tally: what has come of them.
    """

    def __init__(
        self,
        root: Path,
        contents: IContents,
        clock: IReactorTime,
        in_thread: InThread,
        grown: Callable[[int], None] = _uncounted,
        finish: int = FINISH,
    ) -> None:
        self.tally = Tally()
        self._means = Means(root, contents, clock, in_thread, Trouble(), grown, finish, self.tally)
        self._clock = clock
        self._fetches: dict[_Key, Fetch] = {}
        self._wrong: Notes[_Key, bool] = Notes(clock, _MOST)

    def growing(self, registry: str, digest: Digest) -> bool:
        """See ``IGrowths``."""
        return (registry, digest) in self._fetches or is_locked(Place.of(self._means.root, registry, digest))

    def under_way(self) -> Sequence[Told]:
        """Those of this process of which the upstream has told the size, or that it does not."""
        return [
            _told(registry, digest, fetch.arrival)
            for (registry, digest), fetch in self._fetches.items()
            if fetch.arrival.answered
        ]

    async def join(self, registry: str, repository: Repository, digest: Digest, source: ISource) -> IGrowth:
        """See ``IGrowths``.

        Where the upstream does not tell the size it fires as soon as it has answered.  A reader whose
        source began the fetch was given the blob by the upstream; every other's is asked to check.
        """
        key = registry, digest
        if self._wrong.get(key):
            raise Corrupt(f"{registry} has sent wrong bytes for {digest} a moment ago")
        joined = key in self._fetches
        fetch = self._fetches[key] if joined else self._new(key)
        growth = Growth(fetch.arrival, repository, source, joined, self._clock)
        fetch.arrival.add(growth)
        if not joined:
            fetch.begin()
        try:
            await self._enter(growth, fetch)
        except BaseException:
            growth.leave()
            raise
        return growth

    async def _enter(self, growth: Growth, fetch: Fetch) -> None:
        await growth.answered()
        if not growth.granted:
            growth.joined = growth.joined or fetch.phase is not Phase.FILLING
            await growth.source.check(Held(fetch.arrival.size, growth.sample))
            growth.check()
            growth.grant()
        growth.enter()
        if fetch.phase is Phase.OVER:
            await fetch.link()

    def _new(self, key: _Key) -> Fetch:
        fetch = Fetch(*key, self._means, self._another_may_go_on, partial(self._ended, key))
        self._fetches[key] = fetch
        return fetch

    def _another_may_go_on(self) -> bool:
        """Asked by one that nobody reads any more, and that is counted here itself."""
        return sum(fetch.alone for fetch in self._fetches.values()) <= ALONE

    def _ended(self, key: _Key, error: Exception | None) -> None:
        del self._fetches[key]
        if isinstance(error, Corrupt) and not isinstance(error, Rejected):
            self._wrong.put(key, True, LEFT_ALONE)


def _told(registry: str, digest: Digest, arrival: Arrival) -> Told:
    names = sorted(str(each) for each in arrival.repositories)
    return Told(registry, str(digest), tuple(names), arrival.length, arrival.size, arrival.pace)
