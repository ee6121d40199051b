"""Stored manifests and their cached references."""

from __future__ import annotations

import json

from dockmirror.body.bodies import BytesBody
from dockmirror.interfaces import ContentKind, IStoredContent
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.manifest import parse_references
from dockmirror.oci.media import OCI_INDEX
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.manifest_store import ManifestStore, ReferenceCache

from ..answering import now
from ..stacks import logged
from ..store.memory import MemoryContents

HERE = Repository("docker.io/library/busybox")


class Counted(MemoryContents):
    def __init__(self) -> None:
        super().__init__()
        self.opens = 0

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        self.opens += 1
        return await super().open(repository, digest, kind)


def index(name: str, *manifests: Digest) -> bytes:
    referred = [{"digest": str(each), "size": 1, "mediaType": OCI_INDEX} for each in manifests]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referred, "annotations": {"name": name}}
    ).encode()


class Declining(MemoryContents):
    """A store that keeps nothing new."""

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        return False


def test_a_manifest_that_the_store_declines_is_no_failure() -> None:
    """It is not stored, and nothing is logged about the disk."""
    data = _index(1)
    content = BytesBody(data, Descriptor(OCI_INDEX, Digest.of(data), len(data)))
    with logged() as lines:
        assert now(ManifestStore(Declining()).add(HERE, content)) is None
    assert not lines
    assert now(ManifestStore(MemoryContents()).add(HERE, content)) == Digest.of(data)


def test_nested_indexes_are_checked_once() -> None:
    """Each index is opened once, even if several others contain it."""
    contents = Counted()
    below = (Digest.of(b"not"), Digest.of(b"there"))
    for _ in range(12):
        both = [index(name, *below) for name in ("one", "other")]
        for data in both:
            now(contents.add(HERE, Digest.of(data), ContentKind.MANIFEST, data))
        below = (Digest.of(both[0]), Digest.of(both[1]))
    kept = ManifestStore(contents)
    held = now(kept.get(HERE, below[0]))
    assert held is not None
    contents.opens = 0
    assert not now(kept.is_complete(HERE, held))
    assert contents.opens == 24


def _digest(number: int) -> Digest:
    return Digest.parse(f"sha256:{number:064x}")


def _index(number: int) -> bytes:
    return json.dumps({"mediaType": OCI_INDEX, "manifests": [{"digest": str(_digest(number))}]}).encode()


def test_references_are_parsed_once() -> None:
    """Each digest has its own; other documents have none."""
    cache = ReferenceCache()
    references = cache.get(_digest(1), _index(11))
    assert references == parse_references(_index(11))
    assert cache.get(_digest(2), _index(12)) == parse_references(_index(12))
    assert cache.get(_digest(1), _index(11)) is references
    assert cache.get(_digest(3), b"{}") is None


def test_a_media_type_is_known_for_longer_than_references_are() -> None:
    """A client that asks for several large manifests in turn does not have them parsed each time."""
    cache = ReferenceCache(limit=1)
    for number in (1, 2):
        assert cache.media_type(_digest(number), _index(number)) == OCI_INDEX
    assert cache.media_type(_digest(1), b"not parsed") == OCI_INDEX
    assert cache.media_type(_digest(3), b"{}") is None


def test_any_manifest_has_room_for_its_references() -> None:
    """One of as many references as can be parsed is found again."""
    digests = (f'{{"digest":"{_digest(number)}"}}'.encode() for number in range(16_380))
    data = b'{"mediaType":"%b","manifests":[%b]}' % (OCI_INDEX.encode(), b",".join(digests))
    cache = ReferenceCache()
    references = cache.get(_digest(1), data)
    assert references is not None
    assert cache.get(_digest(1), data) is references


def test_the_least_recently_used_references_are_dropped() -> None:
    """An entry larger than the limit is not cached."""
    known = ReferenceCache(limit=4)
    first, second = known.get(_digest(1), _index(11)), known.get(_digest(2), _index(12))
    assert known.get(_digest(1), _index(11)) is first
    known.get(_digest(3), _index(13))
    assert known.get(_digest(1), _index(11)) is first
    assert known.get(_digest(2), _index(12)) is not second
    small = ReferenceCache(limit=1)
    assert small.get(_digest(1), _index(11)) is not small.get(_digest(1), _index(11))
