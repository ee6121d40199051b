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

from dockmirror.http.connections import HttpLimits
from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import IBody
from dockmirror.oci.errors import RegistryError
from tests.answering import Recorder
from tests.http.test_server import GET, Line

LIMITS = HttpLimits(linger_bytes=1000, body_seconds=30, body_window_bytes=10)
HEAD = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n"
CHUNKED = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"


class BodyReader(Resource):
    """A resource that reads bodies when the test says so, and then responds with their size."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ServerRequest] = []
        self.consumer = Recorder()
        self.done: Deferred[None] = Deferred()
        self.errors: list[Any] = []

    def render(self, request: ServerRequest) -> int | bytes:
        """Wait; respond at once only to GET."""
        self.requests.append(request)
        return b"got" if request.method == b"GET" else NOT_DONE_YET

    def read(self) -> BodyReader:
        """Start reading the newest request's body."""
        body = self.requests[-1].body
        assert body is not None
        self.done = body.deliver(self.consumer)
        self.done.addCallbacks(lambda _: self.respond(), lambda failure: self.errors.append(failure.value))
        return self

    def respond(self) -> None:
        self.requests[-1].write(b"%d" % len(self.consumer.data))
        self.requests[-1].finish()

    def refuse(self, status: int) -> None:
        self.requests[0].refuse(RegistryError(status=status))


class Client:
    """A client of a site with such a resource."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.reader = BodyReader()
        self.line = Line(HttpSite(self.reader, self.clock, body_limit=lambda _: None, limits=LIMITS))
        self.send = self.line.send

    @property
    def paused(self) -> bool:
        """Tell whether the client's connection is paused."""
        return self.line.transport.producerState == "paused"


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def reader(client: Client) -> BodyReader:
    return client.reader


def test_a_body_knows_its_length_and_media_type(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + b"Content-Type: a/b\r\n\r\n")
    body = reader.requests[0].body
    assert verifyObject(IBody, body)
    assert body is not None
    assert (body.descriptor.size, body.descriptor.media_type) == (10, "a/b")


def test_a_body_is_streamed_and_the_next_request_follows(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + b"\r\n01")
    reader.read()
    assert reader.consumer.pieces == [b"01"]
    client.send(b"234").send(b"56789" + GET)
    assert reader.consumer.pieces == [b"01", b"234", b"56789"]
    assert [(answer.body, answer["Connection"]) for answer in client.line.answers] == [
        (b"10", None), (b"got", None)
    ]  # fmt: skip
    assert reader.consumer.producer is None


@given(st.data())
def test_any_pieces_of_a_stream_give_the_same_body(data: st.DataObject) -> None:
    """With or without chunks, early or late."""
    client = Client()
    chunks = CHUNKED + b"\r\n3\r\n012\r\n7;x=y\r\n3456789\r\n0\r\n\r\n"
    sent = data.draw(st.sampled_from([HEAD + b"\r\n0123456789", chunks])) + GET
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1))))
    read_after = data.draw(st.integers(0, len(cuts)))
    reading = False
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(sent)], strict=True)):
        client.send(sent[begin:end])
        if client.reader.requests and not reading and number >= read_after:
            reading = True
            client.reader.read()
    if not reading:
        client.reader.read()
    assert client.reader.consumer.data == b"0123456789"
    assert [answer.body for answer in client.line.answers] == [b"10", b"got"]


def test_the_consumer_sets_the_pace(client: Client, reader: BodyReader) -> None:
    """Nothing is read before it registers."""
    client.send(HEAD + b"\r\n01")
    assert client.paused
    reader.read()
    assert not client.paused
    reader.consumer.pause()
    assert client.paused
    client.send(b"23")
    assert reader.consumer.data == b"01"
    reader.consumer.resume()
    assert (reader.consumer.data, client.paused) == (b"0123", False)


