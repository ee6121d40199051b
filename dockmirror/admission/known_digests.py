"""Digests that the mirror has served under a tag, for policies that allow no other digests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..concurrency.coroutines import TTLCache
from ..config.image_rules import PolicySettings
from ..interfaces import IDocumentStore, ITagHistory
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument, Platform, parse_references
from ..oci.request import Repository
from .admit import SERVE, Subject, admitted_digests, check_age
from .cool_down_source import CoolDownSource
from .policies import FactContext, IFactSource

SERVED_TTL = 10.0
"""Seconds for which the digests that tags were served as are kept, as long as no history changes."""
CHILDREN_TTL = 3600.0
"""Seconds for which it is kept which manifests an index lists."""
_MOST_SERVED = 1000


@implementer(IFactSource)
class KnownDigestSource:
    """Tells whether a tag of the repository is or was served as a digest, or as an index that lists it.

    The histories of all tags are read when one of them has changed; one ``stat`` call tells.

    :param read_manifest: returns a held manifest, or None.
    :param list_locked: returns the digests that lock files give tags of the subject's repository.
    """

    fact = "known"
    setting = "digests"
    is_about_tags = False

    def __init__(
        self,
        source: CoolDownSource,
        history: ITagHistory,
        read_manifest: Callable[[Repository, Digest], Awaitable[bytes | None]],
        list_locked: Callable[[Subject], frozenset[Digest]],
        clock: IReactorTime,
    ) -> None:
        self._source = source
        self._history = history
        self._read_manifest = read_manifest
        self._list_locked = list_locked
        self._cached: TTLCache[tuple[str, Repository, str], tuple[object, frozenset[Digest]]] = TTLCache(
            clock, _MOST_SERVED
        )
        self._children: TTLCache[tuple[Repository, Digest], frozenset[Digest]] = TTLCache(clock, _MOST_SERVED)

    async def gather(self, context: FactContext) -> bool | None:
        """Return whether a digest is known; None for tags, and for policies that allow any digest."""
        subject, policy = context.subject, context.policy
        if policy.digests == "any" or not isinstance(subject.reference, Digest):
            return None
        served = await self._served(subject, policy)
        if subject.reference in served:
            return True
        served |= self._list_locked(subject)
        return subject.reference in served or await self._is_listed(subject, served)

    async def _served(self, subject: Subject, policy: PolicySettings) -> frozenset[Digest]:
        """Return the digests that the repository's tags are, or were, served as."""
        key = subject.upstream, subject.repository, policy.images
        version = await self._history.version(subject.upstream, subject.repository)
        cached = self._cached.get(key)
        if version is not None and cached is not None and cached[0] == version:
            return cached[1]
        served = frozenset(await self._find_served(subject, policy))
        if version is not None:
            self._cached.put(key, (version, served), SERVED_TTL)
        return served

    async def _find_served(self, subject: Subject, policy: PolicySettings) -> set[Digest]:
        served: set[Digest] = set()
        for repository, tag in await self._history.tags(subject.upstream, subject.repository):
            sightings = await self._history.sightings(subject.upstream, repository, tag)
            current = sightings[-1].digest if sightings else None
            tagged = evolve(subject, reference=tag, digest=current)
            ages = await self._source.ages(tagged, policy)
            served.update(admitted_digests(ages))
            if current is not None and check_age(tagged, ages) == SERVE:
                served.add(current)
        return served

    async def _is_listed(self, subject: Subject, served: frozenset[Digest]) -> bool:
        for digest in served:
            if subject.digest in await self._list_children(subject.repository, digest):
                return True
        return False

    async def _list_children(self, repository: Repository, digest: Digest) -> frozenset[Digest]:
        """Return the manifests that an index lists; none while it is not held."""
        children = self._children.get((repository, digest))
        if children is None:
            data = await self._read_manifest(repository, digest)
            references = parse_references(data) if data is not None else None
            children = frozenset(references.manifests if references else ())
            if data is not None:
                self._children.put((repository, digest), children, CHILDREN_TTL)
        return children


_MOST = 16
"""The most indexes that are remembered for one image, the newest ones."""
_RECORDED = 3600.0


@frozen
class Parent:
    """An index, and the platform for which it lists the image."""

    digest: Digest
    platform: Platform | None = None


@frozen
class KnownParents:
    """Remembers which images an index lists, for all processes of the cache and across restarts.

    :ivar registry: the registry's name in the store.
    :ivar recent: the parents of recent images, in case that no document can be written.
    """

    registry: str
    documents: IDocumentStore
    recorded: TTLCache[tuple[Repository, Digest], bool]
    recent: TTLCache[str, list[Parent]]

    async def record(self, subject: Subject, index: ManifestDocument | None) -> None:
        """Remember the images of an index, before it is served; nothing for another manifest.

        :raises OSError: when it cannot be written.
        """
        digest = subject.digest
        if index is None or digest is None or self.has_recorded(subject):
            return
        for child in index.children:
            if child.descriptor.digest is not None:
                parent = Parent(digest, child.platform)
                await self._add(self._name(subject.repository, child.descriptor.digest), parent)
        self.recorded.put((subject.repository, digest), True, _RECORDED)

    def has_recorded(self, subject: Subject) -> bool:
        """Return whether the subject's manifest was recorded within the last hour."""
        return subject.digest is not None and bool(self.recorded.get((subject.repository, subject.digest)))

    async def find(self, subject: Subject) -> list[Parent]:
        """Return the indexes that list the subject; a client that accepts none is given it by a tag, too."""
        if subject.digest is None:
            return []
        return await self._read(self._name(subject.repository, subject.digest))

    async def _add(self, name: str, parent: Parent) -> None:
        known = await self._read(name)
        if parent not in known:
            known = [*known[-_MOST + 1 :], parent]
            await self.documents.write(name, _write(known))
        self.recent.put(name, known, _RECORDED)

    async def _read(self, name: str) -> list[Parent]:
        return _parse(await self.documents.read(name)) or self.recent.get(name) or []

    def _name(self, repository: Repository, digest: Digest) -> str:
        return f"parents/{self.registry}/{repository}/{digest.algorithm}/{digest.hex}"


def _write(parents: list[Parent]) -> bytes:
    return json.dumps([[str(each.digest), str(each.platform or "")] for each in parents]).encode()


def _parse(document: bytes | None) -> list[Parent]:
    try:
        found = json.loads(document or b"[]")
        return [Parent(Digest.parse(each), Platform.parse(text) if text else None) for each, text in found]
    except (ValueError, TypeError, DigestInvalid):
        return []
