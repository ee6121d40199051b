"""Lists of a store's repositories, of their tags and of referrers, for a mirror that asks no registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..concurrency.caching import SingleFlight
from ..oci.artifacts import Referrer
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from .held_images import HeldImages, StoredImage
from .threads import RunInThread

_MOST_REFERRERS = 10_000


class StoreListing:
    """Lists the directory of a store, in threads; requests for the same list at the same time share it.

    The times of last use stay.
    """

    def __init__(self, root: Path, in_thread: RunInThread) -> None:
        self._images = HeldImages(root)
        self._in_thread = in_thread
        self._parsed: dict[Digest, Referrer | None] = {}
        self._reading_repositories: SingleFlight[None, Sequence[Repository]] = SingleFlight()
        self._reading_tags: SingleFlight[Repository, Mapping[Tag, Digest]] = SingleFlight()

    async def repositories(self, registry: str) -> Sequence[Repository]:
        """Return the repositories of a registry, whose name begins each of theirs."""
        held = await self._reading_repositories.get(None, self._read_repositories)
        return [each for each in held if each.first == registry and each.rest]

    async def tags(self, repository: Repository) -> Mapping[Tag, Digest]:
        """Return the tags of which an image for at least one platform is held."""
        return await self._reading_tags.get(repository, partial(self._read_tags, repository))

    async def referrers(self, repository: Repository, subject: Digest) -> Sequence[Referrer]:
        """Return the held manifests of the repository that state this subject."""
        return await self._in_thread(partial(self._list_referrers, repository, subject))

    async def _read_repositories(self) -> Sequence[Repository]:
        return await self._in_thread(self._images.list_repositories)

    async def _read_tags(self, repository: Repository) -> Mapping[Tag, Digest]:
        return await self._in_thread(partial(_list_tags, self._images, repository))

    def _list_referrers(self, repository: Repository, subject: Digest) -> Sequence[Referrer]:
        parsed = (self._parse(each) for each in sorted(self._images.list_manifests(repository), key=str))
        return [each for each in parsed if each is not None and each.subject == subject]

    def _parse(self, digest: Digest) -> Referrer | None:
        """Return the referrer that a manifest is; a manifest never changes, so it is read once."""
        if digest not in self._parsed:
            found = self._images.read_manifest(digest)
            if found is None:
                return None
            if len(self._parsed) >= _MOST_REFERRERS:
                self._parsed.clear()
            self._parsed[digest] = Referrer.parse(digest, found[0])
        return self._parsed[digest]


def _list_tags(images: HeldImages, repository: Repository) -> Mapping[Tag, Digest]:
    return {
        tag: entry.digest
        for tag, entry in images.list_tags(repository).items()
        if _can_be_pulled(images.read_image(repository, entry.digest))
    }


def _can_be_pulled(image: StoredImage) -> bool:
    """Return whether a manifest is held with its blobs, or an index with one such manifest."""
    if image.data is None or None in image.blobs.values():
        return False
    return not image.children or any(map(_can_be_pulled, image.children))
