"""Blobs on their way in from an upstream that breaks off, refuses, or lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from dockmirror.content.held import absent
from dockmirror.content.resumed import PAUSES
from dockmirror.content.verified import HOLD, Corrupt
from dockmirror.interfaces import Answer, Kind
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    Denied,
    RangeInvalid,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from dockmirror.oci.ranges import ContentRange
from dockmirror.oci.reference import Repository
from dockmirror.store.growing.means import Tally

from .upstream import BUSYBOX, Client, Mirror, Source, Upstream, all_closed

DATA = os.urandom(1000 * 1000)
WRONG = os.urandom(1000 * 1000)
SPOILT = DATA[:-1] + bytes([DATA[-1] ^ 1])
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


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def leave_part(mirror: Mirror, data: bytes, told: str | None = None) -> None:
    """What a process that was killed has left."""
    mirror.part.parent.mkdir(parents=True, exist_ok=True)
    mirror.part.write_bytes(data)
    if told is not None:
        mirror.part.with_name(mirror.part.name + ".size").write_text(told)


def part(first: int, last: int) -> ContentRange:
    """A part of the blob."""
    return ContentRange(first, last, SIZE)


class Slow(Source):
    """Is answered when the test says so."""

    def __init__(self, upstream: Upstream, refusal: RegistryError) -> None:
        super().__init__(upstream, refusal)
        self.answer: Deferred[None] = Deferred()

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        await self.answer
        return await super().open(offset)


class Answered(Source):
    """Is given this."""

    def __init__(self, upstream: Upstream, answer: Answer) -> None:
        super().__init__(upstream)
        self._answer = answer

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        return self._answer


class Broken(Source):
    """Has a mistake in it."""

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        raise ZeroDivisionError


def test_broken_off(mirror: Mirror, upstream: Upstream) -> None:
    """The fetch goes on from where it stopped, and no byte is asked for twice."""
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    for count in (1, 1000, HALF):
        upstream.body.send(count).break_off()
        mirror.turn(4)
    upstream.body.finish()
    mirror.turn(times=10)
    assert [client.received for client in clients] == [DATA, DATA]
    assert [client.outcome for client in clients] == [True, True]
    assert (upstream.opens, upstream.sent) == ([0, 1, 1001, 1001 + HALF], SIZE)
    assert mirror.growths.tally == Tally(kept=1, resumed=3)


def test_pauses_grow(mirror: Mirror, upstream: Upstream) -> None:
    """After five attempts more everybody is told; the part is kept."""
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    upstream.body.send(1000)
    upstream.down = True
    upstream.body.break_off()
    for attempts, pause in enumerate(PAUSES, 1):
        assert len(upstream.opens) == attempts
        mirror.turn(pause * 0.9)
        assert len(upstream.opens) == attempts + (pause == 0)
        mirror.turn(pause * 0.2)
    assert upstream.opens == [0] + [1000] * 5
    assert [type(client.outcome) for client in clients] == [Unreachable] * 2
    assert mirror.part.read_bytes() == DATA[:1000]
    assert not mirror.growing


def test_breaks_off_for_nobody(mirror: Mirror, upstream: Upstream) -> None:
    """Without a reader there is nobody's credentials to go on with."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    client.leave()
    upstream.body.break_off()
    mirror.turn(times=10)
    assert not mirror.growing
    assert (upstream.opens, len(mirror.part.read_bytes())) == ([0], HALF)


