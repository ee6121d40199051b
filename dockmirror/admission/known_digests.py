"""Digests that the mirror has served under a tag, for policies that allow no other digests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve
from zope.interface import implementer

from ..config.settings import PolicySettings
from ..interfaces import ITagHistory
from ..oci.digest import Digest
from ..oci.manifest import ManifestDocument
from ..oci.reference import Repository
from .cool_down import admitted_digests, check_age
from .cool_down_source import CoolDownSource, is_listed
from .fact_source import IFactSource
from .verdict import SERVE, Subject


@implementer(IFactSource)
class KnownDigestSource:
    """Tells whether a tag of the repository is or was served as a digest, or as an index that lists it.

    :param read_manifest: returns a held manifest, or None.
    """

    fact = "known"
    setting = "min_age"
    is_about_tags = False
    needs_manifest = False

    def __init__(
        self,
        source: CoolDownSource,
        history: ITagHistory,
        read_manifest: Callable[[Repository, Digest], Awaitable[bytes | None]],
    ) -> None:
        self._source = source
        self._history = history
        self._read_manifest = read_manifest

    async def gather(
        self, subject: Subject, policy: PolicySettings | None, manifest: ManifestDocument | None
    ) -> bool | None:
        """Return whether a digest is known; None for tags, and for policies that allow any digest."""
        if policy is None or policy.digests == "any" or not isinstance(subject.reference, Digest):
            return None
        served = await self._served(subject, policy)
        return subject.reference in served or await self._is_listed(subject, served)

    async def _served(self, subject: Subject, policy: PolicySettings) -> set[Digest]:
        """Return the digests that the repository's tags are, or were, served as."""
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

    async def _is_listed(self, subject: Subject, served: set[Digest]) -> bool:
        for digest in served:
            index = await self._read_manifest(subject.repository, digest)
            if isinstance(subject.reference, Digest) and is_listed(subject.reference, index):
                return True
        return False
