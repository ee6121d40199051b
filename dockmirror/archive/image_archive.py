"""The images in an uploaded archive; each content is verified as it is read, and all calls block."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from ..interfaces import ContentKind
from ..oci.digest import Descriptor, Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument
from .archive_files import (
    MAX_DOCUMENT_SIZE,
    ArchiveFile,
    ArchiveRefused,
    DocumentBudget,
    read_directory,
    read_document,
    read_members,
)
from .archive_parts import check_sum
from .archive_plan import (
    BLOBS,
    DOCKER_MANIFEST,
    IMAGE_NAME,
    INDEX,
    INVENTORY,
    LAYOUT,
    REF_NAME,
    Inventory,
    blob_path,
)
from .docker_save import REPOSITORIES, convert_legacy_layout, convert_to_layout

_MAX_DEPTH = 4


@frozen
class NamedImage:
    """An image in an archive, with its name there; None when the archive has no complete name for it."""

    name: str | None
    descriptor: Descriptor


class ImageArchive:
    """The contents of an archive.  Blobs are verified on each read, manifests once.

    :param members: the files of an OCI image layout, by path.
    :ivar inventory: the list of its contents, and of those that earlier archives have.
    """

    def __init__(self, members: dict[str, ArchiveFile]) -> None:
        self._members = members
        self.inventory = _read_inventory(members)
        self._manifests: dict[Digest, tuple[bytes, ManifestDocument]] = {}
        self._budget = DocumentBudget()

    @classmethod
    def open(cls, file: BinaryIO) -> ImageArchive:
        """Open an uncompressed, seekable tar file.

        :raises ArchiveRefused: when it holds no images, or no honest program has written it.
        """
        return cls._of(read_members(file))

    @classmethod
    def open_directory(cls, directory: Path) -> ImageArchive:
        """Open a directory with an OCI image layout, or with an archive that was unpacked.

        :raises ArchiveRefused: when it holds no images.
        :raises OSError: when it cannot be read.
        """
        return cls._of(read_directory(directory))

    @classmethod
    def open_signed_directory(cls, directory: Path, sums: Mapping[str, str]) -> ImageArchive:
        """Open a directory with an OCI image layout, all of which must be signed.

        The other forms have contents that no digest in a signed file covers.

        :param sums: the signed checksums, by paths; a file that they do not list is left out, unless it is a
            blob, which its digest verifies.
        :raises ArchiveRefused: when a listed file is missing or was changed, or it is no such layout.
        :raises OSError: when it cannot be read.
        """
        members = read_directory(directory)
        for path in sums:
            if path not in members:
                raise ArchiveRefused(f"{path} is missing")
            check_sum(path, members[path].pieces(), sums)
        signed = {path: each for path, each in members.items() if path in sums or path.startswith(BLOBS)}
        if LAYOUT in signed and INDEX in signed:
            return cls(signed)
        raise ArchiveRefused(
            "a signed directory has to be an OCI image layout as 'dockmirror export' writes it"
        )

    @classmethod
    def _of(cls, members: dict[str, ArchiveFile]) -> ImageArchive:
        if LAYOUT in members and INDEX in members:
            return cls(members)
        if DOCKER_MANIFEST in members:
            return cls(convert_to_layout(members))
        if REPOSITORIES in members:
            return cls(convert_legacy_layout(members))
        raise ArchiveRefused(
            "this is not an archive of images as 'docker save', 'podman save', or skopeo's oci-archive: and"
            " docker-archive: write it, or it is cut off"
        )

    def images(self) -> list[NamedImage]:
        """Return the images in the order of the index; none of an export in which nothing was new.

        :raises ArchiveRefused: when the index is invalid.
        """
        data = read_document(self._members, INDEX)
        index = ManifestDocument.parse(data)
        fields = json.loads(data) if index else {}
        is_empty_export = fields.get("manifests") == [] and INVENTORY in self._members
        if index is None or not (index.children or is_empty_export):
            raise ArchiveRefused(f"{INDEX} names no images")
        return [
            NamedImage(_image_name(entry.get("annotations")), child.descriptor)
            for entry, child in zip(
                (each for each in fields["manifests"] if not each.get("urls")), index.children, strict=True
            )
        ]

    def parts(self, descriptor: Descriptor) -> Iterator[tuple[Descriptor, bytes | None]]:
        """Yield each content of an image once, referenced contents first, with the bytes of manifests.

        Of an index's images one has to be there; others may be missing, as in the archives of docker.

        :raises ArchiveRefused: when a content is missing or has the wrong size.
        """
        yield from self._walk(descriptor, set(), _MAX_DEPTH)

    def pieces(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the bytes of a content.

        :raises ArchiveRefused: at the end, when the bytes do not match the digest, and for a content that is
            left to an earlier archive.
        """
        digest, member = _digest(descriptor), self._find_member(descriptor)
        verifier, size = digest.verifier(), 0
        for data in member.pieces():
            verifier.update(data)
            size += len(data)
            yield data
        if size != member.size:
            raise ArchiveRefused(f"{blob_path(digest)} is truncated")
        if not verifier.matches():
            raise ArchiveRefused(f"{blob_path(digest)} does not match its digest")

    def has(self, descriptor: Descriptor) -> bool:
        """Return whether the archive itself has a content, instead of leaving it to an earlier one."""
        return blob_path(_digest(descriptor)) in self._members

    def _walk(
        self, descriptor: Descriptor, seen: set[tuple[Digest, ContentKind]], depth: int
    ) -> Iterator[tuple[Descriptor, bytes | None]]:
        if not depth:
            raise ArchiveRefused("its indexes are nested too deeply")
        if self._is_seen(descriptor, ContentKind.MANIFEST, seen):
            return
        data, manifest = self._read_manifest(descriptor)
        present = [
            child for child in manifest.children if blob_path(_digest(child.descriptor)) in self._members
        ]
        if manifest.children and not present:
            raise ArchiveRefused(f"{descriptor.digest}: none of its images is in the archive")
        for child in present:
            yield from self._walk(child.descriptor, seen, depth - 1)
        for blob in manifest.blobs:
            if not self._is_seen(blob, ContentKind.BLOB, seen):
                yield blob, None
        yield descriptor, data

    def _is_seen(
        self, descriptor: Descriptor, kind: ContentKind, seen: set[tuple[Digest, ContentKind]]
    ) -> bool:
        """:raises ArchiveRefused: as ``_find_member`` does."""
        if self.has(descriptor) or _digest(descriptor) not in self.inventory.assumed:
            self._find_member(descriptor)
        key = _digest(descriptor), kind
        if key in seen:
            return True
        seen.add(key)
        return False

    def _read_manifest(self, descriptor: Descriptor) -> tuple[bytes, ManifestDocument]:
        digest = _digest(descriptor)
        if digest in self._manifests:
            return self._manifests[digest]
        size = self._find_member(descriptor).size
        if size > MAX_DOCUMENT_SIZE:
            raise ArchiveRefused(f"{digest} is too large for a manifest")
        self._budget.take(size)
        data = b"".join(self.pieces(descriptor))
        manifest = ManifestDocument.parse(data)
        if manifest is None:
            raise ArchiveRefused(f"{digest} is not an image manifest")
        self._manifests[digest] = data, manifest
        return data, manifest

    def _find_member(self, descriptor: Descriptor) -> ArchiveFile:
        """:raises ArchiveRefused: when the content is missing, or its size differs from the descriptor's."""
        path = blob_path(_digest(descriptor))
        member = self._members.get(path)
        if member is None:
            raise ArchiveRefused(f"{path} is missing")
        if descriptor.size is not None and descriptor.size != member.size:
            raise ArchiveRefused(
                f"{path} has {member.size} bytes instead of the {descriptor.size} that its descriptor says"
            )
        return member


def _read_inventory(members: dict[str, ArchiveFile]) -> Inventory:
    if INVENTORY not in members:
        return Inventory()
    try:
        return Inventory.parse(read_document(members, INVENTORY))
    except ValueError as error:
        raise ArchiveRefused(f"{INVENTORY}: {error}") from None


def _image_name(annotations: object) -> str | None:
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
