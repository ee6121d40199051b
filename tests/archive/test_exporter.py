"""Exports, and the memory that they may take."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import pytest
from zope.interface import implementer

from dockmirror.archive.exporter import UNCOUNTED_MEMORY, ArchiveExporter, ExportedArchive
from dockmirror.body.bodies import BytesBody
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import ManifestUnknown, RegistryError, SizeInvalid, TooManyRequests
from dockmirror.oci.media import OCI_MANIFEST
from dockmirror.oci.request import Blob, Manifest, RegistryRequest, Repository

from ..answering import Recorder, now, watch
from .packing import described, index, manifest

REPOSITORY = Repository("docker.io/team/app")
CONFIG = b"{}"
LARGE = 100 * 1024
"""Bytes of a manifest."""


@implementer(IRegistry)
class Contents:
    """A registry with the contents that were added."""

    def __init__(self) -> None:
        self.asked: list[Digest] = []
        self._all: dict[Digest, bytes] = {}
        self.add(CONFIG)

    def add(self, data: bytes) -> Digest:
        """Add a content."""
        self._all[Digest.of(data)] = data
        return Digest.of(data)

    def manifest(self, size: int = 0, blobs: int = 0) -> Digest:
        """Add a manifest of that size, with so many layers."""
        layers = [os.urandom(8) for _ in range(blobs)]
        for layer in layers:
            self.add(layer)
        filling = {"annotations": {"filling": os.urandom(size // 2).hex()}}
        return self.add(json.dumps({**json.loads(manifest(CONFIG, *layers)), **filling}).encode())

    def index(self, children: Iterable[Digest], depth: int = 0) -> Digest:
        """Add an index of these manifests."""
        manifests = [described(self._all[each], OCI_MANIFEST) for each in children]
        return self.add(json.dumps({**json.loads(index()), "manifests": manifests, "depth": depth}).encode())

    async def fetch(self, request: RegistryRequest) -> Answer:
        assert isinstance(request.target, Manifest | Blob)
        digest = request.target.digest
        assert digest is not None
        if isinstance(request.target, Manifest):
            self.asked.append(digest)
        if digest not in self._all:
            raise ManifestUnknown
        data = self._all[digest]
        return Answer(BytesBody(data, Descriptor(None, digest, len(data))))


@pytest.fixture
def contents() -> Contents:
    return Contents()


def exported(exports: ArchiveExporter, digest: Digest) -> ExportedArchive:
    """Return the archive of an image."""
    return now(exports.archive(REPOSITORY, digest, None))


def refused(exports: ArchiveExporter, digest: Digest) -> RegistryError:
    """Return the error for an image that is not exported."""
    with pytest.raises(RegistryError) as caught:
        exported(exports, digest)
    return caught.value


def test_manifests_that_are_too_large_are_refused(contents: Contents) -> None:
    """The refusal comes as early as possible, has the reason, and releases all memory."""
    index = contents.index([contents.manifest(LARGE) for _ in range(200)])
    exports = ArchiveExporter(contents, max_memory=10 * LARGE, max_total=10 * LARGE)
    error = refused(exports, index)
    assert (type(error), error.status) == (SizeInvalid, 413)
    assert f"more than {10 * LARGE} bytes" in str(error)
    assert len(contents.asked) <= 11
    exported(exports, contents.index([contents.manifest(LARGE) for _ in range(9)])).close()


def test_each_blob_counts_as_memory(contents: Contents) -> None:
    """Very many blobs are refused like large manifests."""
    exports = ArchiveExporter(contents, max_memory=10 * LARGE)
    exported(exports, contents.manifest(blobs=500))
    assert isinstance(refused(exports, contents.manifest(blobs=1000)), SizeInvalid)


def test_large_archives_at_once_are_limited(contents: Contents) -> None:
    """Others are refused until one of them was sent or discarded."""
    one, other = (contents.manifest(4 * LARGE) for _ in range(2))
    exports = ArchiveExporter(contents, max_total=5 * LARGE)
    for end in (ExportedArchive.close, _discarded, _delivered):
        archive = exported(exports, one)
        error = refused(exports, other)
        assert (type(error), error.retry_after) == (TooManyRequests, "60")
        end(archive)
        exported(exports, other).close()


def _discarded(archive: ExportedArchive) -> None:
    archive.body(0, archive.plan.size).discard()


def _delivered(archive: ExportedArchive) -> None:
    recorder = Recorder()
    assert watch(archive.body(0, archive.plan.size).deliver(recorder)) == [None]
    assert len(recorder.data) == archive.plan.size


def test_small_archives_are_never_refused(contents: Contents) -> None:
    """The memory of large archives does not matter."""
    exports = ArchiveExporter(contents, max_total=5 * LARGE)
    exported(exports, contents.manifest(4 * LARGE))
    for _ in range(10):
        exported(exports, contents.manifest(UNCOUNTED_MEMORY // 2))


def test_a_slow_client_keeps_the_memory_of_its_archive(contents: Contents) -> None:
    """No more is buffered than the client accepts."""
    exports = ArchiveExporter(contents, max_total=5 * LARGE)
    image = contents.manifest(4 * LARGE)
    archive, recorder = exported(exports, image), Slow()
    delivery = archive.body(0, archive.plan.size).deliver(recorder)
    outcome = watch(delivery)
    while len(recorder.data) < archive.plan.size - LARGE:
        assert isinstance(refused(exports, image), TooManyRequests)
        before = len(recorder.data)
        recorder.resume()
        assert len(recorder.data) - before <= LARGE
    delivery.cancel()
    assert len(outcome) == 1
    exported(exports, image)


class Slow(Recorder):
    """A consumer that takes a piece, and then nothing until it is resumed."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None:
            self.pause()


def test_nested_indexes_are_read_once_each(contents: Contents) -> None:
    """Depth and number of references do not matter, and planning does not follow each path."""
    digest = contents.index([])
    for _ in range(100):
        digest = contents.index([digest, contents.index([digest])])
    exported(ArchiveExporter(contents), digest)
    assert len(set(contents.asked)) == len(contents.asked) == 201
    for depth in range(500):
        digest = contents.index([digest, contents.index([digest, contents.index([], depth)])])
    with pytest.raises(RegistryError, match="too many manifests"):
        exported(ArchiveExporter(contents), digest)
