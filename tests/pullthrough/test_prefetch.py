"""Layers that are fetched before their client asks for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface import implementer

from dockmirror.interfaces import Answer, ContentKind, IRegistry, IStoredContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import TooManyRequests
from dockmirror.oci.header_fields import CacheResult
from dockmirror.oci.media import IMAGE_CONFIGS, OCI_MANIFEST
from dockmirror.oci.request import RegistryRequest, Repository
from dockmirror.pullthrough.error_tolerant_store import ErrorTolerantContentStore
from dockmirror.pullthrough.prefetch import (
    LIMIT_PAUSE,
    MAX_AHEAD,
    MAX_IDLE,
    MIN_JUDGED,
    WASTE_PERIOD,
    PrefetchBudget,
    PrefetchRegistry,
)
from dockmirror.system.shared_table import DIGESTS_SIZE, SharedDigests

from ..answering import Received
from ..shelf import described
from .mirrors import NAME, Mirror
from .origin import Origin, repository

CONFIG, LAYERS = b"configuration", [f"layer {number}".encode() * 100 for number in range(5)]


class SlowContents(ErrorTolerantContentStore):
    """A content store that opens contents once a test says so.

    :ivar opening: fires when contents are opened; fails if they cannot be.
    """

    opening: Deferred[None] | None = None

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        if self.opening is not None:
            await self.opening
        return await super().open(repository, digest, kind)


@implementer(IRegistry)
class RequestRecorder:
    """A registry that records the requests that pass it."""

    def __init__(self, registry: IRegistry) -> None:
        self.registry = registry
        self.requests: list[RegistryRequest] = []

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.requests.append(request)
        return await self.registry.fetch(request)


class Prefetching:
    """A mirror that prefetches, whose downloads complete when a test says so.

    :ivar contents: where the prefetch reads manifests.
    :ivar below: records the requests of clients and of the prefetch.
    :ivar counted: bytes that were prefetched, and wasted ones, of each pull.
    :ivar has_space: whether the cache takes more than clients ask for.
    """

    def __init__(self, origin: Origin, ahead: int = MAX_AHEAD) -> None:
        self.mirror = Mirror(origin)
        self.prefetched = SharedDigests(memoryview(bytearray(DIGESTS_SIZE)), self.mirror.clock.seconds)
        self.counted: list[tuple[int, int]] = []
        self.has_space = True
        clock, self.contents = self.mirror.clock, SlowContents(self.mirror.contents)
        self.below = RequestRecorder(self.mirror.registry)
        self.budget = PrefetchBudget(
            clock, 4, lambda: self.has_space, lambda *each: self.counted.append(each), ahead
        )
        self.mirror.registry = self.process(self.below)

    def process(self, below: IRegistry) -> PrefetchRegistry:
        """Return the registry of one more process of the mirror."""
        return PrefetchRegistry(
            below, self.contents, self.budget, self.mirror.clock, lambda name: repository(str(name)),
            self.prefetched,
        )  # fmt: skip

    def fetched(self) -> list[str]:
        """Complete the downloads, and return the layers that were fetched since the last call, by number."""
        names = {str(Digest.of(layer)): str(number) for number, layer in enumerate(LAYERS)}
        numbers: list[str] = []
        while lines := self.mirror.origin.take():
            numbers += [names.get(line.rpartition("/")[2], "-") for line in lines]
            self.mirror.store.downloads.finish()
        return [number for number in numbers if number != "-"]


def image(config_type: str = IMAGE_CONFIGS[0]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(CONFIG, config_type),
            "layers": [described(layer) for layer in LAYERS],
        }
    ).encode()


def begin(origin: Origin, name: str = NAME, who: str | None = None, config: str = IMAGE_CONFIGS[0]) -> str:
    """Publish the image, and return the path of its blobs."""
    shelf = origin.shelf(name, [who] if who else ["everybody"])
    shelf.blobs.update({Digest.of(data): data for data in (CONFIG, *LAYERS)})
    shelf.put(image(config), tag="latest")
    return f"{name}/blobs/"


def pull_layer(
    prefetching: Prefetching, path: str, number: int, who: str | None = None, **details: Any
) -> None:
    """Ask for the manifest, then for one layer, whose body is left unread."""
    mirror = prefetching.mirror
    mirror.get(path.replace("/blobs/", "/manifests/latest"), who)
    mirror.store.downloads.slow = True
    mirror.origin.take()
    mirror.ask(f"{path}{Digest.of(LAYERS[number])}", who, **details)


@pytest.mark.parametrize(("first", "expected"), [(0, "01234"), (2, "234"), (4, "4")])
def test_the_layers_behind_are_fetched_in_order(origin: Origin, first: int, expected: str) -> None:
    """Two at a time; the client has the earlier ones."""
    prefetching = Prefetching(origin)
    pull_layer(prefetching, begin(origin), first)
    assert len(origin.asked) == min(3, len(expected))
    assert "".join(prefetching.fetched()) == expected


def test_nothing_is_fetched_for_manifests_heads_ranges_and_configurations(origin: Origin) -> None:
    prefetching, path = Prefetching(origin), begin(origin)
    mirror, layer = prefetching.mirror, f"{path}{Digest.of(LAYERS[0])}"
    mirror.get(path.replace("/blobs/", "/manifests/latest"))
    mirror.get(f"{path}{Digest.of(CONFIG)}")
    mirror.ask(layer, head=True)
    assert prefetching.fetched() == ["0"]


@pytest.mark.parametrize(("is_peer", "expected"), [(True, "0"), (False, "01234")])
def test_nothing_is_fetched_behind_a_layer_that_a_peer_asks_for(
    origin: Origin, is_peer: bool, expected: str
) -> None:
    """It prefetches by itself; a mirror in front that is no peer is a client."""
    prefetching, path = Prefetching(origin), begin(origin)
    pull_layer(prefetching, path, 0, received=Received(is_from_peer=is_peer))
    assert "".join(prefetching.fetched()) == expected


def test_an_artifact_is_no_image(origin: Origin) -> None:
    prefetching = Prefetching(origin)
    pull_layer(prefetching, begin(origin, config="application/vnd.cncf.helm.config.v1+json"), 0)
    assert prefetching.fetched() == ["0"]


def test_a_layer_is_fetched_with_the_credentials_of_its_client(origin: Origin) -> None:
    prefetching = Prefetching(origin)
    pull_layer(prefetching, begin(origin, "me/private", "alice"), 0, "alice")
    assert {each.who for each in origin.asked} == {"alice"}


def test_held_layers_are_not_asked_for(origin: Origin) -> None:
    prefetching, path = Prefetching(origin), begin(origin)
    prefetching.mirror.get(f"{path}{Digest.of(LAYERS[2])}")
    pull_layer(prefetching, path, 0)
    assert prefetching.fetched() == ["0", "1", "3", "4"]


def test_one_transfer_serves_the_prefetch_and_its_client(origin: Origin) -> None:
    """The client joins it, and all that was prefetched was of use."""
    prefetching, path = Prefetching(origin), begin(origin)
    pull_layer(prefetching, path, 0)
    for layer in LAYERS[1:]:
        prefetching.mirror.ask(f"{path}{Digest.of(layer)}")
    assert prefetching.fetched() == ["0", "1", "2", "3", "4"]
    prefetching.mirror.clock.advance(1.0)
    assert prefetching.counted == [(sum(map(len, LAYERS[1:])), 0)]


def test_the_first_client_of_a_prefetched_layer_has_saved_nothing(origin: Origin) -> None:
    """Its bytes were fetched, whichever process it asks; later they come out of the cache.

    A HEAD says the same before, and changes nothing.
    """
    prefetching, path = Prefetching(origin), begin(origin)
    prefetching.mirror.get(f"{path}{Digest.of(LAYERS[4])}")
    pull_layer(prefetching, path, 0)
    prefetching.mirror.ask(f"{path}{Digest.of(LAYERS[1])}")
    prefetching.fetched()
    other = prefetching.mirror.restarted()
    other.registry = prefetching.process(other.registry)
    for number, mirror, first in (
        (1, prefetching.mirror, CacheResult.HIT),
        (2, prefetching.mirror, CacheResult.JOINED),
        (3, other, CacheResult.JOINED),
        (4, prefetching.mirror, CacheResult.HIT),
    ):
        layer = f"{path}{Digest.of(LAYERS[number])}"
        asked = [mirror.ask(layer, head=head).cache for head in (True, True, False, False, True)]
        results = [each and each.result for each in asked]
        assert results == [first, first, first, CacheResult.HIT, CacheResult.HIT], number


def test_a_layer_that_the_client_asks_for_counts_as_its_own(origin: Origin) -> None:
    """Two more are fetched ahead beside the layers that the client is sent, however many these are."""
    prefetching, path = Prefetching(origin), begin(origin)
    pull_layer(prefetching, path, 0)
    assert len(origin.asked) == 3
    prefetching.mirror.ask(f"{path}{Digest.of(LAYERS[1])}")
    assert len(origin.asked) == 4
    prefetching.mirror.ask(f"{path}{Digest.of(LAYERS[4])}")
    assert len(origin.asked) == 5
    assert prefetching.fetched() == ["0", "1", "2", "3", "4"]


def test_layers_asked_for_at_once_begin_one_prefetch(origin: Origin) -> None:
    """Docker asks for three layers at once, before the manifest has been read for the first of them."""
    prefetching, path = Prefetching(origin), begin(origin)
    mirror = prefetching.mirror
    mirror.get(path.replace("/blobs/", "/manifests/latest"))
    mirror.store.downloads.slow = True
    prefetching.contents.opening = Deferred()
    for layer in LAYERS[:3]:
        mirror.ask(f"{path}{Digest.of(layer)}")
    prefetching.contents.opening.callback(None)
    assert prefetching.fetched() == ["0", "1", "2", "3", "4"]
    for layer in LAYERS[3:]:
        mirror.ask(f"{path}{Digest.of(layer)}")
    mirror.clock.pump([1.0] * int(MAX_IDLE + 1))
    assert len(prefetching.counted) == 1
    assert prefetching.counted[0][1] == 0


def test_it_does_not_pass_on_the_http_request_of_its_client(origin: Origin) -> None:
    """The client's request may end before the transfers do."""
    prefetching, path = Prefetching(origin), begin(origin)
    mirror, received = prefetching.mirror, Received()
    mirror.get(path.replace("/blobs/", "/manifests/latest"))
    mirror.store.downloads.slow = True
    mirror.ask(f"{path}{Digest.of(LAYERS[0])}", received=received)
    assert prefetching.fetched() == ["0", "1", "2", "3", "4"]
    assert [each.received for each in prefetching.below.requests] == [None, received, *[None] * 4]