def test_leaves_during_the_pause(mirror: Mirror, upstream: Upstream) -> None:
    """Nothing is scheduled for nobody."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF).break_off()
    client.leave()
    assert mirror.clock.getDelayedCalls() == []
    assert not mirror.growing


def test_broken_off_at_the_end(mirror: Mirror, upstream: Upstream) -> None:
    """When all bytes are there it does not matter how the body ended."""
    client = mirror.read(Source(upstream))
    upstream.body.send().break_off()
    mirror.turn(times=10)
    assert (client.received, client.outcome, upstream.opens) == (DATA, True, [0])


def test_another_source(mirror: Mirror, upstream: Upstream) -> None:
    """When the first reader has gone the rest is asked for with the next one's path and credentials."""
    sources = [Source(upstream), Source(upstream)]
    first, second = [mirror.read(source) for source in sources]
    upstream.body.send(HALF)
    first.leave()
    upstream.body.break_off()
    mirror.turn()
    upstream.body.finish()
    mirror.turn(times=10)
    assert (second.received, second.outcome) == (DATA, True)
    assert [source.opens for source in sources] == [1, 1]


def test_refused_then(mirror: Mirror, upstream: Upstream) -> None:
    """A reader whose credentials have ended fails alone; the next one's source is used."""
    sources = [Source(upstream), Source(upstream)]
    first, second = [mirror.read(source) for source in sources]
    upstream.body.send(HALF)
    sources[0].refusal = Unauthorized()
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(first.outcome, Unauthorized)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (second.received, second.outcome, upstream.opens) == (DATA, True, [0, HALF])


@pytest.mark.parametrize("error", [TooManyRequests(), Unavailable(status=503)])
def test_out_of_order_for_a_while(mirror: Mirror, upstream: Upstream, error: RegistryError) -> None:
    """An upstream that gave the beginning and cannot go on just now is asked again after a pause."""
    source = Source(upstream)
    client = mirror.read(source)
    upstream.body.send(HALF)
    source.refusal = error
    upstream.body.break_off()
    mirror.turn()
    source.refusal = None
    mirror.turn(1.0, times=5)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)


def test_all_refused(mirror: Mirror, upstream: Upstream) -> None:
    """When none is left the part is kept for others."""
    source = Source(upstream)
    client = mirror.read(source)
    upstream.body.send(HALF)
    source.refusal = Denied()
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(client.outcome, Denied)
    assert mirror.part.read_bytes() == DATA[:HALF]
    assert not mirror.growing


def test_refused_first(mirror: Mirror, upstream: Upstream) -> None:
    """Whoever is refused at once is told so; the next one's source begins, which needs no other check."""
    refused = Slow(upstream, Denied())
    first = mirror.join(refused)
    second = mirror.join(Source(upstream), ALPINE)
    refused.answer.callback(None)
    assert isinstance(first.error, Denied)
    assert second.growth is not None
    client = Client().read(second.growth, DESCRIPTOR)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, upstream.checks) == (DATA, 0)
    assert [repository for repository, _, _ in mirror.contents.links] == [ALPINE]


def test_no_blob(mirror: Mirror, upstream: Upstream) -> None:
    """An answer without a blob is that reader's failure."""
    answer = Answer(absent(Descriptor()), 304, upstream_status=304)
    first, second = mirror.join(Answered(upstream, answer)), mirror.join(Source(upstream))
    assert isinstance(first.error, Unavailable)
    assert second.growth is not None
    second.growth.leave()


def test_source_that_breaks(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """A mistake of ours is logged, and everybody is told that there is nothing."""
    joining = mirror.join(Broken(upstream))
    assert isinstance(joining.error, Unavailable)
    assert "broke" in log[0]
    assert not mirror.growing


def test_down(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that gives no answer from the first is not waited for."""
    upstream.down = True
    joining = mirror.join(Source(upstream))
    assert isinstance(joining.error, Unreachable)
    assert (upstream.opens, os.listdir(mirror.part.parent)) == ([0], [])
    assert mirror.growths.tally == Tally(failed=1)


def test_timed_out(mirror: Mirror, upstream: Upstream) -> None:
    """Being slow is like breaking off."""
    source = Source(upstream)
    client = mirror.read(source)
    upstream.body.send(HALF).break_off()
    source.refusal = TimedOut()
    mirror.turn()
    source.refusal = None
    mirror.turn(1)
    upstream.body.finish()
    mirror.turn(times=10)
    assert client.received == DATA


def test_whole_for_a_range(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that knows no ranges sends the whole again, of which the beginning is passed over."""
    upstream.ranges = False
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF).break_off()
    mirror.turn()
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert mirror.blob.read_bytes() == DATA


@pytest.mark.parametrize(("lie", "value"), [("shift", 7), ("unsatisfied", True), ("rest_size", SIZE + 7)])
def test_cannot_go_on(mirror: Mirror, upstream: Upstream, lie: str, value: object) -> None:
    """Where the rest cannot be had it is fetched anew; only who was given nothing yet may read that."""
    client, late = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(HALF + 1, HALF + 9))
    upstream.body.send(HALF)
    setattr(upstream, lie, value)
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(client.outcome, Unavailable | RangeInvalid)
    assert (upstream.opens, late.outcome) == ([0, HALF, 0], None)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (late.received, late.outcome) == (DATA[HALF + 1 : HALF + 10], True)
    assert mirror.blob.read_bytes() == DATA


