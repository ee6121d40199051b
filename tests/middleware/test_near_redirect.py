"""Clients that are sent to a copy of the bucket near them."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore
from twisted.application.service import Service
from twisted.internet.task import Clock

from dockmirror.interfaces import Answer
from dockmirror.middleware.near_redirect import NearRedirect
from dockmirror.oci.digest import Digest
from dockmirror.oci.header_fields import Range
from dockmirror.oci.request import Repository, Requester
from dockmirror.store import layout
from dockmirror.store.bucket.bucket import HEALTHY_FOR, MAX_BACKOFF
from dockmirror.store.bucket.bucket_stores import BucketContentStore, NearBucket, NearBuckets
from dockmirror.system.networks import Address, Region

from ..answering import Received, now
from ..pullthrough.mirrors import NAME, Mirror, body, header
from ..pullthrough.origin import Origin
from ..store.bucket.machines import BucketThreads, SigningBucket, bucket

DATA = bytes(range(256)) * 1024
DIGEST = Digest.of(DATA)
PATH = f"{NAME}/blobs/{DIGEST}"
NEAR, FAR = "10.1.2.3", "203.0.113.9"
EU = Region("eu", (ip_network("10.1.0.0/16"),))
URL = "https://cdn.example/mirrors"


class Fleet:
    """A mirror that holds a public blob, and a copy near some clients, which has it, too."""

    def __init__(self, url: str | None = URL) -> None:
        self.origin, self.clock = Origin(), Clock()
        self.clock.advance(1_700_000_000.0)
        self.origin.shelf(NAME).publish(b"configuration", DATA)
        self.mirror = Mirror(self.origin, self.clock)
        self.mirror.pull(NAME)
        self.store, self.threads = MemoryStore(), BucketThreads()
        obstore.put(self.store, str(layout.data(DIGEST)), DATA)
        self.bucket = bucket(self.clock, self.store, self.threads, SigningBucket)
        self.redirects: list[tuple[str, str]] = []
        copy = NearBucket(EU, BucketContentStore(self.bucket, self.clock, 60.0), url)
        self.has_account = False
        self.registry = NearRedirect(
            self.mirror.registry, self._is_public, NearBuckets([copy], Service()).find, self._count
        )

    def _is_public(self, _: Repository) -> bool:
        return not self.has_account

    def _count(self, region: Region, address: Address) -> None:
        self.redirects.append((region.name, str(address)))

    def ask(
        self, client: str | None = NEAR, path: str = PATH, who: str | None = None, **details: Any
    ) -> Answer:
        received = None if client is None else Received(Requester(client))
        return now(self.registry.fetch(self.mirror.request(path, who, received=received, **details)))


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.mark.parametrize("url", [URL, None])
@pytest.mark.parametrize("asked", [{}, {"range": Range.parse("bytes=5-9")}])
def test_a_client_is_sent_to_the_copy_near_it(url: str | None, asked: dict[str, Any]) -> None:
    """To a CDN by the path of the blob, to a bucket by a signed address, which nobody may keep."""
    fleet = Fleet(url)
    answer = fleet.ask(**asked)
    assert (answer.status, body(answer)) == (307, b"")
    signed = f"https://bucket.example/{layout.data(DIGEST)}?signed"
    assert answer.location == (signed if url is None else f"{URL}/{layout.data(DIGEST)}")
    assert header(answer, "Cache-Control") == "no-store"
    assert header(answer, "Cache-Status") == "dockmirror; hit; detail=redirect"
    assert fleet.redirects == [("eu", NEAR)]


def test_the_copy_is_asked_once(fleet: Fleet) -> None:
    assert [fleet.ask().status for _ in range(9)] == [307] * 9
    assert fleet.bucket.requests == {"head": 1}


@pytest.mark.parametrize("client", [FAR, "2001:db8::1", "", None])
def test_other_clients_are_served_by_the_mirror(fleet: Fleet, client: str | None) -> None:
    """Among them those of a UNIX socket, and the mirror itself."""
    answer = fleet.ask(client)
    assert (answer.status, body(answer)) == (200, DATA)
    assert (fleet.redirects, fleet.bucket.requests) == ([], {})


def test_what_the_copy_lacks_is_served_by_the_mirror(fleet: Fleet) -> None:
    """As is what has another size there, such as a page in its place."""
    for data in (None, DATA[1:], DATA + b"?"):
        obstore.delete(fleet.store, [str(layout.data(DIGEST))])
        if data is not None:
            obstore.put(fleet.store, str(layout.data(DIGEST)), data)
        fleet.clock.advance(3600)
        assert fleet.ask().status == 200
        assert fleet.ask(range=Range.parse("bytes=5-9")).status == 206
    assert fleet.redirects == []


@pytest.mark.parametrize("url", [URL, None])
def test_nobody_is_sent_to_a_copy_that_fails(url: str | None) -> None:
    """Also if it had the blob a moment ago."""
    fleet = Fleet(url)
    assert fleet.ask().status == 307
    fleet.threads.down = True
    fleet.clock.advance(HEALTHY_FOR)
    assert [body(fleet.ask()) for _ in range(2)] == [DATA] * 2
    fleet.threads.down = False
    fleet.clock.advance(MAX_BACKOFF)
    assert fleet.ask().status == 307


def test_where_the_mirror_has_an_account_it_serves_by_itself(fleet: Fleet) -> None:
    """The copy's addresses are for everybody, and the account's content for the mirror's clients."""
    fleet.has_account = True
    assert (fleet.ask().status, fleet.redirects) == (200, [])


def test_heads_and_manifests_are_answered_by_the_mirror(fleet: Fleet) -> None:
    head = fleet.ask(head=True)
    assert (head.status, head.body.descriptor.size) == (200, len(DATA))
    assert fleet.ask(if_none_match="*").status == 304
    assert fleet.ask(path=f"{NAME}/manifests/latest").status == 200
    assert fleet.bucket.requests == {}


def test_private_blobs_are_given_by_the_mirror_alone(fleet: Fleet) -> None:
    """A copy that has their bytes changes nothing, neither for those who may have them nor for others."""
    fleet.origin.shelf("team/app", ["alice"]).publish(b"configuration", DATA)
    fleet.mirror.pull("team/app", "alice")
    path = f"team/app/blobs/{DIGEST}"
    answer = fleet.ask(path=path, who="alice")
    assert (answer.status, body(answer)) == (200, DATA)
    for who in (None, "bob"):
        with pytest.raises(Exception, match=r"(?i)denied|unauthorized|authentication"):
            fleet.ask(path=path, who=who)
    assert fleet.redirects == []


def test_what_the_cache_does_not_hold_is_fetched_once(fleet: Fleet) -> None:
    """So the copy grants nothing, and the mirror learns who may have the blob."""
    fleet.mirror.store.evict(DIGEST)
    assert body(fleet.ask()) == DATA
    assert fleet.redirects == []
    assert fleet.ask().status == 307