def test_a_failing_disk_only_ends_the_prefetching(origin: Origin) -> None:
    prefetching = Prefetching(origin)
    prefetching.contents.opening = fail(OSError("the disk fails"))
    with capturedLogs() as events:
        pull_layer(prefetching, begin(origin), 0)
    assert prefetching.fetched() == ["0"]
    assert [each for each in events if "log_failure" in each] == []
    assert [each["error"] for each in events if "error" in each] == ["the disk fails"]


def test_an_idle_client_ends_it(origin: Origin) -> None:
    """Whatever was fetched in vain is counted as waste."""
    prefetching = Prefetching(origin)
    pull_layer(prefetching, begin(origin), 0)
    origin.take()
    prefetching.mirror.clock.pump([1.0] * int(MAX_IDLE))
    prefetching.mirror.store.downloads.finish()
    assert origin.take() == []
    assert prefetching.counted == [(0, 0)]

    other = Prefetching(origin)
    pull_layer(other, begin(origin), 0)
    assert other.fetched()[:1] == ["0"]
    other.mirror.clock.pump([1.0] * int(MAX_IDLE))
    size = sum(len(layer) for layer in LAYERS[1:])
    assert other.counted == [(size, size)]


def test_so_much_is_fetched_ahead_and_no_more(origin: Origin) -> None:
    prefetching, path = Prefetching(origin, ahead=len(LAYERS[1])), begin(origin)
    pull_layer(prefetching, path, 0)
    assert prefetching.fetched() == ["0", "1", "2"]
    for number in (1, 2):
        prefetching.mirror.ask(f"{path}{Digest.of(LAYERS[number])}")
    assert prefetching.fetched() == ["3", "4"]