def test_never_ends(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that always breaks off and never goes on is given up."""
    upstream.unsatisfied = True
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    for _ in range(20):
        if upstream.running:
            upstream.body.send(HALF).break_off()
        mirror.turn(4)
    assert isinstance(late.outcome, Unavailable | RangeInvalid)
    assert len(upstream.opens) < 10


@pytest.mark.parametrize("bytes_sent", [WRONG, DATA[:-1], DATA + b"x", SPOILT, b""])
def test_wrong(mirror: Mirror, upstream: Upstream, log: list[str], bytes_sent: bytes) -> None:
    """Wrong bytes are never completed nor kept, and that registry's blob is left alone for a minute."""
    whole, early = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(0, 9))
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(bytes_sent).end()
    mirror.turn(times=10)
    assert isinstance(whole.outcome, Corrupt)
    assert whole.received == bytes_sent[: SIZE - HOLD][: len(whole.received)]
    assert (len(late.received), type(late.outcome)) == (0, Corrupt)
    assert early.outcome is True or isinstance(early.outcome, Corrupt)
    assert not mirror.blob.exists()
    assert os.listdir(mirror.part.parent) == []
    assert mirror.contents.links == []
    assert any("docker.io" in line and str(mirror.digest) in line for line in log)
    assert isinstance(mirror.join(Source(upstream)).error, Corrupt)
    assert upstream.opens == [0]
    assert mirror.growths.tally == Tally(wrong=1)
    mirror.turn(60)
    client = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert client.received == DATA


def test_a_clock_that_was_ahead(mirror: Mirror, upstream: Upstream) -> None:
    """Has a blob that came wrong left alone for no longer."""
    mirror.turn(3600)
    mirror.read(Source(upstream))
    upstream.body.send_these(WRONG).end()
    mirror.turn(times=10)
    mirror.clock.rightNow = 0.0
    client = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert client.received == DATA


def test_wrong_of_unknown_size(mirror: Mirror, upstream: Upstream) -> None:
    """What is wrong is as wrong where the size was not told."""
    upstream.size = None
    client = mirror.read(Source(upstream))
    upstream.body.send_these(DATA[:-1]).end()
    mirror.turn(times=10)
    assert isinstance(client.outcome, Corrupt)
    assert len(client.received) <= SIZE - 1 - HOLD


def test_too_long_is_cut_short(mirror: Mirror, upstream: Upstream) -> None:
    """No more is taken than was told."""
    client = mirror.read(Source(upstream))
    upstream.body.send_these(DATA + b"x")
    assert isinstance(client.outcome, Corrupt)
    assert upstream.body.cancelled


