"""Mirrors of one fleet: which of them a blob is fetched from, and when its registry is asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from dockmirror.body.bodies import BytesBody
from dockmirror.concurrency.backoff import FIRST
from dockmirror.interfaces import Answer
from dockmirror.middleware.failover import QUARANTINE_TTL, UpstreamAddress
from dockmirror.middleware.peers import PATIENCE, Peer, PeerFetch, rank_peers
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import (
    BlobUnknown,
    BrokenOff,
    Denied,
    RegistryError,
    TooManyRequests,
    Unreachable,
    Unsupported,
)
from dockmirror.oci.header_fields import Hop, Range
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.oci.token import Credentials

from ..answering import FakeRegistry, Feed, Pieces, Recorder, Scripted, now, run_behind, watch

ADDRESSES = [f"http://10.0.0.{number}:8080" for number in range(1, 6)]
DIGEST = Digest.of(b"a blob")
FIRST_PEER, SECOND_PEER, *_ = rank_peers(DIGEST, ADDRESSES)
NAMESPACE = "docker.io"
OTHER = next(
    digest
    for digest in map(Digest.of, map(str.encode, "abcdefgh"))
    if rank_peers(digest, [FIRST_PEER, SECOND_PEER])[0] == FIRST_PEER
)
"""Another blob of the first peer."""
USER = Credentials.basic("alice", "s3cret")
LOOP = Unsupported("loop", status=508, upstream_status=508)

addresses = st.lists(st.integers(0, 10_000).map("http://mirror-{}:8080".format), min_size=1, unique=True)
digests = st.binary(max_size=8).map(Digest.of)


def asked(path: str) -> RegistryRequest:
    return RegistryRequest(parse_target(f"/v2/{path}".encode()))


BLOB = asked(f"library/nginx/blobs/{DIGEST}")


def giving(text: bytes) -> Answer:
    return Answer(BytesBody(text, Descriptor(size=len(text))))


def named(request: RegistryRequest) -> RegistryRequest:
    """Return the request as a peer gets it."""
    return evolve(request, query=(("ns", NAMESPACE),))


@frozen
class Fleet:
    """A mirror that asks two peers, the first of which its blob ranks higher, and a registry.

    :ivar own_host: the first peer's own host.
    :ivar virtual_host: its virtual host.
    :ivar counted: the outcomes of requests, with the peer's address.
    """

    own_host: FakeRegistry
    virtual_host: FakeRegistry = field(factory=lambda: FakeRegistry(giving(b"virtual")))
    second: FakeRegistry = field(factory=lambda: FakeRegistry(giving(b"second")))
    registry: FakeRegistry = field(factory=lambda: FakeRegistry(giving(b"registry")))
    clock: Clock = field(factory=Clock)
    counted: Counter[str] = field(factory=Counter)
    fetch: PeerFetch = field(init=False)

    @fetch.default
    def _make(self) -> PeerFetch:
        peers = [
            self._peer(SECOND_PEER, self.second, self.second),
            self._peer(FIRST_PEER, self.own_host, self.virtual_host),
        ]
        return PeerFetch(self.registry, peers)

    def _peer(self, address: str, own_host: FakeRegistry, virtual_host: FakeRegistry) -> Peer:
        own, virtual = (UpstreamAddress(each, self.clock, PATIENCE) for each in (own_host, virtual_host))

        def count(outcome: str) -> None:
            self.counted[f"{address} {outcome}"] += 1

        return Peer(address, own, virtual, NAMESPACE, count, self.clock)

    def get(self, request: RegistryRequest = BLOB) -> int | None:
        """Return the size of the answer, which differs between the servers."""
        return now(self.fetch.fetch(request)).body.descriptor.size


def fleet(*answers: Scripted) -> Fleet:
    return Fleet(FakeRegistry(*answers))


@given(digests, addresses, st.randoms())
def test_the_rank_of_a_peer_does_not_depend_on_the_others(
    digest: Digest, listed: list[str], order: random.Random
) -> None:
    """A peer that comes or goes changes the order of no others, and neither does the order of the list."""
    ranked = rank_peers(digest, listed)
    gone = order.choice(listed)
    order.shuffle(listed)
    assert rank_peers(digest, [each for each in listed if each != gone]) == [
        each for each in ranked if each != gone
    ]


def test_each_peer_is_the_first_for_an_equal_share() -> None:
    firsts = Counter(rank_peers(Digest.of(b"%d" % number), ADDRESSES)[0] for number in range(5000))
    assert all(900 < firsts[address] < 1100 for address in ADDRESSES)


def test_a_blob_is_fetched_from_the_first_peer() -> None:
    """Its own host is asked as a client without credentials asks."""
    mirrors = fleet(giving(b"first"))
    assert mirrors.get() == len(b"first")
    assert mirrors.own_host.requests == [named(BLOB)]
    assert not mirrors.second.requests + mirrors.registry.requests + mirrors.virtual_host.requests
    assert mirrors.counted == {f"{FIRST_PEER} answered": 1}


def test_the_credentials_of_a_client_go_to_the_virtual_host() -> None:
    mirrors = fleet(giving(b"first"))
    request = evolve(BLOB, credentials=USER, range=Range.starting_at(5))
    assert mirrors.get(request) == len(b"virtual")
    assert mirrors.virtual_host.requests == [named(request)]
    assert not mirrors.own_host.requests


@pytest.mark.parametrize(
    "request_",
    [
        evolve(BLOB, head=True),
        *(asked(path) for path in ("", "_catalog", "a/manifests/latest", "a/tags/list")),
        asked(f"a/manifests/{DIGEST}"),
    ],
    ids=str,
)
def test_only_the_bytes_of_blobs_come_from_peers(request_: RegistryRequest) -> None:
    mirrors = fleet(giving(b"first"))
    assert mirrors.get(request_) == len(b"registry")
    assert not mirrors.own_host.requests


@pytest.mark.parametrize(
    "refusal",
    [Unreachable("down"), Denied("no"), BlobUnknown("none"), TooManyRequests("enough")],
    ids=lambda error: type(error).__name__,
)
def test_what_a_peer_refuses_is_fetched_from_the_registry(refusal: RegistryError) -> None:
    mirrors = fleet(refusal)
    assert mirrors.get() == len(b"registry")
    assert not mirrors.second.requests
    assert mirrors.counted == {f"{FIRST_PEER} failed": 1}


def test_the_next_peer_takes_the_place_of_one_that_is_down() -> None:
    """After a pause the first one is asked again."""
    mirrors = fleet(Unreachable("down"), giving(b"first"))
    sizes = [mirrors.get(), mirrors.get()]
    mirrors.clock.advance(FIRST)
    assert [*sizes, mirrors.get()] == [len(b"registry"), len(b"second"), len(b"first")]


def test_a_peer_that_refuses_one_blob_is_asked_for_others() -> None:
    mirrors = fleet(BlobUnknown("none"), giving(b"first"))
    assert [mirrors.get(), mirrors.get()] == [len(b"registry"), len(b"first")]


def test_a_silent_peer_is_not_waited_for() -> None:
    """Its request is cancelled, and for a while it is asked nothing."""
    cancelled: list[object] = []
    mirrors = fleet(Deferred(cancelled.append))
    outcome = watch(mirrors.fetch.fetch(BLOB))
    mirrors.clock.advance(PATIENCE - 0.1)
    assert (outcome, cancelled) == ([], [])
    mirrors.clock.advance(0.2)
    (answer,) = outcome
    assert isinstance(answer, Answer)
    assert answer.body.descriptor.size == len(b"registry")
    assert len(cancelled) == 1
    assert mirrors.get() == len(b"second")


def test_a_request_that_nobody_wants_any_more_is_cancelled_at_the_peer() -> None:
    cancelled: list[object] = []
    mirrors = fleet(Deferred(cancelled.append))
    fetching = Deferred.fromCoroutine(mirrors.fetch.fetch(BLOB))
    watch(fetching)
    fetching.cancel()
    assert len(cancelled) == 1
    assert not mirrors.registry.requests


def test_the_error_of_the_registry_counts() -> None:
    mirrors = Fleet(FakeRegistry(Unreachable("the peer")), registry=FakeRegistry(Unreachable("the registry")))
    with pytest.raises(Unreachable, match="the registry"):
        mirrors.get()


def test_a_peer_that_refuses_what_the_registry_gives_is_logged_once() -> None:
    """And again after it has given something; not if the registry refuses as well."""
    mirrors = fleet(
        Denied("other networks"), Denied("again"), giving(b"first"), Denied("later"), Denied("no")
    )
    with capturedLogs() as lines:
        for _ in range(4):
            mirrors.get()
    messages = [formatEvent(each) for each in lines]
    assert messages == [
        f"the peer {FIRST_PEER} gives no blobs: {each}" for each in ("other networks", "later")
    ]
    refusing = Fleet(FakeRegistry(Denied("no")), registry=FakeRegistry(Denied("private")))
    with capturedLogs() as lines, pytest.raises(Denied, match="private"):
        refusing.get()
    assert not lines


def test_a_mirror_learns_which_peer_it_is_itself() -> None:
    """Its own request comes back as a loop, once; what it is the first for comes from the registry."""
    mirrors = fleet(LOOP)
    assert [mirrors.get(), mirrors.get(), mirrors.get(evolve(BLOB, credentials=USER))] == [
        len(b"registry")
    ] * 3
    assert len(mirrors.own_host.requests) == 1
    assert not mirrors.second.requests + mirrors.virtual_host.requests
    assert not mirrors.counted


def test_a_mirror_that_a_peer_asks_asks_the_registry() -> None:
    """Else mirrors whose lists differ could wait for each other; a mirror of another fleet is a client."""
    mirrors = fleet(giving(b"first"))
    asked_by_peer, asked_by_client = Hop("a" * 32, "", is_peer=True), Hop("b" * 32)
    sizes = [run_behind(hops, mirrors.get) for hops in ((asked_by_peer,), (asked_by_peer, asked_by_client))]
    assert sizes == [len(b"registry"), len(b"first")]


@pytest.mark.parametrize("span", [None, Range.starting_at(2), Range.starting_at(2, 3)], ids=str)
def test_the_rest_of_a_blob_that_a_peer_breaks_off_comes_from_the_registry(span: Range | None) -> None:
    """For a minute; other blobs come from the peer."""
    other = asked(f"library/nginx/blobs/{OTHER}")
    mirrors = fleet(Answer(Pieces([b"fi"], error=BrokenOff("closed"))), giving(b"first"))
    answer = now(mirrors.fetch.fetch(BLOB))
    with pytest.raises(BrokenOff):
        now(answer.body.deliver(Recorder()))
    sizes = [mirrors.get(evolve(BLOB, range=span)), mirrors.get(other)]
    mirrors.clock.advance(QUARANTINE_TTL)
    assert [*sizes, mirrors.get()] == [len(b"registry"), len(b"first"), len(b"first")]


def test_a_client_that_leaves_is_no_failure_of_the_peer() -> None:
    mirrors = fleet(Answer(Feed()), giving(b"first"))
    delivery = now(mirrors.fetch.fetch(BLOB)).body.deliver(Recorder())
    watch(delivery)
    delivery.cancel()
    assert mirrors.get() == len(b"first")


def test_the_rest_of_a_blob_that_is_rejected_comes_from_the_registry() -> None:
    mirrors = fleet(giving(b"wrong"), giving(b"first"))
    reject = now(mirrors.fetch.fetch(BLOB)).reject
    assert reject is not None
    reject(DIGEST)
    assert mirrors.get() == len(b"registry")


def test_the_entity_tag_of_a_peer_says_nothing_about_the_answers_of_the_registry() -> None:
    """Blocks of a blob come from both; the registry's store has entity tags of its own."""
    mirrors = fleet(evolve(giving(b"first"), headers=(("ETag", '"sha256:aa"'), ("Warning", "299 - x"))))
    answer = now(mirrors.fetch.fetch(BLOB))
    assert answer.headers == (("Warning", "299 - x"),)
    assert answer.from_other_host
