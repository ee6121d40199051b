"""A cache of the digests that a HEAD reported for tags, until the manifest is stored."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ..concurrency.caching import TTLCache
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag

NAMED = 60.0
"""Seconds for which it counts as confirmed what a HEAD told that a tag names."""
_MOST = 10_000


class HeadCache:
    """Remembers the last digest that was reported for each tag; each entry expires on its own."""

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
        """Forget the tag: its digest is stored elsewhere, or outdated."""
        self._named.drop((place, tag))

    def tags(self, place: Repository, digest: Digest, mark: bytes) -> frozenset[Tag]:
        """Return the tags that were reported to name the digest in that generation of the repository."""
        tags = self._tags.get((place, digest)) or frozenset()
        return frozenset(tag for tag in tags if self._named.get((place, tag)) == (digest, mark))
