"""What a store's directory holds, as images; calls that block, for who comes from beside a mirror."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from ..interfaces import ContentKind, TagEntry
from ..oci.digest import Digest
from ..oci.errors import TagInvalid
from ..oci.manifest import ManifestDocument
from ..oci.platform import Platform
from ..oci.reference import Repository, Tag
from . import atomic_file, layout, links
from .data_files import is_stored
from .eviction import store_files
from .eviction.store_files import StoredFile

_DEPTH = 4


@frozen
class StoredImage:
    """A manifest or an index that a repository has, with all that it refers to.

    :ivar data: None where the manifest is not held.
    :ivar blobs: the blobs of a manifest; None for each that the repository does not have.
    :ivar children: the manifests of an index.
    :ivar platform: as the index says that refers to it.
    """

    digest: Digest
    data: bytes | None = None
    manifest: ManifestDocument | None = None
    used: float = 0.0
    blobs: Mapping[Digest, StoredFile | None] = {}
    children: tuple[StoredImage, ...] = ()
    platform: Platform | None = None

    def all(self) -> Iterator[StoredImage]:
        """This one, and all below it."""
        yield self
        for child in self.children:
            yield from child.all()

    def missing(self) -> list[Digest]:
        """What is needed and not held, each once."""
        gone = [each.digest for each in self.all() if each.data is None]
        blobs = [digest for each in self.all() for digest, stored in each.blobs.items() if stored is None]
        return list(dict.fromkeys([*gone, *blobs]))

    def sizes(self) -> dict[Digest, int]:
        """The bytes of each content that is held."""
        found = {each.digest: len(each.data) for each in self.all() if each.data is not None}
        for each in self.all():
            found |= {digest: stored.size for digest, stored in each.blobs.items() if stored}
        return found

    def last_used(self) -> float:
        """In seconds since the epoch."""
        blobs = (stored.used for each in self.all() for stored in each.blobs.values() if stored)
        return max((*(each.used for each in self.all()), *blobs))


class HeldImages:
    """The repositories of a store; everything may change meanwhile."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def repositories(self) -> list[Repository]:
        """By name, the registry's first."""
        top = self._root / layout.REPOSITORIES
        return sorted(
            Repository(str(each.relative_to(top))) for each in store_files.iter_repositories(self._root)
        )

    def tags(self, repository: Repository) -> dict[Tag, TagEntry]:
        """What each tag names, by name."""
        found = {}
        for path in store_files.iter_tags(self._root / layout.REPOSITORIES / repository.name):
            named = links.read_link(path / layout.CURRENT)
            try:
                if named is not None:
                    found[Tag.parse(path.name)] = named
            except TagInvalid:
                continue
        return dict(sorted(found.items()))

    def manifests(self, repository: Repository) -> list[Digest]:
        """What the repository has as manifests."""
        return list(
            store_files.iter_links(self._root / layout.REPOSITORIES / repository.name / layout.REVISIONS)
        )

    def blobs(self, repository: Repository) -> list[Digest]:
        """What it has as blobs."""
        return list(
            store_files.iter_links(self._root / layout.REPOSITORIES / repository.name / layout.LAYERS)
        )

    def stored(self, digest: Digest) -> StoredFile | None:
        """A content's file; None where there is none."""
        path = self._root / layout.data(digest)
        return store_files.stat_file(path) if is_stored(path, digest) else None

    def image(self, repository: Repository, digest: Digest, platform: Platform | None = None) -> StoredImage:
        """What the repository has of an image, which may be nothing."""
        return self._image(repository, digest, platform, _DEPTH)

    def _image(
        self, repository: Repository, digest: Digest, platform: Platform | None, depth: int
    ) -> StoredImage:
        stored = self._linked(repository, digest, ContentKind.MANIFEST)
        found = atomic_file.read_small_file(self._root / layout.data(digest)) if stored and depth else None
        if stored is None or found is None or not digest.matches(found.data):
            return StoredImage(digest, platform=platform)
        manifest = ManifestDocument.parse(found.data)
        if manifest is None:
            return StoredImage(digest, platform=platform)
        blobs = [each.digest for each in manifest.blobs if each.digest]
        return StoredImage(
            digest,
            found.data,
            manifest,
            stored.used,
            {blob: self._linked(repository, blob, ContentKind.BLOB) for blob in blobs},
            tuple(
                self._image(repository, child.descriptor.digest, child.platform, depth - 1)
                for child in manifest.children
                if child.descriptor.digest
            ),
            platform,
        )

    def _linked(self, repository: Repository, digest: Digest, kind: ContentKind) -> StoredFile | None:
        link = self._root / layout.link(repository, digest, kind)
        return self.stored(digest) if links.links_to(link, digest) else None
