"""Archives of images as plans: the length and the place of everything, before a byte is read.

An archive is never built on disk.  The plan is computed from sizes and digests; a sender reads its pieces.

Sources: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's manual for names and sizes that do not fit.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from attrs import field, frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument, Platform
from ..oci.media import IMAGE_CONFIGS, OCI_INDEX

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_READ_SIZE = 1024 * 1024
OpenContent = Callable[[Digest], BinaryIO]
"""Opens the file of a content."""


@frozen
class ContentSlice:
    """A range of a content's bytes; all of them unless an offset is given."""

    digest: Digest
    size: int
    offset: int = 0


Piece = bytes | ContentSlice
"""Known bytes, or a range of a stored content."""


@frozen
class ArchivePlan:
    """The pieces of an archive, in order."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """The length of the archive in bytes."""
        return sum(map(piece_size, self.pieces))

    def part(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the pieces from ``start`` up to, but not including, ``stop``."""
        position = 0
        for piece in self.pieces:
            first, last = max(start - position, 0), min(stop - position, piece_size(piece))
            if first < last:
                yield _cut(piece, first, last)
            position += piece_size(piece)


def piece_size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size


def _cut(piece: Piece, first: int, last: int) -> Piece:
    if isinstance(piece, bytes):
        return piece[first:last]
    return ContentSlice(piece.digest, last - first, piece.offset + first)


def plan_tar(files: Mapping[str, Piece]) -> ArchivePlan:
    """Plan a tar file of these files and their directories, sorted by path, without times and owners.

    The same files always give the same bytes.
    """
    entries: dict[str, Piece | None] = dict(files)
    for path in files:
        entries.update((f"{parent}/", None) for parent in PurePosixPath(path).parents if parent.name)
    pieces = (piece for path in sorted(entries) for piece in _entry(path, entries[path]))
    return ArchivePlan((*pieces, _END))


def _entry(path: str, content: Piece | None) -> Iterator[Piece]:
    info = tarfile.TarInfo(path)
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        yield info.tobuf(tarfile.GNU_FORMAT)
        return
    info.size = piece_size(content)
    yield info.tobuf(tarfile.GNU_FORMAT)
    if info.size:
        yield content
        yield bytes(-info.size % _BLOCK)


class ArchiveContentError(Exception):
    """A stored file is not the content of its digest: the archive cannot be completed."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the stored file of {digest} is corrupt: its content does not match the digest")
        self.digest = digest


def read_archive(
    plan: ArchivePlan, open_content: OpenContent, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
    """Yield the bytes from ``start`` up to, but not including, ``stop``, and verify complete contents.

    :raises ArchiveContentError: at the end of a content that is corrupt or truncated.
    """
    complete = {piece for piece in plan.pieces if isinstance(piece, ContentSlice)}
    for piece in plan.part(start, plan.size if stop is None else stop):
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from _content(piece, open_content, piece in complete)


def _content(content: ContentSlice, open_content: OpenContent, is_complete: bool) -> Iterator[bytes]:
    verifier, left = content.digest.verifier(), content.size
    with open_content(content.digest) as file:
        file.seek(content.offset)
        while left:
            data = file.read(min(left, _READ_SIZE))
            if not data:
                raise ArchiveContentError(content.digest)
            verifier.update(data)
            left -= len(data)
            yield data
    if is_complete and not verifier.matches():
        raise ArchiveContentError(content.digest)


# Pack images into an archive that every client loads.
#
# The archive is an OCI image layout, which containerd and podman and skopeo read, and ``docker load`` where
# docker keeps images in containerd.  It also has the ``manifest.json`` that every other docker loads.
#
# Sources: OCI image specification, image-layout.md and annotations.md; moby, image/spec/spec.md,
# "Combined Image JSON + Filesystem Changeset Format"; containerd, images/annotations.go.


LAYOUT, INDEX, DOCKER_MANIFEST, BLOBS = "oci-layout", "index.json", "manifest.json", "blobs/"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
INVENTORY = "dockmirror.json"
_INVENTORY_VERSION = 1
_DEFAULT_PLATFORM = Platform("linux", "amd64")


@frozen
class PackedImage:
    """A complete image to pack.

    :ivar name: the full name, such as ``docker.io/library/nginx:1.27``.
    :ivar tag: empty when the name ends with a digest.
    :ivar root: the manifest or index that the name refers to.
    :ivar manifests: the bytes of the root and of all manifests below it.
    :ivar blobs: the sizes of all blobs that the manifests refer to.
    """

    name: str
    tag: str
    root: Digest
    manifests: Mapping[Digest, bytes]
    blobs: Mapping[Digest, int]


def blob_path(digest: Digest) -> str:
    """Return the path of a content in an archive."""
    return f"{BLOBS}{digest.algorithm}/{digest.hex}"


def _descriptor(image: PackedImage) -> dict[str, Any]:
    data = image.manifests[image.root]
    manifest = ManifestDocument.parse(data)
    annotations = {IMAGE_NAME: image.name, **({REF_NAME: image.tag} if image.tag else {})}
    return {
        "mediaType": manifest.media_type if manifest else "",
        "digest": str(image.root),
        "size": len(data),
        "annotations": annotations,
    }


def _docker_save_entries(images: Iterable[PackedImage], files: Container[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of docker's manifest.json: of each image linux/amd64, or else the first platform.

    An image of which a blob is not among the files has none.
    """
    entries: dict[Digest, tuple[ManifestDocument, list[str]]] = {}
    for image in images:
        for digest, manifest in islice(_runnable(image), 1):
            names = entries.setdefault(digest, (manifest, []))[1]
            if image.tag and image.name not in names:
                names.append(image.name)
    for manifest, names in entries.values():
        config, *layers = [
            blob_path(each.digest) for each in (manifest.config, *manifest.layers) if each and each.digest
        ]
        if all(path in files for path in (config, *layers)):
            yield {"Config": config, "RepoTags": names or None, "Layers": layers}


