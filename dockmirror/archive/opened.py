"""An archive that somebody brings, read as one that may be meant to do harm; calls that block."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from attrs import frozen

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import Manifest
from .images import IMAGE_NAME, INDEX, LAYOUT, REF_NAME, path_of

_MANIFEST = 4 * 1024 * 1024
_HEADER = 1024 * 1024
_ENTRIES = 100_000
_DEPTH = 4
_PIECE = 1024 * 1024


class Refused(Exception):
    """An archive of which nothing is taken: one sentence that says why."""


@frozen
class Named:
    """An image in an archive, and what that calls it; None where it has no name that is whole."""

    name: str | None
    descriptor: Descriptor


@frozen
class _Entry:
    offset: int
    size: int


class Archive:
    """The contents of an archive, each verified when it is read.

    :param entries: where in the file each path lies.
    """

    def __init__(self, file: BinaryIO, entries: dict[str, _Entry]) -> None:
        self._file = file
        self._entries = entries

    @classmethod
    def open(cls, file: BinaryIO) -> Archive:
        """Of a tar file that is not compressed, and can be read at any place.

        :raises Refused: when it is no OCI layout, or one that no honest program has written.
        """
        entries = _entries(file)
        if LAYOUT not in entries or INDEX not in entries:
            raise Refused(
                "this is no OCI layout: 'docker save' writes one from version 25 on, skopeo to oci-archive:"
            )
        return cls(file, entries)

    def images(self) -> list[Named]:
        """What is in it, in its order.

        :raises Refused: when its index is none.
        """
        data = self._read(INDEX)
        index = Manifest.parse(data)
        if index is None or not index.children:
            raise Refused(f"{INDEX} names no images")
        described = json.loads(data)["manifests"]
        return [
            Named(_name(fields.get("annotations")), child.descriptor)
            for fields, child in zip(
                (each for each in described if not each.get("urls")), index.children, strict=True
            )
        ]

    def parts(self, descriptor: Descriptor) -> Iterator[tuple[Descriptor, bytes | None]]:
        """All of an image, what is referred to before what refers to it; with the bytes of manifests.

        Of an index one image has to be there, and others may be missing, as in what docker saves.

        :raises Refused: when something is missing, or not what it should be.
        """
        yield from self._parts(descriptor, _DEPTH)

    def pieces(self, descriptor: Descriptor) -> Iterator[bytes]:
        """The bytes of a content.

        :raises Refused: at its end, when they were not those of its digest.
        """
        digest, entry = _digest(descriptor), self._entry(descriptor)
        verifier, offset = digest.verifier(), entry.offset
        while offset < entry.offset + entry.size:
            self._file.seek(offset)
            data = self._file.read(min(_PIECE, entry.offset + entry.size - offset))
            if not data:
                raise Refused(f"{path_of(digest)} ends too soon")
            verifier.update(data)
            offset += len(data)
            yield data
        if not verifier.verified():
            raise Refused(f"{path_of(digest)} is not the content of its name")

    def size(self, descriptor: Descriptor) -> int:
        """:raises Refused: when it is not there, or of another size than is said."""
        return self._entry(descriptor).size

    def _parts(self, descriptor: Descriptor, depth: int) -> Iterator[tuple[Descriptor, bytes | None]]:
        if not depth:
            raise Refused("its indexes refer to one another without end")
        if self.size(descriptor) > _MANIFEST:
            raise Refused(f"{descriptor.digest} is too large for a manifest")
        data = b"".join(self.pieces(descriptor))
        manifest = Manifest.parse(data)
        if manifest is None:
            raise Refused(f"{descriptor.digest} is no manifest of an image")
        present = [
            child for child in manifest.children if path_of(_digest(child.descriptor)) in self._entries
        ]
        if manifest.children and not present:
            raise Refused(f"{descriptor.digest}: none of its images is in the archive")
        for child in present:
            yield from self._parts(child.descriptor, depth - 1)
        for blob in manifest.blobs:
            self._entry(blob)
            yield blob, None
        yield descriptor, data

    def _entry(self, descriptor: Descriptor) -> _Entry:
        path = path_of(_digest(descriptor))
        entry = self._entries.get(path)
        if entry is None:
            raise Refused(f"{path} is missing")
        if descriptor.size is not None and descriptor.size != entry.size:
            raise Refused(f"{path} has {entry.size} bytes, and not {descriptor.size} as is said of it")
        return entry

    def _read(self, path: str) -> bytes:
        entry = self._entries[path]
        if entry.size > _MANIFEST:
            raise Refused(f"{path} is too large")
        self._file.seek(entry.offset)
        return self._file.read(entry.size)


class _Headers:
    """The file as tarfile sees it, which takes a header's word for how much there is to be read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise Refused("a header of the archive is too long")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def _entries(file: BinaryIO) -> dict[str, _Entry]:
    end = file.seek(0, 2)
    file.seek(0)
    found: dict[str, _Entry] = {}
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:") as tar:
            last = -1
            while (member := tar.next()) is not None:
                _check(member, last, end)
                last = member.offset_data
                path = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if path in found or len(found) == _ENTRIES:
                    raise Refused(f"{path} is in it twice" if path in found else "it has too many files")
                found[path] = _Entry(member.offset_data, member.size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise Refused(f"this is no tar file that can be read: {error}") from None
    return found


def _check(member: tarfile.TarInfo, last: int, end: int) -> None:
    path = member.name
    if path.startswith("/") or ".." in path.split("/"):
        raise Refused(f"{path!r} leads out of the archive")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.sparse is not None:
        raise Refused(f"{path!r} is neither a file nor a directory")
    if member.size < 0 or member.offset_data <= last or member.offset_data + member.size > end:
        raise Refused(f"{path!r} is said to be larger than the archive")


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
