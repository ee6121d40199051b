"""Blobs on their way in: one fetch for many readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from dockmirror.content.verified import HOLD, Corrupt
from dockmirror.interfaces import IContents, IGrowth, IGrowths, ISource, Kind
from dockmirror.oci.consent import Held
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.ranges import ContentRange
from dockmirror.oci.reference import Repository
from dockmirror.status.values import Fetch
from dockmirror.store.growing.arrival import Arrival

from .upstream import BUSYBOX, Client, FileClient, Mirror, Source, Upstream, all_closed

DATA = os.urandom(1000 * 1000)
SIZE = len(DATA)
HALF = SIZE // 2
DESCRIPTOR = Descriptor("application/octet-stream", Digest.of(DATA), SIZE)
ALPINE = Repository("docker.io/library/alpine")


@pytest.fixture
def upstream() -> Upstream:
    """Has the blob."""
    return Upstream(DATA)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Holds nothing yet."""
    with all_closed(tmp_path):
        yield Mirror(tmp_path, DATA)


def part(first: int, last: int) -> ContentRange:
    """A part of the blob."""
    return ContentRange(first, last, SIZE)


class Restless(Client):
    """Pauses and resumes whenever it is written to."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        super().write(data)
        self.pause()
        self.resume()


class Logging(Client):
    """Notes its turns among others'."""

    def __init__(self, turns: list[Client]) -> None:
        super().__init__()
        self._turns = turns

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        super().write(data)
        self._turns.append(self)


class Leaving(Client):
    """Leaves when it is written to."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        super().write(data)
        self.leave()


class Failing(Client):
    """Fails when it is written to."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        raise ZeroDivisionError


class Told:
    """A reader that counts what it is told."""

    size: int | None = None
    entered = given = False

    def __init__(self) -> None:
        self.changes = 0

    @property
    def source(self) -> ISource:
        """See ``Reader``."""
        raise NotImplementedError

    def grant(self) -> None:
        """See ``Reader``."""

    def changed(self) -> None:
        """See ``Reader``."""
        self.changes += 1

    def fail(self, error: Exception) -> None:
        """See ``Reader``."""


class SlowCheck(Source):
    """Its upstream says only when the test lets it whether it would give the blob."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.answer: Deferred[None] = Deferred()

    async def check(self, held: Held) -> None:
        """See ``ISource``."""
        await self.answer
        await super().check(held)


def test_interfaces(mirror: Mirror, upstream: Upstream) -> None:
    """They are what they say."""
    growth = mirror.enter(Source(upstream))
    verifyObject(IGrowths, mirror.growths)
    verifyObject(IGrowth, growth)
    verifyObject(ISource, Source(upstream))
    verifyObject(IContents, mirror.contents)
    growth.leave()


def test_one_reader(mirror: Mirror, upstream: Upstream) -> None:
    """Gets each byte as it comes, but the last 64 KiB when all is right; then the blob is held and linked."""
    client = mirror.read(Source(upstream))
    upstream.body.send(1000)
    assert client.received == DATA[:1000]
    upstream.body.send()
    mirror.turn(times=10)
    assert client.received == DATA[: SIZE - HOLD]
    upstream.body.end()
    mirror.turn(times=2)
    assert (client.received, client.outcome) == (DATA, True)
    assert mirror.blob.read_bytes() == DATA
    assert mirror.contents.links == [(BUSYBOX, mirror.digest, Kind.BLOB)]
    assert os.listdir(mirror.part.parent) == []
    assert not mirror.growing
    assert (upstream.opens, upstream.checks, mirror.grown) == ([0], 0, SIZE)


@pytest.mark.parametrize("size", [0, 1, HOLD, HOLD + 1])
def test_small(tmp_path: Path, size: int) -> None:
    """What is no longer than what is held back is delivered only when it is right."""
    upstream, mirror = Upstream(DATA[:size]), Mirror(tmp_path, DATA[:size])
    client = mirror.read(Source(upstream))
    upstream.body.send()
    assert len(client.received) == max(0, size - HOLD)
    assert not client.outcome
    upstream.body.end()
    assert (client.received, client.outcome) == (DATA[:size], True)
    assert mirror.blob.read_bytes() == DATA[:size]


def test_joined(mirror: Mirror, upstream: Upstream) -> None:
    """Whoever comes later reads the same fetch from its beginning; all their repositories are linked."""
    first = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    source = Source(upstream)
    growth = mirror.enter(source, ALPINE)
    assert (growth.joined, growth.size, source.checks, source.opens) == (True, SIZE, 1, 0)
    second = Client().read(growth, DESCRIPTOR)
    assert second.received == DATA[: 256 * 1024]
    upstream.body.finish()
    mirror.turn(times=10)
    assert first.received == second.received == DATA
    assert upstream.opens == [0]
    assert {repository for repository, _, _ in mirror.contents.links} == {BUSYBOX, ALPINE}


def test_first_is_not_joined(mirror: Mirror, upstream: Upstream) -> None:
    """Whose own source began the fetch has joined nobody's, and need not be checked."""
    growth = mirror.enter(Source(upstream))
    assert not growth.joined
    assert upstream.checks == 0
    growth.leave()


