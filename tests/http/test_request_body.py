"""Bodies that are taken while they come, from bytes to bytes."""

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

LIMITS = HttpLimits(linger_bytes=1000, body_seconds=30, body_pace=10)
HEAD = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n"
CHUNKED = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"


class Takes(Resource):
    """Takes bodies when the test says so, and then says how many bytes it had."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ServerRequest] = []
        self.taken = Recorder()
        self.done: Deferred[None] = Deferred()
        self.errors: list[BaseException] = []

    def render(self, request: ServerRequest) -> int | bytes:
        """Waits; only a GET is answered at once."""
        self.requests.append(request)
        return b"got" if request.method == b"GET" else NOT_DONE_YET

    def take(self) -> Takes:
        """Begins to take the newest request's body."""
        body = self.requests[-1].body
        assert body is not None
        self.done = body.deliver(self.taken)
        self.done.addCallbacks(lambda _: self.say(), lambda failure: self.errors.append(failure.value))
        return self

    def say(self) -> None:
        """Answers."""
        self.requests[-1].write(b"%d" % len(self.taken.data))
        self.requests[-1].finish()


class House:
    """A site of one such resource."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.takes = Takes()
        self.site = HttpSite(self.takes, self.clock, body_limit=lambda _: None, limits=LIMITS)
        self.line = Line(self.site)

    @property
    def paused(self) -> bool:
        """Whether the client's connection is not read."""
        return self.line.transport.producerState == "paused"


@pytest.fixture
def house() -> House:
    """A site and a client."""
    return House()


def test_it_is_a_content(house: House) -> None:
    """Which tells its length and its media type."""
    house.line.send(HEAD + b"Content-Type: a/b\r\n\r\n")
    body = house.takes.requests[0].body
    assert verifyObject(IBody, body)
    assert body is not None
    assert (body.descriptor.size, body.descriptor.media_type) == (10, "a/b")
    house.line.send(CHUNKED + b"\r\n")


def test_it_is_passed_on_as_it_comes(house: House) -> None:
    """And the next request on the connection is the next one."""
    house.line.send(HEAD + b"\r\n01")
    house.takes.take()
    assert house.takes.taken.pieces == [b"01"]
    house.line.send(b"234").send(b"56789" + GET)
    assert house.takes.taken.pieces == [b"01", b"234", b"56789"]
    assert [answer.body for answer in house.line.answers] == [b"10", b"got"]
    assert "Connection" not in house.line.answers[0].headers
    assert house.takes.taken.producer is None


@given(st.data())
def test_however_it_is_cut(data: st.DataObject) -> None:
    """In chunks or not, before it is wanted or after: it is the same body, and the next request is found."""
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


def test_nothing_is_read_that_nobody_wants(house: House) -> None:
    """The client waits in the kernel, until it is wanted."""
    house.line.send(HEAD + b"\r\n01")
    assert house.paused
    house.takes.take()
    assert not house.paused


def test_back_pressure(house: House) -> None:
    """Who takes it sets the pace."""
    house.line.send(HEAD + b"\r\n")
    house.takes.take().taken.pause()
    assert house.paused
    house.line.send(b"01")
    assert house.takes.taken.data == b""
    house.takes.taken.resume()
    assert house.takes.taken.data == b"01"
    assert not house.paused


