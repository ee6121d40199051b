"""What a store's directory holds, as images; calls that block, for who comes from beside a mirror."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from ..interfaces import Kind, Tagged
from ..oci.digest import Digest
from ..oci.errors import TagInvalid
from ..oci.manifest import Manifest
from ..oci.platform import Platform
from ..oci.reference import Repository, Tag
from . import layout, links, small
from .data import is_held
from .eviction import inventory
from .eviction.inventory import Stored

_DEPTH = 4


@frozen
class Image:
    """A manifest or an index that a repository has, with all that it refers to.

    :ivar data: None where the manifest is not held.
    :ivar blobs: the blobs of a manifest; None for each that the repository does not have.
    :ivar children: the manifests of an index.
    :ivar platform: as the index says that refers to it.
    """

    digest: Digest
    data: bytes | None = None
    manifest: Manifest | None = None
    used: float = 0.0
    blobs: Mapping[Digest, Stored | None] = {}
    children: tuple[Image, ...] = ()
    platform: Platform | None = None

    def all(self) -> Iterator[Image]:
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


class Holdings:
    """The repositories of a store; everything may change meanwhile."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def repositories(self) -> list[Repository]:
        """By name, the registry's first."""
        top = self._root / layout.REPOSITORIES
        return sorted(Repository(str(each.relative_to(top))) for each in inventory.repositories(self._root))

    def tags(self, repository: Repository) -> dict[Tag, Tagged]:
        """What each tag names, by name."""
        found = {}
        for path in inventory.tags(self._root / layout.REPOSITORIES / repository.name):
            named = links.read(path / layout.CURRENT)
            try:
                if named is not None:
                    found[Tag.parse(path.name)] = named
            except TagInvalid:
                continue
        return dict(sorted(found.items()))

    def manifests(self, repository: Repository) -> list[Digest]:
        """What the repository has as manifests."""
        return list(inventory.linked(self._root / layout.REPOSITORIES / repository.name / layout.REVISIONS))

    def blobs(self, repository: Repository) -> list[Digest]:
        """What it has as blobs."""
        return list(inventory.linked(self._root / layout.REPOSITORIES / repository.name / layout.LAYERS))

    def stored(self, digest: Digest) -> Stored | None:
        """A content's file; None where there is none."""
        path = self._root / layout.data(digest)
        return inventory.look(path) if is_held(path, digest) else None

    def image(self, repository: Repository, digest: Digest, platform: Platform | None = None) -> Image:
        """What the repository has of an image, which may be nothing."""
        return self._image(repository, digest, platform, _DEPTH)

    def _image(self, repository: Repository, digest: Digest, platform: Platform | None, depth: int) -> Image:
        stored = self._linked(repository, digest, Kind.MANIFEST)
        found = small.read(self._root / layout.data(digest)) if stored and depth else None
        if stored is None or found is None or not digest.matches(found.data):
            return Image(digest, platform=platform)
        manifest = Manifest.parse(found.data)
        if manifest is None:
            return Image(digest, platform=platform)
        blobs = [each.digest for each in manifest.blobs if each.digest]
        return Image(
            digest,
            found.data,
            manifest,
            stored.used,
            {blob: self._linked(repository, blob, Kind.BLOB) for blob in blobs},
            tuple(
                self._image(repository, child.descriptor.digest, child.platform, depth - 1)
                for child in manifest.children
                if child.descriptor.digest
            ),
            platform,
        )

    def _linked(self, repository: Repository, digest: Digest, kind: Kind) -> Stored | None:
        link = self._root / layout.link(repository, digest, kind)
        return self.stored(digest) if links.names(link, digest) else None
