"""Reads of a repository beside the image itself, as the client would make them."""

from __future__ import annotations

import pytest
from zope.interface import implementer

from dockmirror.admission.policies import RepositoryReader
from dockmirror.body.bodies import NoBody
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.request import Manifest, Referrers, RegistryRequest, Tag
from dockmirror.oci.token import Credentials

from ..answering import now
from ..shelf import FOR_AMD, PLACE, Shelf

ALICE = Credentials.basic("alice", "s3cret")


@implementer(IRegistry)
class Below:
    """A registry that remembers credentials, and redirects for blobs or refuses all, as told."""

    def __init__(self, redirects: bool = False, refuses: bool = False) -> None:
        self.shelf = Shelf()
        self.credentials: set[Credentials | None] = set()
        self._redirects, self._refuses = redirects, refuses

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.credentials.add(request.credentials)
        if self._refuses:
            raise Denied
        if self._redirects and "/blobs/" in str(request.target):
            return Answer(NoBody(Descriptor()), 307, location="https://bucket.example/?signed")
        return await self.shelf.fetch(request)


def reader(below: Below, held: bytes | None = None) -> RepositoryReader:
    async def peek(digest: Digest, limit: int) -> bytes | None:
        return held

    request = RegistryRequest(Manifest(PLACE, Tag("latest")), credentials=ALICE)
    return RepositoryReader(below, PLACE, request, peek)


def test_it_reads_as_the_client() -> None:
    below = Below()
    assert now(reader(below).manifest(Digest.of(FOR_AMD))) == FOR_AMD
    assert now(reader(below).blob(Digest.of(b"base"), 10)) == b"base"
    assert below.credentials == {ALICE}


def test_absent_contents_are_none_and_other_errors_are_raised() -> None:
    assert now(reader(Below()).manifest(Tag("absent"))) is None
    assert now(reader(Below()).blob(Digest.of(b"absent"), 10)) is None
    assert now(reader(Below()).referrers(Digest.of(FOR_AMD))) == []
    with pytest.raises(Denied):
        now(reader(Below(refuses=True)).manifest(Tag("latest")))
    with pytest.raises(Unavailable, match="larger than 3 bytes"):
        now(reader(Below()).blob(Digest.of(b"base"), 3))


def test_a_blob_for_which_clients_are_redirected_is_read_from_the_store() -> None:
    digest = Digest.of(b"base")
    assert now(reader(Below(redirects=True), b"base").blob(digest, 10)) == b"base"
    for damaged in (None, b"bas"):
        with pytest.raises(Unavailable, match="cannot be read"):
            now(reader(Below(redirects=True), damaged).blob(digest, 10))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"manifests":[7]}', b'{"manifests":[{"digest":"x"}]}'])
def test_a_list_of_referrers_that_is_none(data: bytes) -> None:
    below = Below()
    below.shelf.contents[str(Referrers(PLACE, Digest.of(FOR_AMD)))] = data
    assert now(reader(below).referrers(Digest.of(FOR_AMD))) == []
