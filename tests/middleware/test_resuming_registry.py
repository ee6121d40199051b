"""Blobs that arrive whole and right, or are cut off."""

from __future__ import annotations

import random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.body.bodies import PAUSES, TAIL_HOLDBACK, CorruptContent, NoBody, json_body
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.middleware.blob_fetch import ResumingRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import RangeInvalid, RegistryError, Unauthorized, Unavailable, Unreachable
from dockmirror.oci.header_fields import ContentRange, Range
from dockmirror.oci.request import Blob, Manifest, Ping, RegistryRequest, Repository, Tag, Tags, Target
from dockmirror.oci.token import Credentials

from ..answering import FakeRegistry, Feed, Pieces, Recorder, now, watch

DATA = random.Random(1).randbytes(40)
REPOSITORY = Repository("x/y")
BLOB = Blob(REPOSITORY, Digest.of(DATA))
REQUEST = RegistryRequest(BLOB, accept=("a/b",), if_none_match='"x"', credentials=Credentials.bearer("t"))
BREAKS = st.lists(st.integers(0, 15), max_size=len(PAUSES))


@implementer(IRegistry)
class Breaking:
    """Has one blob, and breaks off after each of these many bytes.

    :ivar ranges: whether it knows ranges; where not, it sends the whole.
    :ivar told: whether it tells the size of what it sends.
    """

    def __init__(self, *breaks: int, ranges: bool = True, told: bool = True) -> None:
        self.requests: list[RegistryRequest] = []
        self._breaks = list(breaks)
        self._ranges = ranges
        self._told = told

    async def fetch(self, request: RegistryRequest) -> Answer:
        first = not self.requests
        self.requests.append(request)
        asked = request.range if self._ranges or first else None
        part = asked.resolve(len(DATA))[0] if asked else None
        body = DATA[part.first : part.last + 1] if part else DATA
        descriptor = Descriptor("a/b", None, len(body) if self._told or part else None)
        if self._breaks:
            content = Pieces([body[: self._breaks.pop(0)]], descriptor, Unreachable("broken off"))
        else:
            content = Pieces([body], descriptor)
        return Answer(content, 206 if part else 200, part, upstream_status=200)


def delivered(
    registry: IRegistry, request: RegistryRequest = REQUEST
) -> tuple[Answer, Recorder, list[object]]:
    clock, recorder = Clock(), Recorder()
    answer = now(ResumingRegistry(registry, clock).fetch(request))
    outcome: list[object] = []
    answer.body.deliver(recorder).addCallbacks(outcome.append, lambda f: outcome.append(f.value))
    clock.pump([max(PAUSES)] * (len(PAUSES) + 1))
    return answer, recorder, outcome


@given(BREAKS, st.booleans(), st.booleans())
def test_a_blob_that_breaks_off_arrives_complete(breaks: list[int], ranges: bool, told: bool) -> None:
    """Anywhere, repeatedly, whether the upstream serves ranges or not."""
    registry = Breaking(*breaks, ranges=ranges, told=told)
    answer, recorder, outcome = delivered(registry)
    assert (outcome, recorder.data) == ([None], DATA)
    assert (answer.status, answer.body.descriptor.digest) == (200, BLOB.digest)
    assert answer.body.descriptor.size == (len(DATA) if told else None)


@given(st.integers(0, 39), st.integers(1, 40), BREAKS, st.booleans())
def test_a_range_arrives_exactly(first: int, length: int, breaks: list[int], ranges: bool) -> None:
    """No byte less or more, although the upstream may answer with all of the blob."""
    last = min(first + length, len(DATA)) - 1
    registry = Breaking(*breaks, ranges=ranges)
    answer, recorder, outcome = delivered(registry, evolve(REQUEST, range=Range.starting_at(first, last)))
    assert (outcome, recorder.data) == ([None], DATA[first : last + 1])
    assert (answer.status, answer.content_range) == (206, ContentRange(first, last, len(DATA)))
    assert answer.body.descriptor.size == last - first + 1


@pytest.mark.parametrize(
    ("breaks", "first", "rest"),
    [
        ([7, 0, 5], None, ["bytes=7-", "bytes=7-", "bytes=12-"]),
        ([0], None, ["None"]),  # an empty beginning has no range
        ([0, 3], Range.starting_at(0, 9), ["bytes=0-9", "bytes=3-9"]),
    ],
)
def test_the_rest_is_fetched_as_the_beginning_was(
    breaks: list[int], first: Range | None, rest: list[str]
) -> None:
    """With the same credentials and the same end, but without conditions: the client has not got it."""
    registry = Breaking(*breaks)
    request = evolve(REQUEST, range=first)
    delivered(registry, request)
    assert registry.requests[0] == request
    assert [str(each.range) for each in registry.requests[1:]] == rest
    assert {evolve(each, range=None) for each in registry.requests[1:]} == {
        evolve(REQUEST, if_none_match=None)
    }


def test_a_blob_that_breaks_off_too_often_is_cut_off() -> None:
    _, recorder, outcome = delivered(Breaking(*[1] * (len(PAUSES) + 1)))
    assert [type(error) for error in outcome] == [Unreachable]
    assert recorder.data == b""


