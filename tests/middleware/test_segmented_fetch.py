"""Large blobs by several connections."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.body.bodies import NoBody, json_body
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.middleware.blob_fetch import SINGLE_CONNECTION_TTL, FixedSegments, SegmentedFetch
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied, RegistryError, TooManyRequests, Unreachable
from dockmirror.oci.header_fields import ContentRange, Range
from dockmirror.oci.request import Blob, Manifest, Ping, RegistryRequest, Repository, Tag, Tags, Target
from dockmirror.oci.token import Credentials

from ..answering import FakeRegistry, Feed, Pieces, Recorder, now, watch

DATA = bytes(range(60))
SIZE = len(DATA)
PIECE = 10
REPOSITORY = Repository("x/y")
BLOB = Blob(REPOSITORY, Digest.of(DATA))
REQUEST = RegistryRequest(BLOB, accept=("a/b",), if_none_match='"x"', credentials=Credentials.bearer("t"))


def given(asked: Range | None) -> Answer:
    """Return the blob, or the requested part of it, in pieces of four bytes."""
    part = asked.resolve(SIZE)[0] if asked else None
    data = DATA[part.first : part.last + 1] if part else DATA
    content = Pieces([data[n : n + 4] for n in range(0, len(data), 4)], Descriptor("a/b", None, len(data)))
    status = 206 if part else 200
    return Answer(content, status, part, upstream_status=status)


@implementer(IRegistry)
class Upstream:
    """Has one blob.

    :ivar requests: what was asked.
    :ivar says: what it answers to a request for a part that ends before the blob does; the part if None.
    :ivar there: what it gives along as the way to ask where it has sent on to.
    """

    def __init__(self) -> None:
        self.requests: list[RegistryRequest] = []
        self.says: Answer | RegistryError | None = None
        self.there: Callable[[Range], Coroutine[Any, Any, Answer]] | None = None

    @property
    def ranges(self) -> list[str]:
        return [str(request.range) for request in self.requests]

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.requests.append(request)
        ends = request.range is None or request.range.spans[0].last is None
        if ends or self.says is None:
            return evolve(given(request.range), open_range=self.there)
        if isinstance(self.says, RegistryError):
            raise self.says
        return self.says


class Address:
    """A host that an upstream redirects to.

    :ivar trouble: what it says instead of giving parts.
    """

    def __init__(self, trouble: RegistryError | None = None) -> None:
        self.ranges: list[str] = []
        self.trouble = trouble

    async def __call__(self, wanted: Range) -> Answer:
        self.ranges.append(str(wanted))
        if self.trouble is not None:
            raise self.trouble
        return given(wanted)


PARTS = [f"bytes={first}-{first + 9}" for first in range(10, 60, 10)]


def in_segments(registry: IRegistry, clock: Clock | None = None) -> SegmentedFetch:
    return SegmentedFetch(registry, FixedSegments(3), clock or Clock(), PIECE)


def delivered(registry: SegmentedFetch, request: RegistryRequest = REQUEST) -> tuple[Answer, bytes]:
    recorder = Recorder()
    answer = now(registry.fetch(request))
    assert watch(answer.body.deliver(recorder)) == [None]
    return answer, recorder.data


def test_a_blob_is_fetched_in_segments() -> None:
    """After its beginning, with the same credentials and without conditions; the answer is unchanged."""
    upstream = Upstream()
    answer, data = delivered(in_segments(upstream))
    assert (answer.status, answer.content_range, answer.body.descriptor) == (
        200,
        None,
        Descriptor("a/b", None, SIZE),
    )
    assert (data, upstream.ranges) == (DATA, ["None", *PARTS])
    assert upstream.requests[0] == REQUEST
    assert upstream.requests[1] == evolve(REQUEST, if_none_match=None, range=Range.starting_at(10, 19))


def test_the_rest_of_a_resumed_blob_is_fetched_in_segments() -> None:
    upstream = Upstream()
    answer, data = delivered(in_segments(upstream), evolve(REQUEST, range=Range.starting_at(25)))
    assert (answer.status, answer.content_range) == (206, ContentRange(25, 59, 60))
    assert (data, upstream.ranges) == (DATA[25:], ["bytes=25-", "bytes=35-44", "bytes=45-54", "bytes=55-59"])


@pytest.mark.parametrize(
    "request_",
    [evolve(REQUEST, range=Range.starting_at(41)), evolve(REQUEST, range=Range.starting_at(20, 50))],
)
def test_short_blobs_and_inner_ranges_are_not_segmented(request_: RegistryRequest) -> None:
    upstream = Upstream()
    delivered(in_segments(upstream), request_)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("target", "head", "answer"),
    [
        (Ping(), False, Answer(json_body(b"{}"))),
        (Tags(REPOSITORY), False, Answer(json_body(bytes(100)))),
        (Manifest(REPOSITORY, Tag("latest")), False, Answer(json_body(bytes(100)))),
        (BLOB, True, Answer(NoBody(Descriptor(size=100)))),
        (BLOB, False, Answer(NoBody(Descriptor(size=100)), 304)),
        (BLOB, False, Answer(Pieces([DATA]))),
        (BLOB, False, Answer(Pieces([b""], Descriptor(size=0)))),
        (BLOB, False, Answer(Pieces([DATA]), 206)),
        (BLOB, False, Answer(Pieces([DATA]), 206, ContentRange(0, 59, None))),
        (BLOB, False, Answer(Pieces([DATA[10:]]), 206, ContentRange(10, 59, 60), upstream_status=200)),
    ],
)
def test_other_answers_are_passed_on(target: Target, head: bool, answer: Answer) -> None:
    """Also a blob of unknown size, and one sent completely in answer to a range."""
    assert now(in_segments(FakeRegistry(answer)).fetch(RegistryRequest(target, head=head))) is answer


@pytest.mark.parametrize(
    ("status", "part", "upstream_status"),
    [
        (200, None, 200),
        (206, ContentRange(10, 19, 60), 200),
        (206, ContentRange(10, 18, 60), 206),
        (206, ContentRange(0, 9, 60), 206),
        (206, ContentRange(10, 19, 61), 206),
        (206, None, 206),
    ],
)
def test_without_ranges_a_blob_comes_over_one_connection(
    status: int, part: ContentRange | None, upstream_status: int
) -> None:
    """A segment's answer is discarded unread, and nothing more is fetched."""
    upstream, other = Upstream(), Feed()
    upstream.says = Answer(other, status, part, upstream_status=upstream_status)
    _, data = delivered(in_segments(upstream))
    assert (data, other.state, upstream.ranges) == (DATA, "discarded", ["None", "bytes=10-19"])


