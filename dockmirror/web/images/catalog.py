"""The images that a store holds as the pages show them, and how they were pulled; all calls block."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from ...history.pulls import HistoryError, HistoryReader, PullFilter
from ...interfaces import ContentKind, TagEntry
from ...oci.digest import Digest
from ...oci.manifest import ManifestDocument, Platform
from ...oci.media import Artifact, Kind, parse_artifact_tag
from ...oci.request import Reference, Repository, Tag
from ...store.held_images import HeldImages, ListedImage, StoredImage
from ...store.store_files import StoredFile
from ...store.store_index import RepositoryContents, StoreIndex, StoreSnapshot

FIGURE_DAYS = 30
"""Days whose pulls are counted, today included; days end at midnight UTC."""
_DAY = 86_400
_RECENT = 500
"""The pulls among which the last ones of several images are looked for."""
_MOST = 100_000
_COUNT_SECONDS = 60.0
_MAX_CACHED = 4096
_MAX_CACHED_SIZE = 64 * 1024
_MAX_LAYERS = 200
"""Layers of a platform that a page shows; docker makes images of at most 127."""
_NOTHING = RepositoryContents(frozenset(), frozenset())
_log = Logger()


@frozen
class PullFigure:
    """The number of pulls in the last days, and when the last one began, or 0 if that is not known."""

    pulls: int = 0
    last: float = 0.0


class PullFigures:
    """Reads figures from the history.

    :param history: None if no history is kept; then there are no figures.
    :param now: returns the time in seconds since the epoch.
    """

    def __init__(self, history: HistoryReader | None, now: Callable[[], float]) -> None:
        self._history = history
        self._now = now
        self._counts: Mapping[str, int] = {}
        self._counted = -_COUNT_SECONDS

    def of_repositories(self) -> Mapping[str, PullFigure] | None:
        """Return the figures of repositories; None if there is no history."""
        if self._history is None:
            return None
        try:
            sums = self._count(self._history)
            recent = self._history.pulls(PullFilter(), _RECENT)
        except HistoryError as error:
            _log.warn("the pages show no pulls: {error}", error=str(error))
            return None
        last = {f"{each.registry}/{each.repository}": each.began for each in reversed(recent)}
        return {name: PullFigure(sums.get(name, 0), last.get(name, 0.0)) for name in {*sums, *last}}

    def _count(self, history: HistoryReader) -> Mapping[str, int]:
        """Return the pulls of each repository, as of a minute ago at most: to add them up takes a while."""
        now = self._now()
        if not 0 <= now - self._counted < _COUNT_SECONDS:
            wanted = PullFilter(since=(now // _DAY - FIGURE_DAYS + 1) * _DAY)
            self._counts = {each.key: each.pulls for each in history.sums("repository", wanted, _MOST)}
            self._counted = now
        return self._counts

    def of_tags(self, name: str) -> Mapping[str, PullFigure] | None:
        """Return the figures of a repository's tags and digests, as far as recent pulls show them."""
        if self._history is None:
            return None
        figures: dict[str, PullFigure] = {}
        try:
            for pull in self._history.pulls(PullFilter(image=name), _RECENT):
                known = figures.get(pull.reference, PullFigure())
                figures[pull.reference] = PullFigure(known.pulls + 1, max(known.last, pull.began))
        except HistoryError as error:
            _log.warn("the pages show no pulls: {error}", error=str(error))
            return None
        return figures

    def of_image(self, name: str, reference: Reference) -> PullFigure | None:
        """Return the figure of one image of a repository."""
        if self._history is None:
            return None
        is_digest = isinstance(reference, Digest)
        wanted = PullFilter(name, str(reference)) if is_digest else PullFilter(f"{name}:{reference}")
        try:
            pulls = sum(each.pulls for each in self._history.sums("repository", wanted))
            last = self._history.pulls(wanted, 1)
        except HistoryError as error:
            _log.warn("the pages show no pulls: {error}", error=str(error))
            return None
        return PullFigure(pulls, last[0].began if last else 0.0)


@frozen
class HeldTag:
    """A tag with its image, and the kinds of artifacts that are held for it."""

    listed: ListedImage
    artifacts: frozenset[Kind]
    confirmed: float

    @property
    def digest(self) -> Digest:
        return self.listed.image.digest


