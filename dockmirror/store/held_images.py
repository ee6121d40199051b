"""Images as they lie in a store's directory; all calls block, but for those of ``StoreListing``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen

from ..concurrency.coroutines import RunInThread, SingleFlight
from ..interfaces import ContentKind, TagEntry
from ..oci.digest import Digest
from ..oci.errors import TagInvalid
from ..oci.manifest import ManifestDocument, Platform
from ..oci.media import Referrer, parse_artifact_tag
from ..oci.request import Reference, Repository, Tag
from ..system.times import format_timestamp
from . import files, layout, store_files
from .store_files import StoredFile, is_stored

_DEPTH = 4
_MOST_REFERRERS = 10_000


@frozen
class StoredImage:
    """A manifest or an index of a repository, with everything it refers to.

    :ivar data: None if the manifest is not stored.
    :ivar blobs: a manifest's blobs; None for each that the repository lacks.
    :ivar children: an index's manifests.
    :ivar platform: as given by the index that refers to it.
    """

    digest: Digest
    data: bytes | None = None
    manifest: ManifestDocument | None = None
    used: float = 0.0
    blobs: Mapping[Digest, StoredFile | None] = {}
    children: tuple[StoredImage, ...] = ()
    platform: Platform | None = None

    def walk(self) -> Iterator[StoredImage]:
        """Iterate over this image and its descendants."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find_missing(self) -> list[Digest]:
        """List the contents that are referred to and not stored, without duplicates."""
        manifests = [each.digest for each in self.walk() if each.data is None]
        blobs = [digest for each in self.walk() for digest, stored in each.blobs.items() if stored is None]
        return list(dict.fromkeys([*manifests, *blobs]))

    def content_sizes(self) -> dict[Digest, int]:
        """Return the size in bytes of each stored content."""
        sizes = {each.digest: len(each.data) for each in self.walk() if each.data is not None}
        for each in self.walk():
            sizes |= {digest: stored.size for digest, stored in each.blobs.items() if stored}
        return sizes

    def last_used(self) -> float:
        """Return the time of the last use, in seconds since the epoch."""
        blobs = (stored.used for each in self.walk() for stored in each.blobs.values() if stored)
        return max((*(each.used for each in self.walk()), *blobs))