def test_a_segment_from_another_address_is_refused() -> None:
    """If the blob proves wrong, it must be known which address sent it."""
    upstream = Upstream()
    upstream.says = evolve(given(Range.starting_at(10, 19)), reject=lambda _: None)
    _, data = delivered(in_segments(upstream))
    assert (data, upstream.ranges) == (DATA, ["None", "bytes=10-19"])


def test_a_segment_may_have_an_unknown_size() -> None:
    """``*`` is accepted, and surplus bytes are cut off."""
    upstream = Upstream()
    upstream.says = Answer(Pieces([DATA[10:30]]), 206, ContentRange(10, 19, None))
    recorder = Recorder()
    now(in_segments(upstream).fetch(REQUEST)).body.deliver(recorder).addErrback(lambda _: None)
    assert recorder.data == DATA[:20]


def test_a_blob_fetched_again_comes_over_one_connection() -> None:
    """For a while: it may have been wrong because of its segments."""
    upstream, clock = Upstream(), Clock()
    registry = in_segments(upstream, clock)
    for wait, count in ((0, 6), (SINGLE_CONNECTION_TTL - 1, 1), (1, 6)):
        clock.advance(wait)
        upstream.requests.clear()
        assert delivered(registry)[1] == DATA
        assert len(upstream.requests) == count
    upstream.requests.clear()
    delivered(registry, evolve(REQUEST, range=Range.starting_at(10)))
    assert len(upstream.requests) == 5


class TestElsewhere:
    """Blobs that the registry redirects to another host."""

    def test_segments_are_fetched_there(self) -> None:
        """The registry is asked once."""
        upstream = Upstream()
        upstream.there = there = Address()
        assert delivered(in_segments(upstream))[1] == DATA
        assert (upstream.ranges, there.ranges) == (["None"], PARTS)

    def test_an_expired_address_is_replaced(self) -> None:
        """The registry names another, which is used from then on."""
        upstream = Upstream()
        upstream.there = first = Address(Denied())
        answer = now(in_segments(upstream).fetch(REQUEST))
        upstream.there = second = Address()
        recorder = Recorder()
        assert watch(answer.body.deliver(recorder)) == [None]
        assert recorder.data == DATA
        assert (first.ranges, upstream.ranges, second.ranges) == (PARTS[:1], ["None", PARTS[0]], PARTS[1:])

    @pytest.mark.parametrize("trouble", [TooManyRequests(), Unreachable()])
    def test_failures_there_are_not_taken_to_the_registry(self, trouble: RegistryError) -> None:
        """It would redirect to the same host."""
        upstream = Upstream()
        upstream.there = Address(trouble)
        assert delivered(in_segments(upstream))[1] == DATA
        assert upstream.ranges == ["None"]