def _runnable(image: PackedImage) -> Iterator[tuple[Digest, ManifestDocument]]:
    """Yield an image's runnable manifests; each is read once, however many indexes refer to it."""
    unseen, seen = [image.root], set()
    while unseen:
        digest = unseen.pop()
        manifest = None if digest in seen else ManifestDocument.parse(image.manifests.get(digest, b""))
        seen.add(digest)
        if manifest is None:
            continue
        if manifest.config and manifest.config.media_type in IMAGE_CONFIGS and not manifest.foreign:
            yield digest, manifest
        default_first = sorted(manifest.children, key=lambda child: child.platform != _DEFAULT_PLATFORM)
        unseen += [each.descriptor.digest for each in reversed(default_first) if each.descriptor.digest]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@frozen
class Inventory:
    """The images and contents that an archive has, and the contents that it leaves to earlier archives.

    It is the file ``dockmirror.json`` beside the index of an OCI image layout; other programs pass over it::

        {"version": 1,
         "images": {"docker.io/library/nginx:1.27": "sha256:…"},
         "contents": ["sha256:…"],
         "assumed": ["sha256:…"],
         "tags": {"docker.io/library/nginx:1.27": …}}

    :ivar images: the digests of all images that this archive and those before it have, by their names.
    :ivar contents: the contents that it has.
    :ivar assumed: the contents that those before it have.
    :ivar tags: the histories of its images' tags, in the format of the store, by the images' names; only a
        signed archive has them.
    """

    images: Mapping[str, Digest] = field(factory=dict)
    contents: frozenset[Digest] = frozenset()
    assumed: frozenset[Digest] = frozenset()
    tags: Mapping[str, bytes] = field(factory=dict)

    @property
    def known(self) -> frozenset[Digest]:
        """All contents of this archive and of those before it."""
        return self.contents | self.assumed

    @classmethod
    def parse(cls, data: bytes) -> Inventory:
        """:raises ValueError: when the text is no such list, or one of a later version."""
        try:
            fields = json.loads(data)
            if fields["version"] != _INVENTORY_VERSION:
                raise KeyError(_INVENTORY_VERSION)
            return cls(
                {str(name): Digest.parse(digest) for name, digest in fields["images"].items()},
                frozenset(map(Digest.parse, fields["contents"])),
                frozenset(map(Digest.parse, fields["assumed"])),
                {str(name): _json(history) for name, history in fields.get("tags", {}).items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
            raise ValueError(f"expected the list of an archive, of version {_INVENTORY_VERSION}") from None

    def __bytes__(self) -> bytes:
        fields: dict[str, Any] = {
            "version": _INVENTORY_VERSION,
            "images": {name: str(digest) for name, digest in sorted(self.images.items())},
            "contents": sorted(map(str, self.contents)),
            "assumed": sorted(map(str, self.assumed)),
        }
        if self.tags:
            fields["tags"] = {name: json.loads(history) for name, history in sorted(self.tags.items())}
        return _json(fields)


def select_new(images: Sequence[PackedImage], earlier: Inventory) -> Sequence[PackedImage]:
    """Return the images that no earlier archive has by that digest with all of these manifests."""
    known = earlier.known
    return [
        each
        for each in images
        if earlier.images.get(each.name) != each.root or not known.issuperset(each.manifests)
    ]


def make_inventory(images: Sequence[PackedImage], earlier: Inventory) -> Inventory:
    """Return the list of an archive that leaves out the blobs of earlier ones, but no manifest."""
    manifests = {digest for each in images for digest in each.manifests}
    blobs = {digest for each in images for digest in each.blobs}
    named = {**earlier.images, **{each.name: each.root for each in images}}
    return Inventory(named, frozenset(manifests | (blobs - earlier.known)), earlier.known)


def plan_layout(images: Sequence[PackedImage], earlier: Inventory) -> dict[str, Piece]:
    """Plan the files of an OCI image layout with all images and their list, by their paths.

    :param earlier: the list of earlier archives, whose blobs are left out.
    """
    files: dict[str, Piece] = {}
    known = earlier.known
    for image in images:
        blobs = {digest: size for digest, size in image.blobs.items() if digest not in known}
        files |= {blob_path(digest): ContentSlice(digest, size) for digest, size in blobs.items()}
    for image in images:
        files |= {blob_path(digest): data for digest, data in image.manifests.items()}
    files[LAYOUT] = _json({"imageLayoutVersion": "1.0.0"})
    descriptors = [_descriptor(image) for image in images]
    files[INDEX] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors})
    files[DOCKER_MANIFEST] = _json(list(_docker_save_entries(images, files)))
    files[INVENTORY] = bytes(make_inventory(images, earlier))
    return files


def plan_archive(images: Sequence[PackedImage]) -> ArchivePlan:
    """Plan one archive of all images; the same images always give the same bytes."""
    return plan_tar(plan_layout(images, Inventory()))