@frozen
class HeldRepository:
    """A repository, with one page of its tags.

    :ivar tags: those of its tags that are shown on one of the pages.
    :ivar next: the tag after which the next page begins; empty on the last one.
    :ivar untagged: manifests that no tag and no index refers to.
    """

    name: str
    bytes: int
    tags: Sequence[Tag]
    page: Sequence[HeldTag]
    next: str
    untagged: Sequence[HeldTag]


@frozen
class HeldLayer:
    """A layer or a configuration of an image.

    :ivar sharing: the other repositories that have it, too.
    """

    digest: Digest
    size: int | None
    is_held: bool
    sharing: Sequence[str]
    is_config: bool


@frozen
class HeldPlatform:
    """An image for one platform; None if its index states none.

    :ivar layers: the first of its layers and configurations.
    """

    platform: Platform | None
    image: StoredImage
    layers: Sequence[HeldLayer]
    kinds: frozenset[Kind] = field(default=frozenset())

    @property
    def hidden(self) -> int:
        """The number of the other layers."""
        return len(self.image.manifest.blobs) - len(self.layers) if self.image.manifest else 0


@frozen
class HeldDetails:
    """An image with its platforms and what they consist of."""

    tag: HeldTag
    platforms: Sequence[HeldPlatform]


class ImageCatalog:
    """Reads images from a store's index, and their manifests from the disk."""

    def __init__(self, index: StoreIndex) -> None:
        self._index = index
        self._cache = _ManifestCache(index.root)

    def snapshot(self) -> StoreSnapshot:
        """Return what the store holds now."""
        return self._index.snapshot()

    def list_tags(self, name: str) -> Mapping[Tag, TagEntry]:
        """Return a repository's tags, sorted by name, without those by which clients find artifacts."""
        tags = HeldImages(self._index.root).list_tags(Repository(name))
        return {tag: entry for tag, entry in tags.items() if parse_artifact_tag(tag.name) is None}

    def repository(
        self, held: StoreSnapshot, name: str, entries: Mapping[Tag, TagEntry], after: str, limit: int
    ) -> HeldRepository:
        """Return a repository with those of some of its tags that follow one."""
        images = _SnapshotImages(self._index.root, held, name, self._cache)
        repository = Repository(name)
        tags = list(entries)
        following = [tag for tag in tags if tag.name > after][:limit]
        artifacts = self._artifacts(images, repository)
        page = [
            _held_tag(images, repository, tag, entries[tag].digest, artifacts, entries[tag].confirmed)
            for tag in following
        ]
        untagged = () if after else tuple(self._untagged(images, repository, artifacts, limit))
        after_page = following[-1].name if following and tags[-1] != following[-1] else ""
        return HeldRepository(name, held.bytes_of(name), tags, page, after_page, untagged)

    def count_tags(self, name: str) -> int:
        """Return how many tags a repository has, without those by which clients find artifacts."""
        tags = HeldImages(self._index.root).list_tag_names(Repository(name))
        return sum(parse_artifact_tag(tag) is None for tag in tags)

    def details(self, held: StoreSnapshot, name: str, reference: Reference) -> HeldDetails | None:
        """Return an image by its tag or its digest; None if its manifest is not held."""
        images = _SnapshotImages(self._index.root, held, name, self._cache)
        repository = Repository(name)
        tag = reference if isinstance(reference, Tag) else None
        entry = images.list_tags(repository).get(tag) if tag else None
        digest = reference if isinstance(reference, Digest) else entry.digest if entry else None
        confirmed = entry.confirmed if entry else 0.0
        if digest is None:
            return None
        artifacts = self._artifacts(images, repository)
        found = _held_tag(images, repository, tag, digest, artifacts, confirmed)
        if found.listed.image.data is None:
            return None
        image = found.listed.image
        parts = [each for each in image.walk() if not each.children]
        platforms = [
            HeldPlatform(
                each.platform,
                each,
                list(islice(_layers(held, name, each), _MAX_LAYERS)),
                artifacts.get(each.digest, frozenset()),
            )
            for each in parts
            if each.platform is None or each.platform.is_real
        ]
        return HeldDetails(found, platforms)

    def _artifacts(self, images: _SnapshotImages, repository: Repository) -> Mapping[Digest, frozenset[Kind]]:
        """Return the kinds of artifacts that are held for each manifest."""
        found: defaultdict[Digest, set[Kind]] = defaultdict(set)
        for tag, entry in images.list_tags(repository).items():
            subject = parse_artifact_tag(tag.name)
            if subject is not None:
                for each in images.read_image(repository, entry.digest).walk():
                    found[subject] |= _kinds(each)
        for digest in images.contents.manifests:
            artifact = images.read_artifact(digest)
            if artifact is not None and artifact.subject is not None:
                found[artifact.subject] |= artifact.kinds
        return {digest: frozenset(kinds) for digest, kinds in found.items()}

    def _untagged(
        self,
        images: _SnapshotImages,
        repository: Repository,
        artifacts: Mapping[Digest, frozenset[Kind]],
        limit: int,
    ) -> Iterator[HeldTag]:
        """Yield manifests that nothing refers to, and that are no artifacts."""
        tagged = {entry.digest for entry in images.list_tags(repository).values()}
        candidates = sorted(images.contents.manifests - tagged, key=str)
        referenced = {
            child.descriptor.digest
            for digest in images.contents.manifests
            if (found := images.read_document(digest))
            for child in found.children
        }
        count = 0
        for digest in candidates:
            artifact = images.read_artifact(digest)
            if (
                count >= limit
                or digest in referenced
                or artifact is None
                or artifact.subject
                or artifact.kinds
            ):
                continue
            count += 1
            yield _held_tag(images, repository, None, digest, artifacts, 0.0)


