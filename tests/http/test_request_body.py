"""Streamed request bodies, from bytes to bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface.verify import verifyObject

from dockmirror.http.limits import HttpLimits
from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import IBody
from dockmirror.oci.errors import RegistryError
from tests.answering import Recorder
from tests.http.test_server import GET, Line

LIMITS = HttpLimits(linger_bytes=1000, body_seconds=30, body_window_bytes=10)
HEAD = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n"
CHUNKED = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"


class Takes(Resource):
    """A resource that reads bodies when the test says so, and then responds with their size."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ServerRequest] = []
        self.taken = Recorder()
        self.done: Deferred[None] = Deferred()
        self.errors: list[BaseException] = []

    def render(self, request: ServerRequest) -> int | bytes:
        """Wait; respond at once only to GET."""
        self.requests.append(request)
        return b"got" if request.method == b"GET" else NOT_DONE_YET

    def take(self) -> Takes:
        """Start reading the newest request's body."""
        body = self.requests[-1].body
        assert body is not None
        self.done = body.deliver(self.taken)
        self.done.addCallbacks(lambda _: self.say(), lambda failure: self.errors.append(failure.value))
        return self

    def say(self) -> None:
        """Respond."""
        self.requests[-1].write(b"%d" % len(self.taken.data))
        self.requests[-1].finish()


class House:
    """A site with such a resource."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.takes = Takes()
        self.site = HttpSite(self.takes, self.clock, body_limit=lambda _: None, limits=LIMITS)
        self.line = Line(self.site)

    @property
    def paused(self) -> bool:
        """Tell whether the client's connection is paused."""
        return self.line.transport.producerState == "paused"


@pytest.fixture
def house() -> House:
    """Return a site and a client."""
    return House()


def test_it_is_a_body(house: House) -> None:
    """It knows its length and its media type."""
    house.line.send(HEAD + b"Content-Type: a/b\r\n\r\n")
    body = house.takes.requests[0].body
    assert verifyObject(IBody, body)
    assert body is not None
    assert (body.descriptor.size, body.descriptor.media_type) == (10, "a/b")
    house.line.send(CHUNKED + b"\r\n")


def test_a_body_is_streamed(house: House) -> None:
    """The next request follows on the same connection."""
    house.line.send(HEAD + b"\r\n01")
    house.takes.take()
    assert house.takes.taken.pieces == [b"01"]
    house.line.send(b"234").send(b"56789" + GET)
    assert house.takes.taken.pieces == [b"01", b"234", b"56789"]
    assert [answer.body for answer in house.line.answers] == [b"10", b"got"]
    assert "Connection" not in house.line.answers[0].headers
    assert house.takes.taken.producer is None


@given(st.data())
def test_pieces_make_no_difference(data: st.DataObject) -> None:
    """With or without chunks, early or late: the body is the same, and the next request is found."""
    house = House()
    framed = data.draw(
        st.sampled_from(
            [HEAD + b"\r\n0123456789", CHUNKED + b"\r\n3\r\n012\r\n7;x=y\r\n3456789\r\n0\r\n\r\n"]
        )
    )
    sent = framed + GET
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1))))
    wanted_after = data.draw(st.integers(0, len(cuts)))
    taking = False
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(sent)], strict=True)):
        house.line.send(sent[begin:end])
        if house.takes.requests and not taking and number >= wanted_after:
            taking = True
            house.takes.take()
    if not taking:
        house.takes.take()
    assert house.takes.taken.data == b"0123456789"
    assert [answer.body for answer in house.line.answers] == [b"10", b"got"]


def test_a_body_is_not_read_before_a_consumer_registers(house: House) -> None:
    house.line.send(HEAD + b"\r\n01")
    assert house.paused
    house.takes.take()
    assert not house.paused


def test_the_consumer_sets_the_pace(house: House) -> None:
    house.line.send(HEAD + b"\r\n")
    house.takes.take().taken.pause()
    assert house.paused
    house.line.send(b"01")
    assert house.takes.taken.data == b""
    house.takes.taken.resume()
    assert house.takes.taken.data == b"01"
    assert not house.paused


