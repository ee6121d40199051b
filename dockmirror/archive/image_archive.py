"""The images of an archive that somebody brings, each verified as it is read; calls that block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from attrs import frozen

from ..interfaces import ContentKind
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument
from .archive_files import DOCUMENT, Allowance, ArchiveFile, ArchiveRefused, document, read_members
from .docker_save import layout_of
from .images import IMAGE_NAME, INDEX, LAYOUT, REF_NAME, SAVED, path_of

_DEPTH = 4


@frozen
class NamedImage:
    """An image in an archive, and what that calls it; None where it has no name that is whole."""

    name: str | None
    descriptor: Descriptor


class ImageArchive:
    """The contents of an archive, each verified when it is read; of a manifest that is once.

    :param members: an OCI layout, by its paths.
    """

    def __init__(self, members: dict[str, ArchiveFile]) -> None:
        self._members = members
        self._manifests: dict[Digest, tuple[bytes, ManifestDocument]] = {}
        self._allowance = Allowance()

    @classmethod
    def open(cls, file: BinaryIO) -> ImageArchive:
        """Of a tar file that is not compressed, and can be read at any place.

        :raises Refused: when it has no images in it, or is one that no honest program has written.
        """
        members = read_members(file)
        if LAYOUT in members and INDEX in members:
            return cls(members)
        if SAVED in members:
            return cls(layout_of(members))
        raise ArchiveRefused(
            "this is no archive of images: 'docker save', 'podman save', and skopeo to oci-archive: and"
            " docker-archive: write such"
        )

    def images(self) -> list[NamedImage]:
        """What is in it, in its order.

        :raises Refused: when its index is none.
        """
        data = document(self._members, INDEX)
        index = ManifestDocument.parse(data)
        if index is None or not index.children:
            raise ArchiveRefused(f"{INDEX} names no images")
        described = json.loads(data)["manifests"]
        return [
            NamedImage(_name(fields.get("annotations")), child.descriptor)
            for fields, child in zip(
                (each for each in described if not each.get("urls")), index.children, strict=True
            )
        ]

    def parts(self, descriptor: Descriptor) -> Iterator[tuple[Descriptor, bytes | None]]:
        """All of an image, what is referred to before what refers to it; with the bytes of manifests.

        Each comes once, however often it is referred to.  Of an index one image has to be there, and others
        may be missing, as in what docker saves.

        :raises Refused: when something is missing, or not what it should be.
        """
        yield from self._parts(descriptor, set(), _DEPTH)

    def pieces(self, descriptor: Descriptor) -> Iterator[bytes]:
        """The bytes of a content.

        :raises Refused: at its end, when they were not those of its digest.
        """
        digest, member = _digest(descriptor), self._member(descriptor)
        verifier, size = digest.verifier(), 0
        for data in member.pieces():
            verifier.update(data)
            size += len(data)
            yield data
        if size != member.size:
            raise ArchiveRefused(f"{path_of(digest)} ends too soon")
        if not verifier.matches():
            raise ArchiveRefused(f"{path_of(digest)} is not the content of its name")

    def size(self, descriptor: Descriptor) -> int:
        """:raises Refused: when it is not there, or of another size than is said."""
        return self._member(descriptor).size

    def _parts(
        self, descriptor: Descriptor, seen: set[tuple[Digest, ContentKind]], depth: int
    ) -> Iterator[tuple[Descriptor, bytes | None]]:
        if not depth:
            raise ArchiveRefused("its indexes refer to one another without end")
        if self._is_seen(descriptor, ContentKind.MANIFEST, seen):
            return
        data, manifest = self._manifest(descriptor)
        present = [
            child for child in manifest.children if path_of(_digest(child.descriptor)) in self._members
        ]
        if manifest.children and not present:
            raise ArchiveRefused(f"{descriptor.digest}: none of its images is in the archive")
        for child in present:
            yield from self._parts(child.descriptor, seen, depth - 1)
        for blob in manifest.blobs:
            if not self._is_seen(blob, ContentKind.BLOB, seen):
                yield blob, None
        yield descriptor, data

    def _is_seen(
        self, descriptor: Descriptor, kind: ContentKind, seen: set[tuple[Digest, ContentKind]]
    ) -> bool:
        """:raises Refused: see ``size``."""
        self._member(descriptor)
        key = _digest(descriptor), kind
        if key in seen:
            return True
        seen.add(key)
        return False

    def _manifest(self, descriptor: Descriptor) -> tuple[bytes, ManifestDocument]:
        digest = _digest(descriptor)
        if digest in self._manifests:
            return self._manifests[digest]
        size = self.size(descriptor)
        if size > DOCUMENT:
            raise ArchiveRefused(f"{digest} is too large for a manifest")
        self._allowance.take(size)
        data = b"".join(self.pieces(descriptor))
        manifest = ManifestDocument.parse(data)
        if manifest is None:
            raise ArchiveRefused(f"{digest} is no manifest of an image")
        self._manifests[digest] = data, manifest
        return data, manifest

    def _member(self, descriptor: Descriptor) -> ArchiveFile:
        path = path_of(_digest(descriptor))
        member = self._members.get(path)
        if member is None:
            raise ArchiveRefused(f"{path} is missing")
        if descriptor.size is not None and descriptor.size != member.size:
            raise ArchiveRefused(
                f"{path} has {member.size} bytes, and not {descriptor.size} as is said of it"
            )
        return member


def _name(annotations: object) -> str | None:
    if not isinstance(annotations, dict):
        return None
    name, reference = annotations.get(IMAGE_NAME), annotations.get(REF_NAME)
    if isinstance(name, str) and name:
        return name
    return reference if isinstance(reference, str) and set(reference) & {"/", ":"} else None


def _digest(descriptor: Descriptor) -> Digest:
    if descriptor.digest is None:
        raise DigestInvalid("a descriptor without a digest")
    return descriptor.digest