def _held_tag(
    images: _SnapshotImages,
    repository: Repository,
    tag: Tag | None,
    digest: Digest,
    artifacts: Mapping[Digest, frozenset[Kind]],
    confirmed: float,
) -> HeldTag:
    image = images.read_image(repository, digest)
    kinds = {kind for each in image.walk() for kind in artifacts.get(each.digest, ())}
    for each in image.walk():
        if each.platform is not None and not each.platform.is_real:
            kinds |= _kinds(each)
    return HeldTag(ListedImage(repository, tag, image), frozenset(kinds), confirmed)


def _kinds(image: StoredImage) -> frozenset[Kind]:
    return Artifact.parse(image.data).kinds if image.data else frozenset()


def _layers(held: StoreSnapshot, name: str, image: StoredImage) -> Iterator[HeldLayer]:
    config = image.manifest.config if image.manifest else None
    for blob in image.manifest.blobs if image.manifest else ():
        if blob.digest is not None:
            stored = image.blobs.get(blob.digest)
            sharing = [
                other
                for other in held.names
                if other != name and blob.digest in held.repositories[other].blobs
            ]
            size = stored.size if stored else blob.size
            yield HeldLayer(blob.digest, size, stored is not None, sharing, blob == config)


class _ManifestCache:
    """Manifests that were read and verified, the last used of them."""

    def __init__(self, root: Path) -> None:
        self._images = HeldImages(root)
        self._documents: OrderedDict[Digest, tuple[bytes, ManifestDocument, Artifact]] = OrderedDict()

    def get(self, digest: Digest) -> tuple[bytes, ManifestDocument, Artifact] | None:
        found = self._documents.pop(digest, None)
        if found is None:
            read = self._images.read_manifest(digest)
            if read is None:
                return None
            found = (*read, Artifact.parse(read[0]))
        if len(found[0]) <= _MAX_CACHED_SIZE:
            self._documents[digest] = found
        while len(self._documents) > _MAX_CACHED:
            self._documents.popitem(last=False)
        return found


class _SnapshotImages(HeldImages):
    """Images of one repository, of which the snapshot knows the contents: only manifests are read."""

    def __init__(self, root: Path, held: StoreSnapshot, name: str, cache: _ManifestCache) -> None:
        super().__init__(root)
        self._held = held
        self.contents = held.repositories.get(name, _NOTHING)
        self._cache = cache

    def read_manifest(self, digest: Digest) -> tuple[bytes, ManifestDocument] | None:
        found = self._cache.get(digest)
        return found[:2] if found else None

    def read_document(self, digest: Digest) -> ManifestDocument | None:
        found = self._cache.get(digest) if self._held.size_of(digest) is not None else None
        return found[1] if found else None

    def read_artifact(self, digest: Digest) -> Artifact | None:
        found = self._cache.get(digest) if self._held.size_of(digest) is not None else None
        return found[2] if found else None

    def _linked(self, repository: Repository, digest: Digest, kind: ContentKind) -> StoredFile | None:
        linked = self.contents.manifests if kind is ContentKind.MANIFEST else self.contents.blobs
        size = self._held.size_of(digest) if digest in linked else None
        return StoredFile(size, 0.0, 0) if size is not None else None
