"""Request heads and streamed bodies as bytes: their end, invalid ones, absolute-form targets."""

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
from dockmirror.http.request_reader import HeadBuffer, find_head_end, to_origin_form
from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import IBody
from dockmirror.oci.errors import RegistryError
from tests.answering import Recorder
from tests.http.test_server import GET, Line

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n"
SHORT_HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LIMIT = 256
LIMITS = HttpLimits(linger_bytes=1000, body_seconds=30, body_window_bytes=10)
PUT_HEAD = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n"
CHUNKED = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
EXPECT = b"Expect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def refused(line: bytes, *fields: bytes) -> int:
    """Return the status that a head is refused with."""
    with pytest.raises(RegistryError) as caught:
        to_origin_form(b"\r\n".join([line, *fields, b"", b""]))
    return caught.value.status


def test_a_head_ends_after_the_empty_line() -> None:
    """A lone CR at the end may be the beginning of a line's end."""
    assert find_head_end(bytearray(HEAD + b"\x00body"), 0, LIMIT) == len(HEAD)
    assert find_head_end(bytearray(HEAD[:-1]), 0, LIMIT) is None


def test_a_head_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert find_head_end(bytearray(HEAD), 0, len(HEAD)) == len(HEAD)
    with pytest.raises(RegistryError) as caught:
        find_head_end(bytearray(HEAD), 0, len(HEAD) - 1)
    assert caught.value.status == 431
    received = HeadBuffer(len(SHORT_HEAD) - 1)
    received.bytes += SHORT_HEAD
    with pytest.raises(RegistryError, match="larger than"):
        received.take_head()


@pytest.mark.parametrize("control", [b"\x00", b"\x16\x03\x01", b"\r", b"\n", b"\x7f", b"\x1b"])
def test_control_characters_are_refused_at_once(control: bytes) -> None:
    """A bare CR or LF, NUL, or the first byte of a TLS hello, in an incomplete head too."""
    with pytest.raises(RegistryError) as caught:
        find_head_end(bytearray(b"GET /" + control + b"x"), 0, LIMIT)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://r.example/v2/?a=b", b"/v2/?a=b", b"r.example"),
        (b"HTTPS://r.example:5000", b"/", b"r.example:5000"),
        (b"http://[::1]:80?q", b"/?q", b"[::1]:80"),
    ],
)
def test_the_authority_of_an_absolute_form_replaces_host(target: bytes, path: bytes, host: bytes) -> None:
    """RFC 9112 section 3.2.2; a head in origin form is unchanged."""
    assert to_origin_form(HEAD) == HEAD
    head = to_origin_form(b"GET %b HTTP/1.1\r\nA: 1\r\nhOsT: other\r\nB: 2\r\n\r\n" % target)
    assert head == b"GET %b HTTP/1.1\r\nHost: %b\r\nA: 1\r\nB: 2\r\n\r\n" % (path, host)


@pytest.mark.parametrize(
    "target",
    [
        *(b"*", b"h:443", b"http://", b"http:///v2/", b"http://:80/", b"http://u@h/", b"ftp://h/", b"v2"),
        *(b"/\xc3\xbc", b"/\x80"),
    ],
)
def test_other_targets_are_refused(target: bytes) -> None:
    """Authority-form, asterisk-form, other schemes, user names, and bytes outside ASCII."""
    assert refused(b"GET %b HTTP/1.1" % target, b"Host: h") == 400


@pytest.mark.parametrize("line", [b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 x", b""])
def test_a_request_line_has_three_parts(line: bytes) -> None:
    """They are separated by single spaces."""
    assert refused(line, b"Host: h") == 400


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Host: a", b"host: a"],
        [b"Host: a, b"],
        [b"Host: a/b"],
        [b"Host: u@a"],
        [b"Host: a", b"A: 1", b" folded"],
        [b"\tfolded", b"Host: a"],
        [b"Host: a", b"Transfer-Encoding: identity"],
        [b"Host: a", b"Transfer-Encoding: gzip, chunked"],
        [b"Host: a", b"Content-Length: +1"],
        [b"Host: a", b"Content-Length: 1, 1"],
        [b"Host: a", b"Content-Length: " + b"1" * 5000],
    ],
)
def test_ambiguous_fields_are_refused(fields: list[bytes]) -> None:
    """Missing, repeated or invalid hosts; folded lines; unknown codings and lengths."""
    assert refused(b"GET / HTTP/1.1", *fields) == 400


