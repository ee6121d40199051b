"""A failing store does not fail a pull."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unauthorized
from dockmirror.oci.request import Repository, Tag
from dockmirror.pullthrough.error_tolerant_store import (
    ErrorTolerantContentStore,
    ErrorTolerantDocumentStore,
    ErrorTolerantTagStore,
)

from ..answering import now
from ..store.memory import MemoryContents, MemoryDocuments, MemoryTags
from .faulty import Faults, faulty
from .mirrors import CONFIG, LAYER, NAME, Mirror, body, header
from .origin import Origin

HERE, LATEST, DIGEST = Repository("docker.io/x"), Tag("latest"), Digest.of(b"")


@pytest.mark.parametrize(("reading", "writing"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("warm", [False, True])
def test_pulls_continue_with_a_failing_disk(
    origin: Origin, mirror: Mirror, manifest: bytes, reading: bool, writing: bool, warm: bool
) -> None:
    """Cold and warm, with tokens and lists."""
    if warm:
        mirror.docker(NAME)
    faults = mirror.store.faults
    faults.reading, faults.writing = reading, writing
    mirror.store.downloads.full = writing
    for _ in range(2):
        mirror.clock.advance(400)
        assert mirror.docker(NAME) == [manifest, CONFIG, LAYER]
        assert mirror.pull("me/private", "alice") == [manifest, CONFIG, LAYER]
        mirror.get(f"{NAME}/tags/list")
    with pytest.raises(Unauthorized):
        mirror.ask("me/private/manifests/latest")


def test_each_is_asked_for_once(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Content that cannot be stored is fetched once per request."""
    mirror.store.faults.writing = mirror.store.downloads.full = True
    answer = mirror.ask(f"{NAME}/manifests/latest")
    assert (body(answer), header(answer, "Cache-Status")) == (manifest, "dockmirror; fwd=miss")
    assert mirror.get(f"{NAME}/blobs/{Digest.of(LAYER)}") == LAYER
    assert len(origin.take()) == 2


class Stores:
    """Error-tolerant stores on one disk."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.contents = ErrorTolerantContentStore(faulty(MemoryContents(), self.faults))
        self.tags = ErrorTolerantTagStore(faulty(MemoryTags(Clock()), self.faults))
        self.documents = ErrorTolerantDocumentStore(faulty(MemoryDocuments(), self.faults))


def test_a_failing_disk_holds_nothing() -> None:
    """Reads find nothing and writes are ignored, but ``add`` fails, since its caller must know."""
    stores = Stores()
    stores.faults.reading = stores.faults.writing = True
    assert now(stores.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert not now(stores.contents.holds(DIGEST))
    assert not now(stores.contents.link(HERE, DIGEST, ContentKind.BLOB))
    with pytest.raises(OSError, match="full"):
        now(stores.contents.add(HERE, DIGEST, ContentKind.BLOB, b""))
    assert now(stores.tags.get(HERE, LATEST)) is None
    now(stores.tags.put(HERE, LATEST, DIGEST))
    now(stores.tags.forget(HERE, LATEST))
    assert now(stores.documents.read("x")) is None
    now(stores.documents.write("x", b""))


def test_a_working_disk_is_passed_through() -> None:
    stores = Stores()
    now(stores.contents.add(HERE, DIGEST, ContentKind.MANIFEST, b""))
    assert now(stores.contents.holds(DIGEST))
    assert now(stores.contents.link(HERE, DIGEST, ContentKind.BLOB))
    opened = now(stores.contents.open(HERE, DIGEST, ContentKind.BLOB))
    assert (opened.size if opened else None) == 0
    now(stores.tags.put(HERE, LATEST, DIGEST))
    entry = now(stores.tags.get(HERE, LATEST))
    assert (entry.digest if entry else None) == DIGEST
    now(stores.tags.forget(HERE, LATEST))
    assert now(stores.tags.get(HERE, LATEST)) is None
    now(stores.documents.write("x", b"y"))
    assert now(stores.documents.read("x")) == b"y"