def test_waits_for_the_size(mirror: Mirror, upstream: Upstream) -> None:
    """A join fires when the upstream has answered, for everybody."""
    upstream.opening = Deferred()
    joinings = [mirror.join(Source(upstream)) for _ in range(3)]
    assert [joining.growth for joining in joinings] == [None] * 3
    upstream.opening.callback(None)
    assert [joining.growth and joining.growth.size for joining in joinings] == [SIZE] * 3
    assert (upstream.opens, upstream.checks) == ([0], 2)
    for joining in joinings:
        assert joining.growth is not None
        joining.growth.leave()


def test_unknown_size(mirror: Mirror, upstream: Upstream) -> None:
    """Where the upstream does not tell the size, all are streamed to nevertheless, and know it at the end."""
    upstream.size = None
    growths = [mirror.enter(Source(upstream)) for _ in range(2)]
    assert [growth.size for growth in growths] == [None, None]
    assert growths[0].seconds_until(part(0, 1)) == float("inf")
    clients = [Client().read(growth, DESCRIPTOR) for growth in growths]
    upstream.body.send(HALF)
    mirror.turn(times=10)
    assert clients[0].received == clients[1].received == DATA[: HALF - HOLD]
    upstream.body.finish()
    mirror.turn(times=10)
    assert [client.received for client in clients] == [DATA, DATA]
    assert [client.outcome for client in clients] == [True, True]


def test_not_allowed_to_join(mirror: Mirror, upstream: Upstream) -> None:
    """Whose source does not grant it is told so alone, gets nothing, and links nothing."""
    first = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    joining = mirror.join(Source(upstream, Denied("no")), ALPINE)
    assert isinstance(joining.error, Denied)
    upstream.body.finish()
    mirror.turn(times=10)
    assert first.outcome is True
    assert [repository for repository, _, _ in mirror.contents.links] == [BUSYBOX]


def test_own_pace(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that pauses holds up neither the upstream nor the others, and misses nothing."""
    slow, fast = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    upstream.body.send(1000)
    slow.pause()
    upstream.body.finish()
    mirror.turn(times=10)
    assert (slow.received, fast.received) == (DATA[:1000], DATA)
    assert mirror.blob.exists()
    slow.resume()
    mirror.turn(times=10)
    assert (slow.received, slow.outcome) == (DATA, True)
    assert slow.written_while_paused == 0


def test_picky_reader(mirror: Mirror, upstream: Upstream) -> None:
    """One that pauses after each piece gets one piece each time it resumes, and no timer runs meanwhile."""
    client = mirror.read(Source(upstream), client=Client(picky=True))
    upstream.body.finish()
    while client.outcome is None:
        assert mirror.clock.getDelayedCalls() == []
        client.resume()
    assert client.received == DATA
    assert max(client.pieces) <= 256 * 1024
    assert client.written_while_paused == 0


def test_sent(mirror: Mirror, upstream: Upstream) -> None:
    """One that takes bytes of files is sent all of them behind the filler, the last when all is right."""
    client = FileClient()
    mirror.read(Source(upstream), client=client)
    upstream.body.send(1000)
    assert client.received == DATA[:1000]
    upstream.body.send()
    for _ in range(10):
        assert mirror.clock.getDelayedCalls() == []
        client.resume()
    assert client.received == DATA[: SIZE - HOLD]
    upstream.body.end()
    assert (client.received, client.sent, client.outcome) == (DATA, SIZE, True)
    assert client.written_while_paused == 0


def test_sent_a_part(mirror: Mirror, upstream: Upstream) -> None:
    """One that takes bytes of files is sent a part of the blob, too."""
    client = FileClient(room=SIZE)
    whole = mirror.read(Source(upstream))
    mirror.read(Source(upstream), part(HALF, HALF + 1000), client)
    upstream.body.send(HALF + 500)
    assert client.received == DATA[HALF : HALF + 500]
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA[HALF : HALF + 1001], True)
    assert (whole.received, client.sent) == (DATA, 1001)


def test_resumes_within_write(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that pauses and resumes while it is written to gets everything in its order."""
    client = mirror.read(Source(upstream), client=Restless())
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)


