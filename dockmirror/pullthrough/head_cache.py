"""What a HEAD told that tags name, until that is held."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ..concurrency.ttl_cache import TTLCache
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag

NAMED = 60.0
"""Seconds for which it counts as confirmed what a HEAD told that a tag names."""
_MOST = 10_000


class HeadCache:
    """Of each tag what was told last; what was told of one makes nothing last that was told of another."""

    def __init__(self, clock: IReactorTime) -> None:
        self._named: TTLCache[tuple[Repository, Tag], tuple[Digest, bytes]] = TTLCache(clock, _MOST)
        self._tags: TTLCache[tuple[Repository, Digest], frozenset[Tag]] = TTLCache(clock, _MOST)

    def note(self, place: Repository, tag: Tag, digest: Digest, mark: bytes) -> None:
        """The tag names this now.

        :param mark: the repository's, from before that was asked; see ``Generations``.
        """
        self._named.put((place, tag), (digest, mark), NAMED)
        self._tags.put((place, digest), self.tags(place, digest, mark) | {tag}, NAMED)

    def forget(self, place: Repository, tag: Tag) -> None:
        """What the tag names is known better, or is noted elsewhere."""
        self._named.drop((place, tag))

    def tags(self, place: Repository, digest: Digest, mark: bytes) -> frozenset[Tag]:
        """Those that name it, as was told when the repository had that mark."""
        tags = self._tags.get((place, digest)) or frozenset()
        return frozenset(tag for tag in tags if self._named.get((place, tag)) == (digest, mark))
