"""The files in an uploaded archive, which may be malicious; all calls block."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from posixpath import dirname, join, normpath
from typing import Any, BinaryIO, Protocol, cast

from attrs import field, frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.media import IMAGE_CONFIGS, OCI_INDEX, OCI_MANIFEST
from .archive_plan import DOCKER_MANIFEST, IMAGE_NAME, INDEX, LAYOUT, blob_path

MAX_DOCUMENT_SIZE = 4 * 1024 * 1024
"""The largest document that is read into memory, in bytes."""
MAX_DOCUMENTS_SIZE = 32 * 1024 * 1024
"""The largest total size of an archive's documents, in bytes."""
_MAX_HEADER = 1024 * 1024
_MAX_ENTRIES = 100_000
_READ_SIZE = 1024 * 1024


class ArchiveRefused(Exception):
    """An archive is refused as a whole; the message is one sentence that says why."""


class ArchiveFile(Protocol):
    """A file in an archive."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes: fewer than ``size`` when the archive is truncated."""


@frozen
class StoredFileEntry:
    """A file that is stored in the archive."""

    file: BinaryIO = field(repr=False)
    offset: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        offset, end = self.offset, self.offset + self.size
        while offset < end:
            self.file.seek(offset)
            data = self.file.read(min(_READ_SIZE, end - offset))
            if not data:
                return
            offset += len(data)
            yield data


@frozen
class GeneratedFile:
    """A file that the mirror adds to an archive's own files."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        yield self.data


class DocumentBudget:
    """The number of bytes of an archive's documents that may still be read into memory."""

    def __init__(self) -> None:
        self._left = MAX_DOCUMENTS_SIZE

    def take(self, size: int) -> None:
        """:raises ArchiveRefused: when the documents are too large together."""
        self._left -= size
        if self._left < 0:
            raise ArchiveRefused("its manifests and configurations are too large together")


def read_document(members: dict[str, ArchiveFile], path: str) -> bytes:
    """Return the bytes of a document.

    :raises ArchiveRefused: when it is missing or too large.
    """
    member = members.get(path)
    if member is None:
        raise ArchiveRefused(f"{path} is missing")
    if member.size > MAX_DOCUMENT_SIZE:
        raise ArchiveRefused(f"{path} is too large")
    return b"".join(member.pieces())


def read_members(file: BinaryIO) -> dict[str, ArchiveFile]:
    """Return the files of an uncompressed, seekable tar file by their paths.

    Symbolic links within the archive are ignored: docker's archives have them, and nothing here follows one.

    :raises ArchiveRefused: when it is no tar file, or one that no honest program has written.
    """
    end = file.seek(0, 2)
    file.seek(0)
    found: dict[str, ArchiveFile] = {}
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _HeaderReader(file)), mode="r:") as tar:
            last, count = -1, 0
            while (member := tar.next()) is not None:
                _check(member, last, end)
                last, count = member.offset_data, count + 1
                if count > _MAX_ENTRIES:
                    raise ArchiveRefused("it has too many entries")
                path = member.name.removeprefix("./")
                if member.isdir() or member.issym():
                    continue
                if path in found:
                    raise ArchiveRefused(f"{path} is in it twice")
                found[path] = StoredFileEntry(file, member.offset_data, member.size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise ArchiveRefused(f"this is not a readable, uncompressed tar file: {error}") from None
    return found


class _HeaderReader:
    """The file as tarfile sees it, which trusts a header for the number of bytes to read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ArchiveRefused("a header of the archive is too long")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


_ENTRY_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)


def _check(member: tarfile.TarInfo, last: int, end: int) -> None:
    path = member.name
    if path.startswith("/") or ".." in path.split("/") or (member.issym() and _leads_out(member)):
        raise ArchiveRefused(f"{path!r} leads out of the archive")
    if member.type not in _ENTRY_TYPES or member.sparse is not None:
        raise ArchiveRefused(f"{path!r} is neither a file nor a directory")
    if member.size < 0 or member.offset_data <= last or member.offset_data + member.size > end:
        raise ArchiveRefused(f"{path!r} claims to be larger than the archive")


def _leads_out(link: tarfile.TarInfo) -> bool:
    target = normpath(join(dirname(link.name), link.linkname))
    return target.startswith("/") or target.split("/")[0] == ".."


# Convert archives of docker before version 25, and podman's docker-archive, to an OCI image layout.
#
# Such an archive has no manifests: only configurations and uncompressed layers.  The conversion generates the
# manifest, so its digest differs from the registry's.
#
# Source: moby, image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format".


_MAX_LAYERS = 100_000
"""The largest number of layers in all images together."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def convert_to_layout(members: dict[str, ArchiveFile]) -> dict[str, ArchiveFile]:
    """Return the files of an OCI image layout with the archive's images.

    :raises ArchiveRefused: when the archive does not follow docker's format.
    """
    layout: dict[str, ArchiveFile] = {LAYOUT: GeneratedFile(b"{}")}
    try:
        images = _read_images(members)
        layers = {
            digest: members[path] for image in images for digest, path in image.layers if path in members
        }
        descriptors = [each for image in images for each in _describe(image, layers, layout)]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, DigestInvalid):
        raise ArchiveRefused(f"{DOCKER_MANIFEST} does not follow the format of 'docker save'") from None
    layout |= {blob_path(digest): member for digest, member in layers.items()}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    return {**layout, INDEX: GeneratedFile(json.dumps(index).encode())}