class Reluctant(Recorder):
    """Wants no more after each piece."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        super().write(data)
        self.pause()


def test_after_the_last_byte(house: House) -> None:
    """The connection is read again, whoever wanted no more of the body: the client may leave."""
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
        """What the client has got."""
        return bytes(house.line.transport.value())

    def test_is_answered_when_it_is_wanted(self, house: House) -> None:
        """And once."""
        house.line.send(HEAD + self.EXPECT)
        assert self.sent(house) == b""
        house.takes.take()
        assert self.sent(house) == b"HTTP/1.1 100 Continue\r\n\r\n"
        house.takes.taken.pause()
        house.takes.taken.resume()
        assert self.sent(house).count(b"100 Continue") == 1

    def test_is_not_for_who_does_not_wait(self, house: House) -> None:
        """Nor for HTTP/1.0."""
        house.line.send(HEAD + self.EXPECT + b"01")
        house.takes.take()
        assert self.sent(house) == b""
        house = House()
        house.line.send(HEAD.replace(b"1.1", b"1.0") + self.EXPECT)
        house.takes.take()
        assert self.sent(house) == b""

    def test_is_not_sent_before_a_refusal(self, house: House) -> None:
        """Which is all that the client gets, and the body never comes."""
        house.line.send(HEAD + self.EXPECT)
        house.takes.requests[0].refuse(RegistryError(status=403))
        assert [answer.status for answer in house.line.answers] == [403]
        assert house.line.answers[0].headers["Connection"] == "close"


class TestEarly:
    """A response before the body has come."""

    def test_the_rest_is_thrown_away(self, house: House) -> None:
        """For a while: then the connection is closed; nothing of it is taken for a request."""
        house.line.send(HEAD + b"\r\n01")
        house.takes.requests[0].refuse(RegistryError(status=413))
        assert house.line.answer.status == 413
        assert house.line.answer.headers["Connection"] == "close"
        assert not house.line.closed
        house.line.send(b"23456789" + GET)
        assert house.line.closed
        assert house.line.answer.status == 413

    @pytest.mark.parametrize(("sent", "seconds"), [(b"x" * 1000, 0), (b"", 5)])
    def test_who_sends_on_and_on(self, house: House, sent: bytes, seconds: float) -> None:
        """Is closed after so many bytes, or so many seconds."""
        house.line.send(CHUNKED + b"\r\n")
        house.takes.requests[0].refuse(RegistryError(status=413))
        assert not house.line.closed
        house.line.send(sent)
        house.clock.advance(seconds)
        assert house.line.closed

    def test_while_it_is_taken(self, house: House) -> None:
        """By somebody who gives up."""
        house.line.send(HEAD + b"\r\n01")
        house.takes.take().done.cancel()
        house.takes.requests[0].refuse(RegistryError(status=500))
        house.line.send(b"23")
        assert house.takes.taken.data == b"01"
        assert house.takes.taken.producer is None


class TestTime:
    """How slow a client may be."""

    def test_who_stops_sending(self, house: House) -> None:
        """Has the body end with an error, which is the client's fault."""
        house.line.send(HEAD + b"\r\n01234")
        house.takes.take()
        house.clock.advance(30)
        (error,) = house.takes.errors
        assert isinstance(error, RegistryError)
        assert error.status == 408
        assert house.takes.taken.producer is None

    def test_a_byte_now_and_then(self, house: House) -> None:
        """Is too slow as well; a few in time are not, however long it takes in all."""
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

    def test_the_mirror_s_own_time(self, house: House) -> None:
        """Does not count: neither before it wants the body, nor while it wants no more."""
        house.line.send(HEAD + b"\r\n")
        house.clock.advance(1000)
        house.takes.take().taken.pause()
        house.clock.advance(1000)
        house.takes.taken.resume()
        house.clock.advance(29)
        assert house.takes.errors == []
        house.clock.advance(1)
        assert len(house.takes.errors) == 1

    def test_nothing_runs_on(self, house: House) -> None:
        """After the body has come, or who took it has left."""
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
def test_chunks_that_are_none(house: House, chunks: bytes) -> None:
    """End the body with an error, and nothing on the connection is understood any more."""
    house.line.send(CHUNKED + b"\r\n")
    house.takes.take()
    house.line.send(chunks + GET)
    (error,) = house.takes.errors
    assert isinstance(error, RegistryError)
    assert error.status == 400
    house.takes.requests[0].refuse(error)
    house.line.send(GET)
    assert [answer.status for answer in house.line.answers] == [400]


def test_what_comes_to_whoever_takes_no_more(house: House) -> None:
    """Is nothing."""
    house.line.send(HEAD + b"\r\n0")
    taken: Any = house.takes.take().taken
    taken.leave()
    house.line.send(b"123")
    assert taken.data == b"0"
    assert len(house.takes.errors) == 1