def test_a_blob_that_breaks_off_after_its_last_byte_is_complete() -> None:
    """The upstream answers 416, since no range begins there."""
    registry = Breaking(len(DATA))
    _, recorder, outcome = delivered(registry)
    assert (outcome, recorder.data) == ([None], DATA)
    assert [str(request.range) for request in registry.requests] == ["None", f"bytes={len(DATA)}-"]


@pytest.mark.parametrize(
    ("status", "part"),
    [(206, ContentRange(0, 39, 40)), (206, ContentRange(8, 39, 40)), (206, None), (304, None)],
)
def test_a_range_with_another_offset_is_not_appended(status: int, part: ContentRange | None) -> None:
    """It is discarded, and the client is cut off."""
    other = Feed()
    beginning = Pieces([DATA[:7]], Descriptor(size=40), Unreachable())
    _, _, outcome = delivered(FakeRegistry(Answer(beginning, 200), Answer(other, status, part)))
    assert [type(error) for error in outcome] == [Unavailable]
    assert other.state == "discarded"


@pytest.mark.parametrize("error", [Unauthorized(), RangeInvalid(content_size=5), Unavailable()])
def test_a_refusal_of_the_rest_cuts_the_blob_off(error: RegistryError) -> None:
    """The token may have expired: the client starts again."""
    beginning = Pieces([DATA[:7]], Descriptor(size=40), Unreachable())
    _, _, outcome = delivered(FakeRegistry(Answer(beginning, 200), error))
    assert outcome == [error]


def test_a_corrupt_blob_is_cut_off() -> None:
    """A short one does not reach the client at all."""
    beginning = Pieces([DATA[:7]], Descriptor(size=40), Unreachable())
    rest = Answer(Pieces([b"x" * 33]), 206, ContentRange(7, 39, 40))
    _, recorder, outcome = delivered(FakeRegistry(Answer(beginning, 200), rest))
    assert [type(error) for error in outcome] == [CorruptContent]
    assert recorder.data == b""


def test_a_long_blob_flows_before_it_is_complete() -> None:
    """Only its tail waits for the digest."""
    data = random.Random(2).randbytes(2 * TAIL_HOLDBACK)
    feed, recorder = Feed(Descriptor(size=len(data))), Recorder()
    request = RegistryRequest(Blob(REPOSITORY, Digest.of(data)))
    outcome = watch(
        now(ResumingRegistry(FakeRegistry(Answer(feed, 200)), Clock()).fetch(request)).body.deliver(recorder)
    )
    feed.send(data[:TAIL_HOLDBACK])
    assert (outcome, recorder.data) == ([], data[:TAIL_HOLDBACK])
    feed.send(data[TAIL_HOLDBACK:])
    feed.end()
    assert (outcome, recorder.data) == ([None], data)


@pytest.mark.parametrize(("sent", "requests"), [(40, ["bytes=0-9"]), (4, ["bytes=0-9", "bytes=4-9"])])
def test_a_range_of_another_length_than_announced(sent: int, requests: list[str]) -> None:
    """A longer one is cut, a shorter one has broken off and is resumed."""
    answer = Answer(Pieces([DATA[:sent]]), 206, ContentRange(0, 9, 40))
    rest = Answer(Pieces([DATA[4:10]]), 206, ContentRange(4, 9, 40))
    registry = FakeRegistry(answer, rest)
    _, recorder, outcome = delivered(registry, evolve(REQUEST, range=Range.starting_at(0, 9)))
    assert (outcome, recorder.data) == ([None], DATA[:10])
    assert [str(request.range) for request in registry.requests] == requests


JSON = Answer(json_body(b"{}"))
MULTIPART = Answer(Pieces([b"--x"], Descriptor("multipart/byteranges; boundary=x")), 206)


@pytest.mark.parametrize(
    ("target", "head", "answer"),
    [
        (Ping(), False, JSON),
        (Tags(REPOSITORY), False, JSON),
        (Manifest(REPOSITORY, Tag("latest")), False, JSON),
        (Manifest(REPOSITORY, BLOB.digest), False, JSON),
        (BLOB, True, Answer(NoBody(Descriptor(size=40)))),
        (BLOB, True, Answer(NoBody(Descriptor(size=10)), 206, ContentRange(0, 9, 40))),
        (BLOB, False, Answer(NoBody(Descriptor()), 304)),
        (BLOB, False, MULTIPART),
    ],
)
def test_other_answers_are_passed_on(target: Target, head: bool, answer: Answer) -> None:
    """Answers without a blob's body, and multipart ranges, which cannot be verified or resumed."""
    registry = FakeRegistry(answer)
    request = RegistryRequest(target, head=head)
    assert now(ResumingRegistry(registry, Clock()).fetch(request)) is answer
    assert registry.requests == [request]


def test_a_refusal_of_the_blob_is_passed_on() -> None:
    registry = FakeRegistry(Unreachable("cannot be reached"))
    with pytest.raises(Unreachable):
        now(ResumingRegistry(registry, Clock()).fetch(REQUEST))
    assert len(registry.requests) == 1