class Reluctant(Recorder):
    """A consumer that pauses after each piece."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.pause()


def test_reading_resumes_after_the_last_byte(house: House) -> None:
    """The end of the connection is noticed, even if the consumer was paused."""
    house.takes.taken = Reluctant()
    house.line.send(HEAD + b"\r\n01")
    house.takes.say = lambda: None  # type: ignore[method-assign]
    house.takes.take()
    assert house.paused
    house.takes.taken.resume()
    house.line.send(b"23456789")
    assert house.takes.taken.data == b"0123456789"
    assert not house.paused


class TestContinue:
    """``Expect: 100-continue``."""

    EXPECT = b"Expect: 100-continue\r\n\r\n"

    def sent(self, house: House) -> bytes:
        """Return the bytes that the client has received."""
        return bytes(house.line.transport.value())

    def test_100_is_sent_once_the_body_is_wanted(self, house: House) -> None:
        """It is sent only once."""
        house.line.send(HEAD + self.EXPECT)
        assert self.sent(house) == b""
        house.takes.take()
        assert self.sent(house) == b"HTTP/1.1 100 Continue\r\n\r\n"
        house.takes.taken.pause()
        house.takes.taken.resume()
        assert self.sent(house).count(b"100 Continue") == 1

    def test_100_is_not_sent_without_expect(self, house: House) -> None:
        """Nor to HTTP/1.0 clients."""
        house.line.send(HEAD + self.EXPECT + b"01")
        house.takes.take()
        assert self.sent(house) == b""
        house = House()
        house.line.send(HEAD.replace(b"1.1", b"1.0") + self.EXPECT)
        house.takes.take()
        assert self.sent(house) == b""

    def test_100_is_not_sent_before_a_refusal(self, house: House) -> None:
        """The refusal is the only response, and the body never arrives."""
        house.line.send(HEAD + self.EXPECT)
        house.takes.requests[0].refuse(RegistryError(status=403))
        assert [answer.status for answer in house.line.answers] == [403]
        assert house.line.answers[0].headers["Connection"] == "close"


class TestEarly:
    """A response before the body has arrived."""

    def test_the_rest_of_the_body_is_discarded(self, house: House) -> None:
        """After a while the connection is closed; none of the rest is taken for a request."""
        house.line.send(HEAD + b"\r\n01")
        house.takes.requests[0].refuse(RegistryError(status=413))
        assert house.line.answer.status == 413
        assert house.line.answer.headers["Connection"] == "close"
        assert not house.line.closed
        house.line.send(b"23456789" + GET)
        assert house.line.closed
        assert house.line.answer.status == 413

    @pytest.mark.parametrize(("sent", "seconds"), [(b"x" * 1000, 0), (b"", 5)])
    def test_a_client_that_keeps_sending_is_closed(self, house: House, sent: bytes, seconds: float) -> None:
        """It is closed after a number of bytes, or of seconds."""
        house.line.send(CHUNKED + b"\r\n")
        house.takes.requests[0].refuse(RegistryError(status=413))
        assert not house.line.closed
        house.line.send(sent)
        house.clock.advance(seconds)
        assert house.line.closed

    def test_a_response_while_the_body_is_read(self, house: House) -> None:
        house.line.send(HEAD + b"\r\n01")
        house.takes.take().done.cancel()
        house.takes.requests[0].refuse(RegistryError(status=500))
        house.line.send(b"23")
        assert house.takes.taken.data == b"01"
        assert house.takes.taken.producer is None


class TestTime:
    """The minimum rate of a body."""

    def test_a_client_that_stops_sending_gets_408(self, house: House) -> None:
        house.line.send(HEAD + b"\r\n01234")
        house.takes.take()
        house.clock.advance(30)
        (error,) = house.takes.errors
        assert isinstance(error, RegistryError)
        assert error.status == 408
        assert house.takes.taken.producer is None

    def test_a_byte_now_and_then_is_too_slow(self, house: House) -> None:
        """A body above the minimum rate may take any time in all."""
        house.line.send(CHUNKED + b"\r\n")
        house.takes.take()
        for _ in range(10):
            house.line.send(b"5\r\n01234\r\n")
            house.clock.advance(29)
        assert house.takes.errors == []
        house.line.send(b"1\r\n")
        house.clock.advance(30)
        house.clock.advance(30)
        assert len(house.takes.errors) == 1

    def test_pauses_of_the_mirror_do_not_count(self, house: House) -> None:
        house.line.send(HEAD + b"\r\n")
        house.clock.advance(1000)
        house.takes.take().taken.pause()
        house.clock.advance(1000)
        house.takes.taken.resume()
        house.clock.advance(29)
        assert house.takes.errors == []
        house.clock.advance(1)
        assert len(house.takes.errors) == 1

    def test_no_timer_is_left(self, house: House) -> None:
        """Neither after the body has arrived, nor after its consumer has left."""
        house.line.send(HEAD + b"\r\n0123456789")
        house.takes.take()
        house.line.send(HEAD + b"\r\n")
        house.takes.take().done.cancel()
        house.line.leave()
        assert house.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "chunks",
    [b"x\r\n", b"-1\r\n", b"0x3\r\n012\r\n", b"3\r\n012xx", b"3\n012\n", b" 3\r\n012\r\n", b"+3\r\n012\r\n"],
)
def test_malformed_chunks_end_the_body(house: House, chunks: bytes) -> None:
    """Nothing that follows on the connection is processed."""
    house.line.send(CHUNKED + b"\r\n")
    house.takes.take()
    house.line.send(chunks + GET)
    (error,) = house.takes.errors
    assert isinstance(error, RegistryError)
    assert error.status == 400
    house.takes.requests[0].refuse(error)
    house.line.send(GET)
    assert [answer.status for answer in house.line.answers] == [400]


def test_data_after_the_consumer_stopped_is_ignored(house: House) -> None:
    house.line.send(HEAD + b"\r\n0")
    taken: Any = house.takes.take().taken
    taken.leave()
    house.line.send(b"123")
    assert taken.data == b"0"
    assert len(house.takes.errors) == 1