def _read_images(members: dict[str, ArchiveFile]) -> list[_DockerSaveImage]:
    """Read each configuration once, within limits that no honest archive exceeds."""
    configs: dict[str, bytes] = {}
    budget = DocumentBudget()
    count, images = 0, []
    for image in json.loads(read_document(members, DOCKER_MANIFEST)):
        path = _normalize(image["Config"])
        count += len(image["Layers"])
        if count > _MAX_LAYERS:
            raise ArchiveRefused("its images have too many layers")
        if path not in configs:
            configs[path] = read_document(members, path)
            budget.take(len(configs[path]))
        images.append(_DockerSaveImage.read(image, configs[path]))
    return images


@frozen
class _DockerSaveImage:
    """An image in the archive: its configuration, the digest and path of each layer, and its names.

    A layer that another image shares may be a link, which is not among the members.
    """

    config: bytes
    layers: tuple[tuple[Digest, str], ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, image: dict[str, Any], config: bytes) -> _DockerSaveImage:
        digests = map(Digest.parse, json.loads(config)["rootfs"]["diff_ids"])
        layers = tuple(zip(digests, map(_normalize, image["Layers"]), strict=True))
        return cls(config, layers, tuple(image.get("RepoTags") or ()))


def _describe(
    image: _DockerSaveImage, layers: dict[Digest, ArchiveFile], layout: dict[str, ArchiveFile]
) -> Iterator[dict[str, Any]]:
    """Yield the image's descriptor, once for each of its names, and add its documents to the layout."""
    missing = next((path for digest, path in image.layers if digest not in layers), None)
    if missing is not None:
        raise ArchiveRefused(f"{missing} is missing")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _add_document(IMAGE_CONFIGS[0], image.config, layout),
        "layers": [_descriptor(_LAYER, digest, layers[digest].size) for digest, _ in image.layers],
    }
    descriptor = _add_document(OCI_MANIFEST, json.dumps(manifest).encode(), layout)
    named = [{**descriptor, "annotations": {IMAGE_NAME: name}} for name in image.names]
    yield from named or [descriptor]


def _add_document(media_type: str, data: bytes, layout: dict[str, ArchiveFile]) -> dict[str, Any]:
    digest = Digest.of(data)
    layout[blob_path(digest)] = GeneratedFile(data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _normalize(text: str) -> str:
    return text.removeprefix("./")
