"""Pushed blobs are stored when the upstream has accepted them and their digest is right."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.body.bodies import BytesBody, collect
from dockmirror.interfaces import ContentKind, IBody, IStagedUpload, IUploadStaging, IWritableRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUploadUnknown, Denied, RangeInvalid, RegistryError, Unreachable
from dockmirror.oci.request import Repository
from dockmirror.oci.write import Write, WriteResult, parse_write
from dockmirror.pullthrough.generations import Generations, TombstoneFilter, Tombstones
from dockmirror.pullthrough.write_through import PushCache
from dockmirror.upstream.registry_writer import LocationSigner

from ..answering import now
from ..store.memory import MemoryContents, MemoryDocuments

PLACE = Repository("docker.io/a")
DATA = b"0123456789"
DIGEST = Digest.of(DATA)


@implementer(IStagedUpload)
class MemoryCopy:
    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.full = False

    def write(self, data: bytes) -> None:
        self.data += data

    async def finish(self) -> int | None:
        return None if self.full else len(self.data)


@implementer(IUploadStaging)
class MemoryPushed:
    """Copies in a dictionary, which are then held.

    :ivar full: whether nothing is kept.
    :ivar meanwhile: called while a copy is kept.
    """

    def __init__(self, contents: MemoryContents) -> None:
        self.copies: dict[str, bytearray] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.full = False
        self._contents = contents

    async def open(self, name: str, offset: int) -> IStagedUpload | None:
        data = self.copies.setdefault(name, bytearray())
        del data[offset:]
        copy = MemoryCopy(data)
        copy.full = self.full
        return copy

    async def commit(self, name: str, digest: Digest) -> bool:
        data = bytes(self.copies.pop(name))
        self.meanwhile()
        if not digest.matches(data):
            return False
        self._contents.held[digest] = data
        return True

    async def drop(self, name: str) -> None:
        self.copies.pop(name, None)


@implementer(IWritableRegistry)
class Upstream:
    """Answers with these in turn, and remembers what it was sent.

    :ivar meanwhile: called before it answers.
    """

    def __init__(self, *answers: WriteResult | RegistryError) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self._answers = list(answers)

    async def write(self, write: Write, body: IBody) -> WriteResult:
        self.seen.append((str(write.target), await collect(body, 100)))
        self.meanwhile()
        answer = self._answers.pop(0)
        if isinstance(answer, RegistryError):
            raise answer
        return answer


class House:
    def __init__(self, *answers: WriteResult | RegistryError) -> None:
        self.contents = MemoryContents()
        self.pushed = MemoryPushed(self.contents)
        self.upstream = Upstream(*answers)
        clock, documents = Clock(), MemoryDocuments()
        self.deletions = Tombstones(documents, clock)
        self.deletions.expect("docker.io")
        changes = Generations("docker.io", documents, self.deletions, clock)
        contents = TombstoneFilter(self.contents, self.deletions, clock)
        self.writes = PushCache(
            self.upstream, changes, contents, self.pushed, LocationSigner([b"k" * 32], "copies")
        )

    def write(self, method: str, where: str, data: bytes = b"", digest: Digest | None = None) -> WriteResult:
        query = (("digest", str(digest)),) if digest else ()
        write = parse_write(method, f"/v2/a/{where}".encode(), query)
        return now(self.writes.write(write, BytesBody(data, Descriptor(size=len(data)))))

    @property
    def held(self) -> bool:
        return (PLACE, DIGEST, ContentKind.BLOB) in self.contents.links and DIGEST in self.contents.held


def goes_on(sealed: str = "s.1") -> WriteResult:
    return WriteResult(202, f"blobs/uploads/{sealed}")


DONE = WriteResult(201, f"blobs/{DIGEST}")
REPORTED = evolve(goes_on("s.2"), status=204, headers=(("Range", "0-3"),))


def at(written: WriteResult) -> str:
    """Return the location at which an upload continues."""
    assert written.location is not None
    return written.location


def refused_at(location: str, received: str) -> RangeInvalid:
    """Return a refusal of a chunk, with the part that the upstream has received."""
    error = RangeInvalid()
    error.location, error.range = location, received
    return error


@pytest.mark.parametrize(
    ("answers", "requests", "paths"),
    [
        ([DONE], ["POST 0123456789 digest"], ["/"]),
        ([goes_on(), DONE], ["POST", "PUT 0123456789 digest"], ["/", "/s.1"]),
        (
            [goes_on("s.1"), goes_on("s.2"), goes_on("s.3"), DONE],
            ["POST", "PATCH 0123", "PATCH 456789", "PUT digest"],
            ["/", "/s.1", "/s.2", "/s.3"],
        ),
        (  # a refused chunk is overwritten
            [goes_on(), goes_on(), refused_at("blobs/uploads/s.2", "0-3"), goes_on(), DONE],
            ["POST", "PATCH 0123", "PATCH wrong", "PATCH 456789", "PUT digest"],
            ["/", "/s.1", "/s.1", "/s.2", "/s.1"],
        ),
        (  # the reported length counts
            [goes_on(), goes_on(), REPORTED, goes_on(), DONE],
            ["POST", "PATCH 012345", "GET", "PATCH 456789", "PUT digest"],
            ["/", "/s.1", "/s.1", "/s.2", "/s.1"],
        ),
        (  # the client repeats a request that is redirected
            [goes_on(), WriteResult(307, "blobs/uploads/s.2"), DONE],
            ["POST", "PUT 0123456789 digest", "PUT 0123456789 digest"],
            ["/", "/s.1", "/s.2"],
        ),
    ],
)
def test_an_upload_is_stored(
    answers: list[WriteResult | RegistryError], requests: list[str], paths: list[str]
) -> None:
    """In one piece, in chunks, after a refused chunk, a status request, or a redirect."""
    house, location = House(*answers), "blobs/uploads/"
    for request in requests:
        method, *rest = request.split()
        digest = DIGEST if "digest" in rest else None
        data = "".join(part for part in rest if part != "digest").encode()
        try:
            location = at(house.write(method, location, data, digest))
        except RangeInvalid as error:
            location = error.location or ""
    assert house.held
    assert house.pushed.copies == {}
    assert [path.removeprefix("/v2/a/blobs/uploads") for path, _ in house.upstream.seen] == paths


@pytest.mark.parametrize("accepted", [Denied(), WriteResult(202)])
def test_a_blob_that_is_not_accepted_is_not_stored(accepted: WriteResult | RegistryError) -> None:
    house = House(accepted)
    with suppress(Denied):
        house.write("POST", "blobs/uploads/", DATA, DIGEST)
    assert not house.held
    assert len(house.pushed.copies) == isinstance(accepted, WriteResult)


def test_a_copy_is_kept_while_the_upload_may_continue() -> None:
    house = House(goes_on(), goes_on(), Unreachable(), BlobUploadUnknown())
    location = at(house.write("POST", "blobs/uploads/"))
    location = at(house.write("PATCH", location, DATA[:4]))
    for error, left in ((Unreachable, 1), (BlobUploadUnknown, 0)):
        with pytest.raises(error):
            house.write("PATCH", location, DATA[4:])
        assert len(house.pushed.copies) == left


def test_a_blob_with_a_wrong_digest_is_not_stored() -> None:
    house = House(DONE)
    house.write("POST", "blobs/uploads/", b"something else", DIGEST)
    assert DIGEST not in house.contents.held


def test_a_blob_that_cannot_be_copied_is_pushed() -> None:
    house = House(goes_on("s.1"), goes_on("s.2"), DONE)
    house.pushed.full = True
    location = at(house.write("POST", "blobs/uploads/"))
    location = at(house.write("PATCH", location, DATA))
    assert location == "blobs/uploads/s.2"
    assert house.write("PUT", location, digest=DIGEST) == DONE
    assert not house.held


def test_a_stored_blob_is_linked_when_it_is_mounted() -> None:
    house = House(DONE)
    house.contents.held[DIGEST] = DATA
    query = (("mount", str(DIGEST)), ("from", "b"))
    write = parse_write("POST", b"/v2/a/blobs/uploads/", query)
    now(house.writes.write(write, BytesBody(b"", Descriptor(size=0))))
    assert house.held


def test_a_cancelled_upload_leaves_no_copy() -> None:
    house = House(goes_on(), goes_on(), WriteResult(204))
    location = at(house.write("POST", "blobs/uploads/"))
    location = at(house.write("PATCH", location, DATA))
    assert house.pushed.copies
    house.write("DELETE", location)
    assert house.pushed.copies == {}


@pytest.mark.parametrize("name", ["f" * 32 + "-0.s.1", "x.y.s.1", "..s.1", "s.1.s.1"])
def test_names_that_clients_make_up(name: str) -> None:
    """Begin no copy: there are never more than uploads that the upstream has begun."""
    house = House(goes_on(), goes_on())
    location = at(house.write("POST", "blobs/uploads/"))
    house.write("PATCH", f"blobs/uploads/{name}", DATA)
    assert house.pushed.copies == {}
    assert house.upstream.seen[-1] == (f"/v2/a/blobs/uploads/{name}", DATA)
    assert location.count(".") == 3


def test_a_copy_of_another_repository_is_not_continued() -> None:
    house = House(goes_on(), goes_on())
    location = at(house.write("POST", "blobs/uploads/"))
    write = parse_write("PATCH", f"/v2/b/{location}".encode(), ())
    now(house.writes.write(write, BytesBody(DATA, Descriptor(size=len(DATA)))))
    assert house.pushed.copies == {}


class TestDeletedMeanwhile:
    def deletes(self, house: House) -> None:
        now(house.deletions.put(PLACE, DIGEST, ContentKind.BLOB))

    def test_before(self) -> None:
        """The push brings it back."""
        house = House(DONE)
        self.deletes(house)
        house.write("POST", "blobs/uploads/", DATA, DIGEST)
        assert house.held

    @pytest.mark.parametrize("held", [True, False])
    @pytest.mark.parametrize("before", [True, False])
    def test_while_it_is_taken(self, before: bool, held: bool) -> None:
        """The deletion stands, also where there was an earlier one."""
        house = House(DONE)
        if held:
            house.contents.held[DIGEST] = DATA
        if before:
            self.deletes(house)
        house.upstream.meanwhile = lambda: self.deletes(house)
        house.write("POST", "blobs/uploads/", DATA, DIGEST)
        assert not house.held
        assert now(house.deletions.find(PLACE, DIGEST, ContentKind.BLOB)) is not None

    def test_while_it_is_committed(self) -> None:
        """The deletion stays in force."""
        house = House(DONE)
        self.deletes(house)
        house.pushed.meanwhile = lambda: self.deletes(house)
        house.write("POST", "blobs/uploads/", DATA, DIGEST)
        assert not house.held
        assert now(house.deletions.find(PLACE, DIGEST, ContentKind.BLOB)) is not None