def test_the_upstreams_limit_ends_it(origin: Origin) -> None:
    """No prefetch begins for a while after a 429."""
    prefetching, path = Prefetching(origin), begin(origin)
    pull_layer(prefetching, path, 0)
    origin.trouble = TooManyRequests()
    assert prefetching.fetched() == ["0", "1", "2", "3"]
    assert not prefetching.budget.is_open()
    origin.trouble = None
    prefetching.mirror.clock.advance(LIMIT_PAUSE)
    assert prefetching.budget.is_open()


def test_the_budget() -> None:
    """It closes on waste, a limit, and a full disk, and opens again."""
    clock, counted, space = Clock(), [], [True]
    budget = PrefetchBudget(clock, 2, lambda: space[0], lambda *each: counted.append(each))
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.give_back()
    assert budget.take()

    budget.record(MIN_JUDGED - 1, MIN_JUDGED - 1)
    assert budget.is_open()
    budget.record(1, 0)
    assert not budget.is_open()
    clock.advance(WASTE_PERIOD)
    assert budget.is_open()
    budget.record(10 * MIN_JUDGED, MIN_JUDGED)
    assert budget.is_open()
    budget.record(1, 1)
    assert not budget.is_open()
    assert counted == [(MIN_JUDGED - 1, MIN_JUDGED - 1), (1, 0), (10 * MIN_JUDGED, MIN_JUDGED), (1, 1)]

    clock.advance(WASTE_PERIOD)
    budget.pause()
    assert not budget.is_open()
    clock.advance(LIMIT_PAUSE)
    assert budget.is_open()
    space[0] = False
    assert not budget.is_open()