class HeldImages:
    """Read access to the repositories of a store, which may change at any time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_repositories(self) -> list[Repository]:
        """Return the repositories, sorted by name; the name begins with the registry."""
        top = self.root / layout.REPOSITORIES
        return sorted(
            Repository(str(each.relative_to(top))) for each in store_files.iter_repositories(self.root)
        )

    def list_tags(self, repository: Repository) -> dict[Tag, TagEntry]:
        """Return the repository's tags, sorted by name."""
        found = {}
        for path in store_files.iter_tags(self._path(repository)):
            named = store_files.read_link(path / layout.TAG_LINK)
            try:
                if named is not None:
                    found[Tag.parse(path.name)] = named
            except TagInvalid:
                continue
        return dict(sorted(found.items()))

    def list_tag_names(self, repository: Repository) -> list[str]:
        """Return the names of the repository's tags, some of which may name nothing."""
        return [path.name for path in store_files.iter_tags(self._path(repository))]

    def find_digest(self, repository: Repository, reference: Reference) -> Digest | None:
        """Return the digest that a reference names; None for a tag that names nothing."""
        if isinstance(reference, Digest):
            return reference
        entry = store_files.read_link(self.root / layout.tag_link(repository, reference))
        return entry.digest if entry else None

    def list_artifacts(self, repository: Repository) -> dict[Digest, list[tuple[Reference, Digest]]]:
        """Return the references and digests of a repository's artifacts by their subjects."""
        found: dict[Digest, list[tuple[Reference, Digest]]] = {}
        for name in sorted(self.list_tag_names(repository)):
            if (subject := parse_artifact_tag(name)) is not None:
                tag = Tag(name)
                if (digest := self.find_digest(repository, tag)) is not None:
                    found.setdefault(subject, []).append((tag, digest))
        for digest in sorted(self.list_manifests(repository), key=str):
            held = self.read_manifest(digest)
            referrer = Referrer.parse(digest, held[0]) if held else None
            if referrer is not None:
                found.setdefault(referrer.subject, []).append((digest, digest))
        return found

    def list_manifests(self, repository: Repository) -> list[Digest]:
        return list(store_files.iter_links(self._path(repository) / layout.REVISIONS))

    def list_blobs(self, repository: Repository) -> list[Digest]:
        return list(store_files.iter_links(self._path(repository) / layout.LAYERS))

    def has_manifest(self, repository: Repository, digest: Digest) -> bool:
        return self._linked(repository, digest, ContentKind.MANIFEST) is not None

    def read_image(self, repository: Repository, digest: Digest) -> StoredImage:
        """Read an image of the repository; parts of it, or all, may be missing."""
        return self._image(repository, digest, None, _DEPTH)

    def _image(
        self, repository: Repository, digest: Digest, platform: Platform | None, depth: int
    ) -> StoredImage:
        stored = self._linked(repository, digest, ContentKind.MANIFEST)
        found = self.read_manifest(digest) if stored and depth else None
        if stored is None or found is None:
            return StoredImage(digest, platform=platform)
        data, manifest = found
        blobs = [each.digest for each in manifest.blobs if each.digest]
        return StoredImage(
            digest,
            data,
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

    def read_manifest(self, digest: Digest) -> tuple[bytes, ManifestDocument] | None:
        """Return a verified manifest with its parts; None if it is missing, corrupt or of another type."""
        found = files.read_small_file(self.root / layout.data(digest))
        manifest = ManifestDocument.parse(found.data) if found and digest.matches(found.data) else None
        return (found.data, manifest) if found and manifest else None

    def _path(self, repository: Repository) -> Path:
        return self.root / layout.REPOSITORIES / repository.name

    def _linked(self, repository: Repository, digest: Digest, kind: ContentKind) -> StoredFile | None:
        link, data = self.root / layout.link(repository, digest, kind), self.root / layout.data(digest)
        is_held = store_files.links_to(link, digest) and is_stored(data, digest)
        return store_files.stat_file(data) if is_held else None


@frozen
class ListedImage:
    """An image by one of its tags, or by its digest when it has no tag."""

    repository: Repository
    tag: Tag | None
    image: StoredImage

    @property
    def size(self) -> int:
        """The stored bytes of the image."""
        return sum(self.image.content_sizes().values())

    @property
    def is_complete(self) -> bool:
        """The store holds everything; for an index, all of its images."""
        return not self.image.find_missing()

    @property
    def platforms(self) -> dict[str, bool]:
        """The platforms of an index, with True for those that the store holds completely."""
        real = (
            (str(c.platform), not c.find_missing())
            for c in self.image.children
            if c.platform and c.platform.is_real
        )
        return dict(real)

    def fields(self) -> dict[str, Any]:
        """Return the image as JSON has it."""
        return {
            "repository": str(self.repository),
            "tag": str(self.tag) if self.tag else None,
            "digest": str(self.image.digest),
            "size": self.size,
            "complete": self.is_complete,
            "platforms": self.platforms,
            "used": format_timestamp(self.image.last_used()),
        }


def list_images(images: HeldImages, repository: Repository) -> Iterator[ListedImage]:
    """Yield each tag, and each manifest that no tag and no index refers to."""
    named: set[Digest] = set()
    for tag, tagged in images.list_tags(repository).items():
        image = images.read_image(repository, tagged.digest)
        if image.data is None:
            continue
        named.update(each.digest for each in image.walk())
        yield ListedImage(repository, tag, image)
    others = [
        images.read_image(repository, each) for each in images.list_manifests(repository) if each not in named
    ]
    below = {child.digest for image in others for each in image.children for child in each.walk()}
    for image in others:
        if image.data is not None and image.digest not in below:
            yield ListedImage(repository, None, image)


class StoreListing:
    """Lists a store for a mirror that asks no registry, in threads; requests for the same list share it.

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