def test_http_1_0_needs_no_host_and_knows_no_coding() -> None:
    """RFC 9112 section 6.1: a coding in HTTP/1.0 is faulty framing."""
    head = b"GET / HTTP/1.0\r\n\r\n"
    assert to_origin_form(head) == head
    assert refused(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") == 400


def test_heads_and_the_bytes_between_them_are_taken_separately() -> None:
    """Empty lines before a head are ignored."""
    received = HeadBuffer(100)
    received.bytes += b"\r\n" + SHORT_HEAD + b"body"
    assert received.take_head() == SHORT_HEAD
    assert (len(received.bytes), received.take(), len(received.bytes)) == (4, b"body", 0)
    received.put_back(SHORT_HEAD)
    assert received.take_head() == SHORT_HEAD


def test_a_head_in_pieces_is_partial_until_its_last_byte() -> None:
    """An empty line does not begin one."""
    received = HeadBuffer(100)
    received.bytes += b"\r\n"
    assert (received.take_head(), received.has_partial_head) == (None, False)
    for place in range(len(SHORT_HEAD) - 1):
        received.bytes += SHORT_HEAD[place : place + 1]
        assert (received.take_head(), received.has_partial_head) == (None, True)
    received.bytes += SHORT_HEAD[-1:]
    assert (received.take_head(), received.has_partial_head) == (SHORT_HEAD, False)


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
    client.send(PUT_HEAD + b"Content-Type: a/b\r\n\r\n")
    body = reader.requests[0].body
    assert verifyObject(IBody, body)
    assert body is not None
    assert (body.descriptor.size, body.descriptor.media_type) == (10, "a/b")


def test_a_body_is_streamed_and_the_next_request_follows(client: Client, reader: BodyReader) -> None:
    client.send(PUT_HEAD + b"\r\n01")
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
    sent = data.draw(st.sampled_from([PUT_HEAD + b"\r\n0123456789", chunks])) + GET
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
    client.send(PUT_HEAD + b"\r\n01")
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
    client.send(PUT_HEAD + b"\r\n01")
    reader.respond = lambda: None  # type: ignore[method-assign]
    reader.read()
    assert client.paused
    reader.consumer.resume()
    client.send(b"23456789")
    assert (reader.consumer.data, client.paused) == (b"0123456789", False)


def test_100_is_sent_once_when_the_body_is_wanted(client: Client, reader: BodyReader) -> None:
    client.send(PUT_HEAD + EXPECT)
    assert client.line.transport.value() == b""
    reader.read()
    assert client.line.transport.value() == CONTINUE
    reader.consumer.pause()
    reader.consumer.resume()
    assert client.line.transport.value() == CONTINUE


@pytest.mark.parametrize("sent", [PUT_HEAD + EXPECT + b"01", PUT_HEAD.replace(b"1.1", b"1.0") + EXPECT])
def test_100_is_not_sent_after_the_body_or_to_http_1_0(
    client: Client, reader: BodyReader, sent: bytes
) -> None:
    client.send(sent)
    reader.read()
    assert client.line.transport.value() == b""


def test_100_is_not_sent_before_a_refusal(client: Client, reader: BodyReader) -> None:
    client.send(PUT_HEAD + EXPECT)
    reader.refuse(403)
    assert (client.line.answer.status, client.line.answer["Connection"]) == (403, "close")


def test_after_an_early_response_the_body_is_discarded(client: Client, reader: BodyReader) -> None:
    """None of it is taken for a request."""
    client.send(PUT_HEAD + b"\r\n01")
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
    client.send(PUT_HEAD + b"\r\n01")
    reader.read().done.cancel()
    reader.refuse(500)
    client.send(b"23")
    assert (reader.consumer.data, reader.consumer.producer) == (b"01", None)


def test_a_client_that_stops_sending_gets_408(client: Client, reader: BodyReader) -> None:
    client.send(PUT_HEAD + b"\r\n01234")
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
    client.send(PUT_HEAD + b"\r\n")
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
    client.send(PUT_HEAD + b"\r\n0123456789")
    reader.read()
    client.send(PUT_HEAD + b"\r\n")
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
    client.send(PUT_HEAD + b"\r\n0")
    reader.read().consumer.leave()
    client.send(b"123")
    assert (reader.consumer.data, len(reader.errors)) == (b"0", 1)