def test_wrong_after_a_resumption(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """What was fetched in parts and is wrong is fetched once more from the start before anybody is blamed."""
    client, late = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(WRONG[:HALF]).break_off()
    mirror.turn()
    upstream.body.finish()
    assert type(client.outcome) is Unavailable
    assert (upstream.opens, log) == ([0, HALF, 0], [])
    upstream.body.finish()
    mirror.turn(times=10)
    assert (late.received, late.outcome) == (DATA[-9:], True)
    assert mirror.blob.read_bytes() == DATA


def test_wrong_again(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """The second time the registry is to blame, however it was fetched."""
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    for _ in range(2):
        upstream.body.send_these(WRONG[:HALF]).break_off()
        mirror.turn(4)
        upstream.body.finish()
    assert isinstance(late.outcome, Corrupt)
    assert len(log) == 1
    assert not mirror.part.exists()
    assert isinstance(mirror.join(Source(upstream)).error, Corrupt)


def test_another_size_from_the_start(mirror: Mirror, upstream: Upstream) -> None:
    """A reader who was told another size cannot be served from the new file."""
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(WRONG[:HALF]).break_off()
    mirror.turn()
    upstream.size = SIZE + 1
    upstream.body.finish()
    assert isinstance(late.outcome, Unavailable)
    assert upstream.body.discarded
    assert not mirror.growing


@pytest.mark.parametrize("told", [None, f"{SIZE}\n", f"{SIZE}", "-\n", f"{SIZE}\nverified {SIZE}\n", "x\n"])
def test_after_a_kill(mirror: Mirror, upstream: Upstream, told: str | None) -> None:
    """The next one that is asked goes on from the part's length."""
    leave_part(mirror, DATA[:HALF], told)
    client = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([HALF], SIZE - HALF)
    assert mirror.blob.read_bytes() == DATA
    assert os.listdir(mirror.part.parent) == []


def test_served_before_the_upstream(mirror: Mirror, upstream: Upstream) -> None:
    """What is there is given to whom the upstream grants it, before the upstream sends a byte."""
    leave_part(mirror, DATA[:HALF], f"{SIZE}\n")
    upstream.opening = Deferred()
    refused = mirror.join(Source(upstream, Denied()))
    assert isinstance(refused.error, Denied)
    source = Source(upstream)
    client = mirror.read(source)
    mirror.turn(times=10)
    assert (client.received, source.checks) == (DATA[:HALF], 1)
    client.leave()
    assert len(mirror.part.read_bytes()) == HALF


def test_all_was_there(mirror: Mirror, upstream: Upstream) -> None:
    """A part that proves to be the whole needs no upstream."""
    leave_part(mirror, DATA)
    growth = mirror.enter(Source(upstream))
    assert growth.size == SIZE
    client = Client().read(growth, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.checks) == ([], 1)
    assert mirror.contents.links == [(BUSYBOX, mirror.digest, Kind.BLOB)]


@pytest.mark.parametrize("told", [None, f"{SIZE}\n"])
@pytest.mark.parametrize("length", [HALF, SIZE, SIZE + 1])
def test_wrong_part(
    mirror: Mirror, upstream: Upstream, log: list[str], length: int, told: str | None
) -> None:
    """A part that turns out wrong, or too long, is fetched from the start; nobody is blamed."""
    leave_part(mirror, (WRONG + b"x")[:length], told)
    joining = mirror.join(Source(upstream))
    late = joining.growth and Client().read(joining.growth, DESCRIPTOR, part(SIZE - 9, SIZE - 1))
    for _ in range(3):
        if upstream.running:
            upstream.running.finish()
        mirror.turn(times=10)
    if late:
        assert (late.received, late.outcome) == (DATA[-9:], True)
    assert mirror.blob.read_bytes() == DATA
    assert (upstream.opens[-1], log) == (0, [])


def test_given_of_a_wrong_part(mirror: Mirror, upstream: Upstream) -> None:
    """Who was given some of it is cut off, and not completed from the right one."""
    leave_part(mirror, WRONG[:HALF], f"{SIZE}\n")
    client = mirror.read(Source(upstream))
    mirror.turn(times=10)
    upstream.body.finish()
    assert client.received.startswith(WRONG[:HALF])
    assert isinstance(client.outcome, Unavailable)
    assert not mirror.growing
