"""Blobs that one address of an upstream gave wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.body.bodies import CorruptContent, json_body
from dockmirror.concurrency.backoff import FIRST
from dockmirror.interfaces import Answer, IRegistry, ISource, IUpstream
from dockmirror.middleware.failover import (
    QUARANTINE_TTL,
    CorruptBlobQuarantine,
    Quarantined,
)
from dockmirror.oci.consent import HeldBlob
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Unavailable, Unreachable
from dockmirror.oci.header_fields import ContentRange, Range
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.oci.token import Credentials, TokenRequest

from ..answering import FakeRegistry, Pieces, now
from ..store.downloads.upstream import Client, Mirror
from .test_failover import each_make

DATA, WRONG = random.Random(1).randbytes(200_000), random.Random(2).randbytes(200_000)
DIGEST = Digest.of(DATA)
BLOB = RegistryRequest(parse_target(f"/v2/library/nginx/blobs/{DIGEST}".encode()))
MANIFEST = RegistryRequest(parse_target(f"/v2/library/nginx/manifests/{DIGEST}".encode()))


@implementer(IUpstream)
class Address:
    """Has one blob, right or wrong.

    :ivar down: whether it cannot be reached.
    :ivar asked: how often it was asked.
    :ivar until: where it breaks off.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.down = False
        self.asked = 0
        self.until: int | None = None

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.asked += 1
        if self.down:
            raise Unreachable
        size, first = len(self.data), (request.range and request.range.spans[0].first) or 0
        error = None if self.until is None else Unreachable("it broke off")
        content = Pieces([self.data[first : self.until]], Descriptor(None, DIGEST, size - first), error)
        return Answer(content, 206, ContentRange(first, size - 1, size)) if first else Answer(content)

    async def token(self, request: TokenRequest) -> Answer:
        return Answer(json_body(b"{}"))


@implementer(ISource)
class Source:
    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def open(self, offset: int) -> Answer:
        return await self._registry.fetch(evolve(BLOB, range=Range.starting_at(offset) if offset else None))

    async def check(self, held: HeldBlob) -> None:
        pass


class Pulling:
    def __init__(self, root: Path, make: Callable[..., IRegistry], *addresses: Address) -> None:
        self.mirror = Mirror(root, DATA)
        clock = self.mirror.clock
        self.registry = make([CorruptBlobQuarantine(each, clock) for each in addresses], clock)

    def pull(self) -> object:
        """Return the blob that a client gets, or the error."""
        joining = self.mirror.join(Source(self.registry))
        if not joining.is_admitted:
            return joining.error
        client = Client().read(joining.reader, self.mirror.descriptor)
        self.mirror.turn(times=5)
        return client.data if client.outcome is True else client.outcome


@each_make
def test_a_blob_wrong_from_the_second_comes_from_the_first(
    tmp_path: Path, make: Callable[..., IRegistry]
) -> None:
    first, second = Address(DATA), Address(WRONG)
    first.down = True
    pulling = Pulling(tmp_path, make, first, second)
    assert isinstance(pulling.pull(), CorruptContent)
    first.down = False
    pulling.mirror.turn(FIRST)
    assert pulling.pull() == DATA
    assert second.asked == 1


@each_make
@pytest.mark.parametrize("right", [True, False])
def test_a_blob_wrong_from_the_first_comes_from_the_second(
    tmp_path: Path, make: Callable[..., IRegistry], right: bool
) -> None:
    """The next request gets it; if that is wrong, too, both are asked again after a minute."""
    first, second = Address(WRONG), Address(DATA if right else WRONG)
    pulling = Pulling(tmp_path, make, first, second)
    assert isinstance(pulling.pull(), CorruptContent)
    assert (pulling.pull() == DATA) is right
    assert (first.asked, second.asked) == (1, 1)
    if not right:
        assert isinstance(pulling.pull(), Quarantined)
        assert (first.asked, second.asked) == (1, 1)
        pulling.mirror.turn(QUARANTINE_TTL)
        first.data = DATA
        assert pulling.pull() == DATA


@each_make
def test_a_blob_from_two_addresses_quarantines_neither_beginning(
    tmp_path: Path, make: Callable[..., IRegistry]
) -> None:
    """The address that sent the beginning is asked again at once."""
    first, second = Address(DATA), Address(WRONG)
    first.until = len(DATA) // 2
    pulling = Pulling(tmp_path, make, first, second)
    reader = pulling.mirror.read(Source(pulling.registry))
    first.down = True
    pulling.mirror.turn(0.5, times=5)
    assert isinstance(reader.outcome, Unavailable)
    first.down, first.until = False, None
    pulling.mirror.turn(FIRST)
    assert pulling.pull() == DATA


def test_a_single_address_is_quarantined_for_a_minute(tmp_path: Path) -> None:
    address = Address(WRONG)
    pulling = Pulling(tmp_path, lambda registries, _: registries[0], address)
    assert isinstance(pulling.pull(), CorruptContent)
    assert isinstance(pulling.pull(), Quarantined)
    address.data = DATA
    pulling.mirror.turn(QUARANTINE_TTL - 1)
    assert isinstance(pulling.pull(), Quarantined)
    pulling.mirror.turn(1)
    assert pulling.pull() == DATA


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        (BLOB, True),
        (evolve(BLOB, credentials=Credentials.bearer("t")), True),
        (evolve(BLOB, range=Range.starting_at(0)), True),
        (evolve(BLOB, range=Range.starting_at(7)), True),
        (evolve(BLOB, range=Range.starting_at(7, 9)), False),
        (evolve(BLOB, head=True), False),
        (MANIFEST, False),
        (RegistryRequest(parse_target(f"/v2/library/nginx/blobs/{Digest.of(WRONG)}".encode())), False),
    ],
)
def test_only_the_wrong_blob_is_refused(request_: RegistryRequest, refused: bool) -> None:
    """Permission checks and other blobs are still asked for."""
    registry = FakeRegistry(Answer(Pieces([WRONG])), Answer(Pieces([WRONG])))
    quarantine = CorruptBlobQuarantine(registry, Clock())
    reject = now(quarantine.fetch(BLOB)).reject
    assert reject is not None
    reject(DIGEST)
    if refused:
        with pytest.raises(Quarantined):
            now(quarantine.fetch(request_))
    else:
        now(quarantine.fetch(request_))
        assert registry.requests == [BLOB, request_]


def test_tokens_are_not_quarantined() -> None:
    registry, request = FakeRegistry(), TokenRequest.parse([("account", "me")])
    now(CorruptBlobQuarantine(registry, Clock()).token(request))
    assert registry.token_requests == [request]