def test_turns_are_shared(mirror: Mirror, upstream: Upstream) -> None:
    """Readers of what is there already are given a piece each in turn."""
    turns: list[Client] = []
    clients = [mirror.read(Source(upstream), client=Logging(turns)) for _ in range(3)]
    for client in clients:
        client.pause()
    upstream.body.finish()
    for client in clients:
        client.resume()
    mirror.turn()
    assert [client.received for client in clients] == [DATA] * 3
    assert turns == clients * 4


def test_leaving(mirror: Mirror, upstream: Upstream) -> None:
    """The first reader's leaving ends nothing for the others."""
    first, second = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    upstream.body.send(1000)
    first.leave()
    assert isinstance(first.outcome, CancelledError)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (second.received, second.outcome) == (DATA, True)
    assert (first.received, upstream.opens) == (DATA[:1000], [0])


def test_leaving_before_the_answer(mirror: Mirror, upstream: Upstream) -> None:
    """The first reader's request goes on for the others."""
    upstream.opening = Deferred()
    first, second = mirror.join(Source(upstream)), mirror.join(Source(upstream))
    first.cancel()
    assert isinstance(first.error, CancelledError)
    upstream.opening.callback(None)
    assert second.growth is not None
    second.growth.leave()
    assert upstream.opens == [0]


def test_all_leave_before_the_answer(mirror: Mirror, upstream: Upstream) -> None:
    """The request is cancelled, and nothing is left behind."""
    upstream.opening = Deferred()
    joinings = [mirror.join(Source(upstream)) for _ in range(2)]
    for joining in joinings:
        joining.cancel()
    assert not mirror.growing
    assert os.listdir(mirror.part.parent) == []
    assert upstream.opening.called


def test_leaves_as_it_is_let_in(mirror: Mirror, upstream: Upstream) -> None:
    """What the upstream has just offered is given back."""
    upstream.opening = Deferred()
    joining = mirror.join(Source(upstream))
    joining.once(lambda growth: growth.leave())
    upstream.opening.callback(None)
    assert upstream.body.discarded
    assert not mirror.growing


def test_leaves_while_written_to(mirror: Mirror, upstream: Upstream) -> None:
    """A reader may go at any time."""
    leaving = Leaving()
    mirror.read(Source(upstream), client=leaving)
    staying = mirror.read(Source(upstream))
    upstream.body.send(10)
    assert isinstance(leaving.outcome, CancelledError)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (len(leaving.received), staying.received) == (10, DATA)