class PausingConsumer(Recorder):
    """A consumer that pauses after each piece."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.pause()


def test_reading_resumes_after_the_last_byte(client: Client, reader: BodyReader) -> None:
    """The end of the connection is noticed, even if the consumer was paused."""
    reader.consumer = PausingConsumer()
    client.send(HEAD + b"\r\n01")
    reader.respond = lambda: None  # type: ignore[method-assign]
    reader.read()
    assert client.paused
    reader.consumer.resume()
    client.send(b"23456789")
    assert (reader.consumer.data, client.paused) == (b"0123456789", False)


EXPECT = b"Expect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_100_is_sent_once_when_the_body_is_wanted(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + EXPECT)
    assert client.line.transport.value() == b""
    reader.read()
    assert client.line.transport.value() == CONTINUE
    reader.consumer.pause()
    reader.consumer.resume()
    assert client.line.transport.value() == CONTINUE


@pytest.mark.parametrize("sent", [HEAD + EXPECT + b"01", HEAD.replace(b"1.1", b"1.0") + EXPECT])
def test_100_is_not_sent_after_the_body_or_to_http_1_0(
    client: Client, reader: BodyReader, sent: bytes
) -> None:
    client.send(sent)
    reader.read()
    assert client.line.transport.value() == b""


def test_100_is_not_sent_before_a_refusal(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + EXPECT)
    reader.refuse(403)
    assert (client.line.answer.status, client.line.answer["Connection"]) == (403, "close")


def test_after_an_early_response_the_body_is_discarded(client: Client, reader: BodyReader) -> None:
    """None of it is taken for a request."""
    client.send(HEAD + b"\r\n01")
    reader.refuse(413)
    assert (client.line.answer.status, client.line.answer["Connection"]) == (413, "close")
    assert not client.line.closed
    client.send(b"23456789" + GET)
    assert (client.line.closed, client.line.statuses) == (True, [413])


@pytest.mark.parametrize(("sent", "seconds"), [(b"x" * 1000, 0), (b"", 5)])
def test_a_client_that_keeps_sending_is_closed_after_bytes_or_seconds(
    client: Client, reader: BodyReader, sent: bytes, seconds: float
) -> None:
    client.send(CHUNKED + b"\r\n")
    reader.refuse(413)
    assert not client.line.closed
    client.send(sent)
    client.clock.advance(seconds)
    assert client.line.closed


def test_a_response_while_the_body_is_read_ends_it(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + b"\r\n01")
    reader.read().done.cancel()
    reader.refuse(500)
    client.send(b"23")
    assert (reader.consumer.data, reader.consumer.producer) == (b"01", None)


def test_a_client_that_stops_sending_gets_408(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + b"\r\n01234")
    reader.read()
    client.clock.advance(30)
    (error,) = reader.errors
    assert (error.status, reader.consumer.producer) == (408, None)


def test_a_body_above_the_minimum_rate_may_take_any_time(client: Client, reader: BodyReader) -> None:
    """A byte now and then is too slow."""
    client.send(CHUNKED + b"\r\n")
    reader.read()
    for _ in range(10):
        client.send(b"5\r\n01234\r\n")
        client.clock.advance(29)
    assert reader.errors == []
    client.send(b"1\r\n")
    client.clock.advance(30)
    client.clock.advance(30)
    assert len(reader.errors) == 1


def test_pauses_of_the_mirror_do_not_count(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + b"\r\n")
    client.clock.advance(1000)
    reader.read().consumer.pause()
    client.clock.advance(1000)
    reader.consumer.resume()
    client.clock.advance(29)
    assert reader.errors == []
    client.clock.advance(1)
    assert len(reader.errors) == 1


def test_no_timer_is_left(client: Client, reader: BodyReader) -> None:
    """Neither after the body has arrived, nor after its consumer has left."""
    client.send(HEAD + b"\r\n0123456789")
    reader.read()
    client.send(HEAD + b"\r\n")
    reader.read().done.cancel()
    client.line.leave()
    assert client.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "chunks",
    [b"x\r\n", b"-1\r\n", b"0x3\r\n012\r\n", b"3\r\n012xx", b"3\n012\n", b" 3\r\n012\r\n", b"+3\r\n012\r\n"],
)  # fmt: skip
def test_malformed_chunks_end_the_connection(client: Client, reader: BodyReader, chunks: bytes) -> None:
    client.send(CHUNKED + b"\r\n")
    reader.read()
    client.send(chunks + GET)
    (error,) = reader.errors
    reader.requests[0].refuse(error)
    client.send(GET)
    assert client.line.statuses == [400]


def test_data_after_the_consumer_stopped_is_ignored(client: Client, reader: BodyReader) -> None:
    client.send(HEAD + b"\r\n0")
    reader.read().consumer.leave()
    client.send(b"123")
    assert (reader.consumer.data, len(reader.errors)) == (b"0", 1)
