"""A store that fails costs the cache, and not the pull."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import ContentKind, IContentStore, IDocumentStore, ITagStore
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unauthorized
from dockmirror.oci.reference import Repository, Tag
from dockmirror.pullthrough.error_tolerant_store import (
    ErrorTolerantContentStore,
    ErrorTolerantDocumentStore,
    ErrorTolerantTagStore,
)

from ..answering import now
from ..store.memory import MemoryContents, MemoryDocuments, MemoryTags
from .faulty import Faults, FaultyContents, FaultyDocuments, FaultyTags
from .images import publish
from .mirrors import Mirror, body, header
from .origin import Origin

CONFIG, LAYER = b"configuration", b"layer" * 100
NAME = "library/busybox"
HERE, LATEST, DIGEST = Repository("docker.io/x"), Tag("latest"), Digest.of(b"")


@pytest.fixture
def manifest(origin: Origin) -> bytes:
    """Of an image that everybody may have, and of one that alice may have."""
    publish(origin.shelf("me/private", {"alice"}), CONFIG, LAYER)
    return publish(origin.shelf(NAME), CONFIG, LAYER)


@pytest.mark.parametrize(("reading", "writing"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("warm", [False, True])
def test_pulls_go_on(
    origin: Origin, mirror: Mirror, manifest: bytes, reading: bool, writing: bool, warm: bool
) -> None:
    """With a disk that is full, or gives nothing, cold or warm, tokens and lists and all."""
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
    """What cannot be kept is not fetched twice for that."""
    mirror.store.faults.writing = mirror.store.downloads.full = True
    answer = mirror.ask(f"{NAME}/manifests/latest")
    assert (body(answer), header(answer, "Cache-Status")) == (manifest, "dockmirror; fwd=miss")
    assert mirror.get(f"{NAME}/blobs/{Digest.of(LAYER)}") == LAYER
    assert len(origin.take()) == 2


def test_nothing_is_held_by_a_disk_that_gives_nothing() -> None:
    """Nothing is linked, named or written either; adding tells, since who adds must know."""
    faults = Faults()
    faults.reading = faults.writing = True
    contents = ErrorTolerantContentStore(FaultyContents(MemoryContents(), faults))
    tags = ErrorTolerantTagStore(FaultyTags(MemoryTags(Clock()), faults))
    documents = ErrorTolerantDocumentStore(FaultyDocuments(MemoryDocuments(), faults))
    assert now(contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert not now(contents.holds(DIGEST))
    assert not now(contents.link(HERE, DIGEST, ContentKind.BLOB))
    with pytest.raises(OSError, match="full"):
        now(contents.add(HERE, DIGEST, ContentKind.BLOB, b""))
    assert now(tags.get(HERE, LATEST)) is None
    now(tags.put(HERE, LATEST, DIGEST))
    now(tags.forget(HERE, LATEST))
    assert now(documents.read("x")) is None
    now(documents.write("x", b""))


def test_it_is_a_store_otherwise() -> None:
    """What works is passed through."""
    faults = Faults()
    contents = ErrorTolerantContentStore(FaultyContents(MemoryContents(), faults))
    tags = ErrorTolerantTagStore(FaultyTags(MemoryTags(Clock()), faults))
    documents = ErrorTolerantDocumentStore(FaultyDocuments(MemoryDocuments(), faults))
    assert verifyObject(IContentStore, contents)
    assert verifyObject(ITagStore, tags)
    assert verifyObject(IDocumentStore, documents)
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, b""))
    assert now(contents.holds(DIGEST))
    assert now(contents.link(HERE, DIGEST, ContentKind.BLOB))
    opened = now(contents.open(HERE, DIGEST, ContentKind.BLOB))
    assert opened is not None
    assert opened.size == 0
    now(tags.put(HERE, LATEST, DIGEST))
    named = now(tags.get(HERE, LATEST))
    assert named is not None
    assert named.digest == DIGEST
    now(tags.forget(HERE, LATEST))
    assert now(tags.get(HERE, LATEST)) is None
    now(documents.write("x", b"y"))
    assert now(documents.read("x")) == b"y"