def test_consumer_that_fails(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer's failure is its own reader's."""
    failing, staying = mirror.read(Source(upstream), client=Failing()), mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert isinstance(failing.outcome, ZeroDivisionError)
    assert staying.received == DATA


def test_consumer_that_stops(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that takes nothing any more ends its delivery."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF + 1)
    assert client.producer is not None
    client.producer.stopProducing()
    assert isinstance(client.outcome, Unavailable)
    upstream.body.finish()


def test_forsaken(mirror: Mirror, upstream: Upstream) -> None:
    """With less than half there a fetch for nobody is stopped; the next reader's goes on with the part."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF - 1)
    client.leave()
    assert upstream.body.cancelled
    assert not mirror.growing
    assert mirror.part.read_bytes() == DATA[: HALF - 1]
    again = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert (again.received, again.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([0, HALF - 1], SIZE)


def test_finished_alone(mirror: Mirror, upstream: Upstream) -> None:
    """With half of it there a blob is finished although nobody reads it any more."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    client.leave()
    assert mirror.growing
    upstream.body.finish()
    assert mirror.blob.read_bytes() == DATA
    assert mirror.contents.links == [(BUSYBOX, mirror.digest, Kind.BLOB)]


def test_little_missing(tmp_path: Path, upstream: Upstream) -> None:
    """One of which little is missing is finished as well."""
    mirror = Mirror(tmp_path, DATA, finish=SIZE)
    client = mirror.read(Source(upstream))
    upstream.body.send(1)
    client.leave()
    upstream.body.finish()
    assert mirror.blob.read_bytes() == DATA


def test_at_most_four_alone(tmp_path: Path) -> None:
    """The fifth blob that nobody reads is stopped; one that is joined again does not count."""
    with all_closed(tmp_path):
        blobs = [DATA[:200000] + bytes([i]) for i in range(6)]
        mirrors = [Mirror(tmp_path, blob) for blob in blobs]
        for mirror in mirrors[1:]:
            mirror.growths = mirrors[0].growths
        upstreams = [Upstream(blob) for blob in blobs]
        for mirror, upstream in zip(mirrors[:5], upstreams[:5], strict=True):
            client = mirror.read(Source(upstream))
            upstream.body.send(150000)
            client.leave()
        assert [upstream.body.cancelled for upstream in upstreams[:5]] == [False] * 4 + [True]
        again = mirrors[0].read(Source(upstreams[0]))
        client = mirrors[5].read(Source(upstreams[5]))
        upstreams[5].body.send(150000)
        client.leave()
        assert not upstreams[5].body.cancelled
        for upstream in [*upstreams[:4], upstreams[5]]:
            upstream.body.finish()
        mirrors[0].turn(times=10)
        assert again.outcome is True


def test_part(mirror: Mirror, upstream: Upstream) -> None:
    """A range is read from the growing file as soon as it has come, before the rest has."""
    whole = mirror.read(Source(upstream))
    ranged = mirror.read(Source(upstream), part(1000, 1999))
    late = mirror.read(Source(upstream), part(HALF, HALF))
    upstream.body.send(1500)
    assert (ranged.received, ranged.outcome) == (DATA[1000:1500], None)
    upstream.body.send(1000)
    assert (ranged.received, ranged.outcome) == (DATA[1000:2000], True)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (late.received, late.outcome) == (DATA[HALF : HALF + 1], True)
    assert whole.received == DATA


def test_part_of_the_end(mirror: Mirror, upstream: Upstream) -> None:
    """What lies in the last 64 KiB waits until the whole is right."""
    client = mirror.read(Source(upstream), part(SIZE - HOLD - 10, SIZE - HOLD + 9))
    upstream.body.send()
    assert client.received == DATA[SIZE - HOLD - 10 : SIZE - HOLD]
    upstream.body.end()
    assert (client.received, client.outcome) == (DATA[SIZE - HOLD - 10 : SIZE - HOLD + 10], True)


def test_seconds_until(mirror: Mirror, upstream: Upstream) -> None:
    """How long a part takes is judged by the pace; the last 64 KiB come when all has."""
    growth = mirror.enter(Source(upstream))
    assert growth.seconds_until(part(0, 9)) == float("inf")
    mirror.turn(1)
    upstream.body.send(100000)
    assert growth.seconds_until(part(0, 99999)) == 0
    assert growth.seconds_until(part(0, 199999)) == 1
    assert growth.seconds_until(part(SIZE - HOLD, SIZE - HOLD)) == 9
    upstream.body.send()
    assert growth.seconds_until(part(0, SIZE - 1)) == 0
    upstream.body.end()
    assert growth.seconds_until(part(0, SIZE - 1)) == 0
    growth.leave()


def test_what_is_under_way(mirror: Mirror, upstream: Upstream) -> None:
    """Is told with its pace, and of whom it was given to, until it is there."""
    assert mirror.growths.under_way() == []
    mirror.read(Source(upstream))
    told = Fetch("docker.io", str(mirror.digest), ("docker.io/library/busybox",), 0, SIZE, None)
    assert mirror.growths.under_way() == [told]
    mirror.turn(2)
    upstream.body.send(100000)
    mirror.enter(Source(upstream), ALPINE).leave()
    names = ("docker.io/library/alpine", "docker.io/library/busybox")
    assert mirror.growths.under_way() == [evolve(told, repositories=names, held=100000, pace=50000.0)]
    upstream.body.finish()
    mirror.turn(times=10)
    assert mirror.growths.under_way() == []


def test_finished_meanwhile(mirror: Mirror, upstream: Upstream) -> None:
    """A blob that is held whole by now is read by those to whom the upstream grants it, and linked."""
    mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    refused = mirror.join(Source(upstream, Denied("no")), ALPINE)
    assert isinstance(refused.error, Denied)
    assert len(mirror.contents.links) == 1
    growth = mirror.enter(Source(upstream), ALPINE)
    assert (growth.joined, growth.size) == (True, SIZE)
    client = Client().read(growth, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.received, client.outcome, upstream.opens) == (DATA, True, [0])
    assert mirror.contents.links[1:] == [(ALPINE, mirror.digest, Kind.BLOB)]
    assert not mirror.part.exists()


def test_ends_while_the_upstream_is_asked(mirror: Mirror, upstream: Upstream) -> None:
    """Who is let in after the fetch has ended reads what has come, and its repository is linked."""
    mirror.read(Source(upstream))
    source = SlowCheck(upstream)
    joining = mirror.join(source, ALPINE)
    upstream.body.finish()
    mirror.turn(times=10)
    assert not mirror.growing
    assert [repository for repository, _, _ in mirror.contents.links] == [BUSYBOX]
    source.answer.callback(None)
    assert joining.growth is not None
    client = Client().read(joining.growth, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert [repository for repository, _, _ in mirror.contents.links] == [BUSYBOX, ALPINE]


def test_breaks_while_the_upstream_is_asked(mirror: Mirror, upstream: Upstream) -> None:
    """Who would have been let in is told what became of the fetch."""
    source = SlowCheck(upstream)
    first, joining = mirror.read(Source(upstream)), mirror.join(source)
    upstream.body.send_these(DATA + b"x")
    source.answer.callback(None)
    assert isinstance(first.outcome, Corrupt)
    assert isinstance(joining.error, Corrupt)


def test_registries_are_apart(mirror: Mirror, upstream: Upstream) -> None:
    """One registry's fetch is not joined by another's readers; what is finished serves all."""
    first = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    other = Upstream(DATA)
    joining = mirror.join(Source(other), Repository("ghcr.io/busybox"), "ghcr.io")
    assert joining.growth is not None
    assert not joining.growth.joined
    second = Client().read(joining.growth, DESCRIPTOR)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (first.outcome, second.received, other.opens) == (True, b"", [0])
    third = mirror.join(Source(upstream), Repository("quay.io/busybox"), "quay.io")
    assert third.growth is not None
    assert third.growth.joined
    third.growth.leave()
    other.body.finish()
    mirror.turn(times=10)
    assert (second.received, mirror.blob.read_bytes()) == (DATA, DATA)


def test_content_is_discarded(mirror: Mirror, upstream: Upstream) -> None:
    """A content that is not delivered is a reader who leaves."""
    mirror.enter(Source(upstream)).content(DESCRIPTOR, None).discard()
    assert upstream.body.cancelled
    assert not mirror.growing


def test_guesses_leave_nothing(mirror: Mirror, upstream: Upstream) -> None:
    """A digest that the upstream does not give leaves no file behind."""
    joining = mirror.join(Source(upstream, Denied("no")))
    assert isinstance(joining.error, Denied)
    assert os.listdir(mirror.part.parent) == []


def test_slow_readers_cost_nothing(mirror: Mirror) -> None:
    """Of more bytes only those readers are told who wait for some."""
    arrival = Arrival(mirror.clock, lambda: None)
    readers = [Told() for _ in range(3)]
    for reader in readers:
        arrival.add(reader)
    arrival.wait(readers[0])
    arrival.grew(10)
    arrival.grew(20)
    assert [reader.changes for reader in readers] == [1, 0, 0]
    arrival.answer(100)
    assert [reader.changes for reader in readers] == [2, 1, 1]
