"""The bucket gets the requests that docs/how-to/object-store.md lists, however many clients ask at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.interfaces import Answer, ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError
from dockmirror.oci.header_fields import Range
from dockmirror.oci.request import Repository, Tag
from dockmirror.pullthrough.authorization import PUBLIC_TTL
from dockmirror.pullthrough.generations import LOOK_UP_TTL
from dockmirror.store.bucket.bucket_stores import ABSENT_TTL
from dockmirror.store.bucket.tiered_store import ABSENT_TTL as DOCUMENT_ABSENT
from dockmirror.store.bucket.tiered_store import BUCKET_CHECK_INTERVAL, REFRESH_TTL
from dockmirror.store.downloads.context import DownloadContext
from dockmirror.store.downloads.downloads import Downloads

from ..answering import Recorder, now, watch
from ..bucket_table import row
from ..store.bucket.machines import Machine
from ..store.stocked import EPOCH
from ..store.threads import HeldThreads, inline
from .faulty import Faults
from .mirrors import TTL, Mirror, Store
from .origin import Origin, repository

CLIENTS = 20
NAME, OTHER = "library/busybox", "library/other"
LAYERS = b"configuration", bytes(range(256)) * 1024, b"layer" * 100_000
LARGE = LAYERS[1]
BLOB = {"path": f"{NAME}/blobs/{Digest.of(LARGE)}"}
PART: dict[str, Any] = {**BLOB, "range": Range.parse("bytes=5-9")}
HEAD, CONDITIONAL = {**BLOB, "head": True}, {**BLOB, "if_none_match": "*"}
TAG = {"path": f"{NAME}/manifests/latest"}


class MachineStore(Store):
    """The disk of a machine in front of the bucket, with real downloads."""

    def __init__(self, machine: Machine) -> None:
        self.contents = machine.contents  # type: ignore[assignment]
        self.tags, self.documents = machine.tags, machine.documents  # type: ignore[assignment]
        context = DownloadContext(machine.root, machine.contents, machine.clock, inline)
        self.downloads = Downloads(context)  # type: ignore[assignment]
        self.faults = Faults()


class Added:
    """A mirror that was added to one that has pulled and uploaded an image, with nothing on its disk.

    :ivar bucket: answers when nothing else can be done.
    """

    def __init__(self, directory: Path) -> None:
        self.origin, self.clock, self.bucket = Origin(), Clock(), HeldThreads()
        self.clock.advance(EPOCH)
        self.manifest = self.origin.shelf(NAME).publish(*LAYERS)
        self.origin.shelf(OTHER).publish(*LAYERS)
        store, roots = MemoryStore(), (directory / "first", directory / "added")
        for root in roots:
            root.mkdir()
        self.first = first = Machine(roots[0], store, self.clock)
        place, digest = repository(NAME), Digest.of(self.manifest)
        for layer in LAYERS:
            now(first.contents.add(place, Digest.of(layer), ContentKind.BLOB, layer))
        now(first.contents.add(place, digest, ContentKind.MANIFEST, self.manifest))
        now(first.tags.put(place, Tag("latest"), digest))
        now(first.documents.write(f"public/docker/{NAME}", str(EPOCH).encode()))
        assert first.upload() == 0
        self.clock.advance(BUCKET_CHECK_INTERVAL)
        self.machine = Machine(roots[1], store, self.clock, self.bucket)
        self.mirror = Mirror(self.origin, self.clock, MachineStore(self.machine), tag_ttl=TTL)

    def count(self, *asked: Mapping[str, Any]) -> Mapping[str, int]:
        """Return how often the bucket is asked for what all clients ask, one thing after the other.

        It is known that everybody may pull, and that nobody writes to the registry.
        """
        (age,) = set(self.outcomes(lambda: self.mirror.public.age(Repository(NAME))))
        assert isinstance(age, float)
        assert age < PUBLIC_TTL
        assert set(self.outcomes(lambda: self.mirror.deletions.may_exist("docker.io"))) == {False}
        self.machine.bucket.requests.clear()
        for each in asked:
            self.ask(**each)
        return dict(self.machine.bucket.requests)

    def ask(self, path: str, **details: Any) -> bytes:
        """Return the bytes that all clients get, which are the same."""
        recorders = []
        for answer in self.outcomes(lambda: self.mirror.registry.fetch(self.mirror.request(path, **details))):
            assert isinstance(answer, Answer)
            recorders.append((recorder := Recorder(), watch(answer.body.deliver(recorder))))
        self._settle()
        assert all(ended == [None] for _, ended in recorders)
        (data,) = {recorder.data for recorder, _ in recorders}
        return data

    def outcomes(self, ask: Callable[[], Coroutine[Any, Any, object]]) -> list[object]:
        """Return what comes of asking for all clients at once.

        :raises RegistryError: the first.
        """
        found = [watch(ask()) for _ in range(CLIENTS)]
        self._settle()
        for (each,) in found:
            if isinstance(each, BaseException):
                raise each
        return [each for (each,) in found]

    def _settle(self) -> None:
        self.clock.advance(0)
        while self.bucket.held:
            self.bucket.run()
            self.clock.advance(0)


@pytest.fixture
def added(tmp_path: Path) -> Added:
    return Added(tmp_path)


@row(
    "whether a registry is written to through another mirror",
    "one GET for each registry, once in ten minutes",
)
def test_written_to_elsewhere(added: Added) -> None:
    """One GET for all who ask at once, and none for ten minutes."""

    def count() -> Mapping[str, int]:
        added.machine.bucket.requests.clear()
        assert set(added.outcomes(lambda: added.mirror.deletions.may_exist("docker.io"))) == {False}
        return dict(added.machine.bucket.requests)

    assert [count(), count()] == [{"get": 1}, {}]
    added.clock.advance(LOOK_UP_TTL)
    assert count() == {"get": 1}


@row(
    "what is on the disk, within a tag's `tag_ttl`",
    "none",
)
def test_on_the_disk(added: Added) -> None:
    """Nothing is asked for what was brought there: in whole, in part, or just told of."""
    manifest = {"path": f"{NAME}/manifests/{Digest.of(added.manifest)}"}
    added.count(TAG, BLOB)
    assert added.count(manifest, BLOB, PART, HEAD, CONDITIONAL) == {}


@row(
    "a manifest that is not, and was put for this repository",
    "one GET",
)
def test_manifest(added: Added) -> None:
    """One GET."""
    manifest = {"path": f"{NAME}/manifests/{Digest.of(added.manifest)}"}
    assert added.count(manifest, manifest) == {"get": 1}
    assert added.ask(**manifest) == added.manifest


@row(
    "a blob that is not, and was put for this repository",
    "one HEAD and one GET",
)
def test_blob(added: Added) -> None:
    """One HEAD and one GET, whatever its size."""
    assert added.count(BLOB, BLOB) == {"head": 1, "get": 1}
    assert added.ask(**BLOB) == LARGE
    small = {"path": f"{NAME}/blobs/{Digest.of(LAYERS[0])}"}
    assert added.count(small, small) == {"head": 1, "get": 1}
    assert added.origin.take() == []


@row(
    "… a HEAD of it, or where clients are sent to the bucket",
    "one HEAD, none for the next ten minutes; one before a client is sent there if the bucket has not"
    " answered for 15 seconds",
)
def test_told_of(added: Added) -> None:
    """One HEAD: nothing is read."""
    assert added.count(HEAD, CONDITIONAL, HEAD) == {"head": 1}


@row(
    "… a range of it, while nobody fetches the whole",
    "one HEAD, and one GET for each range asked for",
)
def test_part(added: Added) -> None:
    """One GET for each who asks: of the part, and nothing else is read."""
    assert added.count(PART) == {"head": 1, "get": CLIENTS}
    assert added.ask(**PART) == LARGE[5:10]


@row(
    "… that was put for another repository",
    "one GET more, the first time in a day; one PUT once the upstream has said that this one has it, too",
)
def test_of_another_repository(added: Added) -> None:
    """One GET more, of the link, and a PUT where there is none; then it is known."""
    added.ask(f"{OTHER}/manifests/latest")
    other = {"path": BLOB["path"].replace(NAME, OTHER)}
    assert added.count(other, other) == {"head": 1, "get": 2, "put": 1}
    assert added.ask(**other) == LARGE


@row(
    "what the bucket does not have",
    "one HEAD of a blob or one GET of a manifest, none for the next ten seconds",
)
@pytest.mark.parametrize("kind", ["blobs", "manifests"])
def test_absent(added: Added, kind: str) -> None:
    """One HEAD or GET, however many ask, and none for some seconds."""
    path = f"{NAME}/{kind}/{Digest.of(b'nobody has this')}"

    def count() -> Mapping[str, int]:
        with pytest.raises(RegistryError):
            added.count({"path": path})
        return dict(added.machine.bucket.requests)

    once = {"head": 1} if kind == "blobs" else {"get": 1}
    assert [count(), count()] == [once, {}]
    added.clock.advance(ABSENT_TTL)
    assert count() == once


@row(
    "a tag that was confirmed more than a minute ago, or is not known",
    "one GET, at most once a minute",
)
@row(
    "… when the upstream is asked about it",
    "one HEAD for each blob of its image that is not on the disk, none for the next ten minutes",
)
def test_tag(added: Added) -> None:
    """One GET a minute; one HEAD for each blob that must be there if the upstream does not answer."""
    manifest = {"path": f"{NAME}/manifests/{Digest.of(added.manifest)}"}
    added.count(manifest)
    assert added.count({**TAG, "head": True}, TAG) == {"get": 1, "head": len(LAYERS)}
    assert set(added.origin.take()) == {f"nobody: HEAD {NAME}/manifests/latest"}
    added.clock.advance(BUCKET_CHECK_INTERVAL)
    assert added.count(TAG) == {"get": 1}


def test_moved_tag(added: Added) -> None:
    """The new manifest of a moved tag is read from the bucket, although the tag is not known yet."""
    added.count(TAG)
    shelf = added.origin.shelf(NAME)
    moved = shelf.publish(b"another configuration", *LAYERS[1:])
    now(added.first.contents.add(repository(NAME), Digest.of(moved), ContentKind.MANIFEST, moved))
    assert added.first.upload() == 0
    added.origin.take()
    added.clock.advance(TTL)
    assert added.ask(**TAG) == moved
    assert set(added.origin.take()) == {f"nobody: HEAD {NAME}/manifests/latest"}


@row(
    "a list, what is public",
    "one GET, at most once in ten minutes; where there is none, once a minute",
)
def test_document(added: Added) -> None:
    """One GET, and none for ten minutes; where there is none, none for one."""
    documents, requests = added.machine.documents, added.machine.bucket.requests
    for name, data, pause in (
        (f"public/docker/{NAME}", str(EPOCH).encode(), REFRESH_TTL),
        ("none", None, DOCUMENT_ABSENT),
    ):
        for _ in range(2):
            requests.clear()
            for _ in range(2):
                assert set(added.outcomes(partial(documents.read, name))) == {data}
            assert requests == {"get": 1}
            added.clock.advance(pause)
