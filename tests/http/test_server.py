"""The HTTP server, from bytes to bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from io import BytesIO
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor as twisted_reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from dockmirror.http.limits import HttpLimits
from dockmirror.http.server import HttpSite, LimitedHTTPChannel
from dockmirror.http.server_request import ServerRequest
from dockmirror.oci.errors import RegistryError

reactor: Any = twisted_reactor

LIMITS = HttpLimits(head_bytes=512, linger_bytes=1000)
GET = b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n"
LARGE = b"POST /auth HTTP/1.1\r\nHost: h\r\nContent-Length: 17\r\n\r\n"


class Pages(Resource):
    """A resource that repeats the request; ``/later`` is answered by the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[ServerRequest] = []

    def render_GET(self, request: ServerRequest) -> bytes | int:
        """Respond, fail or wait, by the path."""
        self.seen.append(request)
        if request.path == b"/broken":
            raise ZeroDivisionError("secret")
        if request.path == b"/begun":
            request.write(b"begun")
            raise ZeroDivisionError("secret")
        if request.path == b"/text":
            return "no bytes"  # type: ignore[return-value]
        return NOT_DONE_YET if request.path == b"/later" else request.uri

    def render_POST(self, request: ServerRequest) -> bytes:
        """Repeat the body."""
        self.seen.append(request)
        assert isinstance(request.content, BytesIO)
        return b"posted " + request.content.read()


def body_limit(request: ServerRequest) -> int:
    """Return sixteen bytes for one path, as the token service would."""
    return 16 if (request.method, request.path) == (b"POST", b"/auth") else 0


class Answer(NamedTuple):
    """A response as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Kept(BytesIO):
    def makefile(self, _: str) -> _Kept:
        return self

    def close(self) -> None:
        """Keep the buffer, which holds the next response too."""


class Line:
    """A client's end of a connection."""

    def __init__(self, site: HttpSite) -> None:
        self.transport = StringTransport()
        built: Any = site.buildProtocol(None)
        self.channel: LimitedHTTPChannel = built
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> Line:
        """Send, unless the server has closed."""
        if not self.transport.disconnecting:
            self.channel.dataReceived(data)
        return self

    def leave(self) -> None:
        """Close the connection."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def answers(self) -> list[Answer]:
        """Return all responses so far."""
        received: Any = _Kept(self.transport.value())
        answers = []
        while received.tell() < len(received.getvalue()):
            response = HTTPResponse(received)
            response.begin()
            answers.append(Answer(response.status, dict(response.getheaders()), response.read()))
        return answers

    @property
    def answer(self) -> Answer:
        """Return the only response."""
        (answer,) = self.answers
        return answer

    @property
    def statuses(self) -> list[int]:
        """Return the statuses of all responses so far."""
        return [answer.status for answer in self.answers]

    @property
    def closed(self) -> bool:
        """Tell whether the server has closed."""
        return self.transport.disconnecting


class House:
    """A site with its clock, log and clients."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pages = Pages()
        self.log: list[ServerRequest] = []
        self.site = HttpSite(
            self.pages, self.clock, body_limit=body_limit, limits=LIMITS, log=self.log.append
        )

    def connect(self) -> Line:
        """Return a new client."""
        return Line(self.site)

    def pass_time(self, *seconds: float) -> None:
        """Advance the clock in steps."""
        self.clock.pump(seconds)


@pytest.fixture
def house() -> House:
    return House()


@implementer(ILogObserver)
class Failures(list[Failure]):
    """The failures that are logged."""

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.append(event["log_failure"])


@pytest.fixture
def failures() -> Iterator[Failures]:
    """Return the failures that are logged during the test."""
    seen = Failures()
    globalLogPublisher.addObserver(seen)
    yield seen
    globalLogPublisher.removeObserver(seen)


def error(answer: Answer) -> str:
    """Return the code of an error in the registry's format."""
    assert answer.headers["Content-Type"] == "application/json"
    (entry,) = json.loads(answer.body)["errors"]
    assert set(entry) == {"code", "message", "detail"}
    assert isinstance(entry["code"], str)
    return entry["code"]


def assert_refused(line: Line, status: int, code: str = "UNSUPPORTED") -> None:
    """Expect a single error, and no reaction to further input."""
    assert (line.answer.status, error(line.answer)) == (status, code)
    assert line.answer.headers["Connection"] == "close"
    assert line.answer.headers["Content-Length"] == str(len(line.answer.body))
    line.send(GET)
    assert line.statuses == [status]


class TestKeptAlive:
    """Requests on a kept connection."""

    def test_response_headers(self, house: House) -> None:
        """Server, date and length are set, and no media type is guessed."""
        answer = house.connect().send(GET).answer
        assert answer.headers == {
            "Server": "dockmirror", "Date": "Thu, 01 Jan 1970 00:00:00 GMT", "Content-Length": "4",
        }  # fmt: skip

    def test_pipelined_requests_wait_for_their_turn(self, house: House) -> None:
        line = house.connect().send(LATER + GET).send(GET)
        assert line.statuses == []
        house.pages.seen[0].finish()
        assert [answer.body for answer in line.answers] == [b"", b"/v2/", b"/v2/"]

    def test_empty_lines_before_a_request_are_ignored(self, house: House) -> None:
        """Some clients end a body with one (RFC 9112 section 2.2)."""
        line = house.connect().send(b"\r\n" + GET).send(b"\r\n\r").send(b"\n").send(GET)
        assert line.statuses == [200, 200]

    @pytest.mark.parametrize("option", [b"close", b"Close, TE", b"TE,close", b"te\r\nConnection: close"])
    def test_a_client_may_ask_to_close(self, house: House, option: bytes) -> None:
        """The option may stand anywhere in the list."""
        line = house.connect().send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\n\r\n" % option)
        assert line.answer.headers["Connection"] == "close"
        assert line.closed

    def test_http_1_0_closes(self, house: House) -> None:
        """The end of its connection may be the only end of a response."""
        line = house.connect().send(b"GET / HTTP/1.0\r\n\r\n")
        assert line.answer.status == 200
        assert line.closed

    def test_absolute_form_is_understood(self, house: House) -> None:
        """The request is the same as with path and host apart."""
        house.connect().send(b"GET http://r.example/v2/?n=1 HTTP/1.1\r\nHost: proxy\r\n\r\n")
        (request,) = house.pages.seen
        assert (request.uri, request.path, request.args) == (b"/v2/?n=1", b"/v2/", {b"n": [b"1"]})
        assert request.requestHeaders.getRawHeaders(b"host") == [b"r.example"]

    def test_http_2_is_not_offered(self, house: House) -> None:
        """Proxies in front may speak it."""
        assert house.site.acceptableProtocols() == [b"http/1.1"]


class TestRefused:
    """Requests that are refused before a resource sees them."""

    @pytest.mark.parametrize(
        "fields",
        [
            b"Content-Length: 1\r\nContent-Length: 1",
            b"Content-Length: 1\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 1",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: identity",
            b"Content-Length: -1",
            b"Content-Length : 1",
            b"A: 1\r\n folded",
            b"A: 1\rB: 2",
            b"A: 1\nB: 2",
            b"A: \x00",
            b"no colon",
            b": no name",
            b"Host: other",
        ],
    )
    def test_ambiguous_framing_is_refused(self, house: House, fields: bytes) -> None:
        """Another server in the chain could read it differently."""
        line = house.connect().send(b"POST /auth HTTP/1.1\r\nHost: h\r\n%b\r\n\r\nG" % fields)
        assert_refused(line, 400)
        assert house.pages.seen == []

    @pytest.mark.parametrize(
        "line",
        [
            b"GET * HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET /\xe9 HTTP/1.1",
            b"GET / HTTP/2.0",
            b"G(T / HTTP/1.1",
        ],
    )
    def test_invalid_request_lines_are_refused(self, house: House, line: bytes) -> None:
        assert_refused(house.connect().send(line + b"\r\nHost: h\r\n\r\n"), 400)

    def test_a_tls_hello_is_refused_at_once(self, house: House) -> None:
        """A client that tries https first and then http, as dockerd does, must not wait."""
        assert_refused(house.connect().send(b"\x16\x03\x01\x02\x00"), 400)

    @pytest.mark.parametrize("field", [b"A: b\r\n", b"A: " + b"b" * 600 + b"\r\n", b"b" * 600])
    def test_a_head_that_is_too_large_is_refused(self, house: House, field: bytes) -> None:
        """It may have many lines or one, with or without an end."""
        line = house.connect().send(GET[:-2])
        for _ in range(512 // len(field) + 1):
            line.send(field)
        assert_refused(line, 431)

    def test_a_head_may_be_as_large_as_the_limit(self) -> None:
        """One line may have 64 KiB, where Twisted's own limits are lower."""
        site = HttpSite(Pages(), Clock())
        head = GET[:-2] + b"A: " + b"b" * (65536 - len(GET) - len(b"A: \r\n")) + b"\r\n\r\n"
        assert Line(site).send(head).answer.status == 200
        assert_refused(Line(site).send(head[:-4] + b"b\r\n\r\n"), 431)

    def test_a_later_request_may_be_refused_too(self, house: House) -> None:
        """The refusal follows the responses to earlier requests."""
        line = house.connect().send(GET + b"nonsense\r\n\r\n" + GET)
        assert line.statuses == [200, 400]

    def test_refusals_are_logged(self, house: House) -> None:
        house.connect().send(b"nonsense\r\n\r\n")
        assert [(request.code, request.is_cut_off) for request in house.log] == [(400, False)]


class TestTime:
    """Time limits of clients."""

    def test_a_silent_connection_closes(self, house: House) -> None:
        """No response is sent."""
        line = house.connect()
        house.pass_time(14.9)
        assert not line.closed
        house.pass_time(0.1)
        assert line.closed
        assert line.answers == []

    def test_a_byte_now_and_then_does_not_help(self, house: House) -> None:
        """The head has 15 seconds from its first byte."""
        line = house.connect()
        for byte in GET[:14]:
            line.send(bytes([byte]))
            house.pass_time(1)
        assert line.answers == []
        house.pass_time(1)
        assert_refused(line, 408, "UNKNOWN")

    def test_empty_lines_do_not_extend_the_time(self, house: House) -> None:
        line = house.connect()
        for _ in range(15):
            line.send(b"\r")
            house.pass_time(0.5)
            line.send(b"\n")
            house.pass_time(0.5)
        assert_refused(line, 408, "UNKNOWN")

    def test_a_later_head_has_as_long(self, house: House) -> None:
        """Its first byte may come with the request before it."""
        line = house.connect().send(GET + b"G")
        house.pass_time(14.9)
        assert line.statuses == [200]
        house.pass_time(0.1)
        assert line.statuses == [200, 408]

    def test_an_idle_connection_is_kept_for_90_seconds(self, house: House) -> None:
        """Then it is closed without a response."""
        line = house.connect().send(GET)
        house.pass_time(89.9)
        line.send(GET)
        house.pass_time(89.9)
        assert not line.closed
        house.pass_time(0.1)
        assert line.closed
        assert line.statuses == [200, 200]

    def test_a_response_may_take_as_long_as_it_needs(self, house: House) -> None:
        line = house.connect().send(LATER)
        house.pass_time(*[100] * 100)
        house.pages.seen[0].finish()
        assert line.answer.status == 200

    def test_a_client_that_reads_nothing_is_aborted(self, house: House) -> None:
        """It has ten minutes from the last bytes that it read."""
        line = house.connect().send(LATER)
        line.channel.pauseProducing()
        house.pass_time(400)
        line.channel.resumeProducing()
        line.channel.pauseProducing()
        house.pass_time(200, 399.9)
        assert not line.transport.disconnected
        house.pass_time(0.1)
        assert line.transport.disconnected

    def test_a_slow_client_is_not_aborted(self, house: House) -> None:
        line = house.connect().send(LATER)
        for _ in range(20):
            line.channel.pauseProducing()
            house.pass_time(599)
            line.channel.resumeProducing()
        house.pass_time(1000)
        assert not line.transport.disconnected
        line.leave()
        assert house.clock.getDelayedCalls() == []

    def test_a_collected_body_has_30_seconds(self, house: House) -> None:
        line = house.connect().send(LARGE.replace(b"17", b"16"))
        for _ in range(14):
            house.pass_time(2)
            line.send(b"x")
        assert line.answers == []
        house.pass_time(2)
        assert_refused(line, 408, "UNKNOWN")

    def test_a_closing_connection_that_is_not_read_is_aborted(self, house: House) -> None:
        """It has as long as an idle one."""
        line = house.connect()
        house.pass_time(15, 89.9)
        assert not line.transport.disconnected
        house.pass_time(0.1)
        assert line.transport.disconnected

    def test_nothing_is_left_scheduled(self, house: House) -> None:
        """The client may leave at any point."""
        for sent in (b"", b"GET", GET, LATER, LARGE, LARGE + b"x", GET.replace(b"v2", b"*"), b"\x16"):
            house.connect().send(sent).leave()
        assert house.clock.getDelayedCalls() == []
        assert house.site.connections.open_count == 0


class TestBody:
    """Request bodies that are collected, and those that are not read."""

    def test_a_collected_body_is_complete_when_the_request_is_processed(self, house: House) -> None:
        """It is in memory, and the next request follows it."""
        line = house.connect().send(LARGE.replace(b"17", b"16") + b"client_id=docker" + GET)
        assert [answer.body for answer in line.answers] == [b"posted client_id=docker", b"/v2/"]

    def test_a_chunked_body_is_counted_as_it_arrives(self, house: House) -> None:
        """Up to the limit it is a body like any other."""
        head = b"POST /auth HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        line = house.connect().send(head + b"10\r\n0123456789abcdef\r\n0\r\n\r\n" + GET)
        assert [answer.body for answer in line.answers] == [b"posted 0123456789abcdef", b"/v2/"]
        assert_refused(house.connect().send(head + b"f\r\n0123456789abcde\r\n2\r\nfg"), 413, "SIZE_INVALID")
        assert_refused(house.connect().send(head + b"f\r\n0123456789abcdefg"), 400)

    def test_forms_are_not_parsed(self, house: House) -> None:
        """The query is."""
        form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=1"
        house.connect().send(b"POST /auth?b=2 HTTP/1.1\r\nHost: h\r\n" + form)
        assert house.pages.seen[0].args == {b"b": [b"2"]}

    def test_a_body_announced_as_too_large_is_refused_at_once(self, house: House) -> None:
        assert_refused(house.connect().send(LARGE), 413, "SIZE_INVALID")

    @pytest.mark.parametrize("framing", [b"Content-Length: 60", b"Transfer-Encoding: chunked"])
    def test_an_unread_body_delays_no_response(self, house: House, framing: bytes) -> None:
        """Its bytes are not taken for a request, even if they look like one."""
        line = house.connect().send(b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % framing)
        assert (line.answer.body, line.answer.headers["Connection"]) == (b"posted ", "close")
        line.send(GET)
        assert len(house.pages.seen) == 1
        assert not line.closed

    def test_the_connection_closes_with_the_end_of_the_body(self, house: House) -> None:
        """Nothing is unread then, so the client gets the response."""
        assert house.connect().send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab").closed
        line = house.connect().send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
        assert not line.closed
        assert line.send(b"b" + GET).closed
        assert len(house.pages.seen) == 2

    def test_a_client_that_sends_on_gets_time_to_read(self, house: House) -> None:
        """It has five seconds, or so many bytes, from the end of the response."""
        upload = LATER[:-2] + b"Content-Length: 9999\r\n\r\n"
        line, other = house.connect().send(upload), house.connect().send(upload)
        for client in (line, other):
            client.send(b"x" * 2000)
        house.pass_time(60)
        for request in house.pages.seen:
            request.finish()
        other.send(b"x" * 999)
        house.pass_time(4.9)
        assert (line.closed, other.closed) == (False, False)
        assert other.send(b"x").closed
        house.pass_time(0.1)
        assert line.closed

    def test_a_client_that_leaves_while_its_body_is_discarded_is_noticed(self, house: House) -> None:
        line = house.connect().send(LATER[:-2] + b"Content-Length: 9999\r\n\r\n").send(b"x" * 5000)
        told: list[Failure] = []
        house.pages.seen[0].notifyFinish().addErrback(told.append)
        line.leave()
        assert len(told) == 1

    @pytest.mark.parametrize("method", [b"GET", b"POST"])
    def test_a_method_that_is_not_allowed_is_refused(self, house: House, method: bytes) -> None:
        """The error has the registry's format, and lists the allowed methods."""
        line = house.connect().send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        assert (line.answer.status, error(line.answer)) == (405, "UNSUPPORTED")
        assert method in line.answer.headers["Allow"].encode().split(b", ")


class TestExpect:
    """``Expect: 100-continue``."""

    EXPECT = b"Expect: 100-continue\r\n\r\n"

    def test_100_is_sent_for_a_collected_body(self, house: House) -> None:
        line = house.connect().send(LARGE.replace(b"17\r\n\r\n", b"2\r\n" + self.EXPECT))
        assert line.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.send(b"ab")
        assert line.answer.body == b"posted ab"

    @pytest.mark.parametrize(
        ("head", "status"),
        [(LARGE, 413), (LARGE.replace(b"auth", b"v2"), 200), (GET, 200), (b"PUT" + LARGE[4:], 405)],
    )
    def test_any_other_request_gets_its_final_status(self, house: House, head: bytes, status: int) -> None:
        """There may be no body, or it is too large, or nobody reads it."""
        line = house.connect().send(head[:-2] + self.EXPECT)
        assert line.transport.value().startswith(b"HTTP/1.1 %d " % status)


class TestFailing:
    """Failing resources, clients that leave, and the log of both."""

    @pytest.mark.parametrize("path", [b"/broken", b"/text"])
    def test_a_failure_is_an_error_without_details(
        self, house: House, failures: Failures, path: bytes
    ) -> None:
        """The details are logged; the connection stays open."""
        line = house.connect().send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path + GET)
        assert line.statuses == [500, 200]
        assert error(line.answers[0]) == "UNKNOWN"
        assert b"secret" not in line.transport.value()
        assert len(failures) == 1

    def test_a_failure_within_a_response_cuts_it_off(self, house: House, failures: Failures) -> None:
        """No client takes it for complete."""
        line = house.connect().send(b"GET /begun HTTP/1.1\r\nHost: h\r\n\r\n")
        assert line.transport.value().endswith(b"\r\n5\r\nbegun\r\n")
        assert line.transport.disconnected
        line.leave()
        assert [(request.is_cut_off, request.sentLength) for request in house.log] == [(True, 5)]
        assert len(failures) == 1

    def test_a_failure_after_the_client_left_is_only_logged(self, house: House, failures: Failures) -> None:
        house.connect().send(LATER).leave()
        house.pages.seen[0].processingFailed(Failure(ZeroDivisionError()))
        assert len(failures) == 1
        assert len(house.log) == 1

    def test_an_error_keeps_no_headers_of_the_failed_response(self, house: House, failures: Failures) -> None:
        """They described another body."""
        line = house.connect().send(LATER)
        house.pages.seen[0].setHeader(b"Docker-Content-Digest", b"sha256:00")
        house.pages.seen[0].processingFailed(Failure(ZeroDivisionError()))
        assert "Docker-Content-Digest" not in line.answer.headers
        assert len(failures) == 1

    def test_an_error_may_have_any_status(self, house: House) -> None:
        """Upstreams and proxies invent some."""
        line = house.connect().send(LATER)
        house.pages.seen[0].refuse(RegistryError(status=520))
        assert (line.answer.status, error(line.answer)) == (520, "UNKNOWN")

    def test_each_request_is_logged_once(self, house: House) -> None:
        """It is logged when its response is complete, or its client has left."""
        line = house.connect().send(GET)
        house.pass_time(7)
        line.send(LATER)
        line.leave()
        house.pages.seen[1].write(b"too late")
        first, second = house.log
        assert (first.code, first.sentLength, first.started, first.is_cut_off) == (200, 4, 0, False)
        assert (second.started, second.is_cut_off) == (7, True)

    def test_running_requests_are_counted(self, house: House) -> None:
        """A request runs from its head to the end of its response."""
        line, _ = house.connect().send(LATER), house.connect().send(GET)
        assert (house.site.connections.open_count, house.site.connections.running_requests) == (2, 1)
        house.pages.seen[0].finish()
        line.leave()
        assert (house.site.connections.open_count, house.site.connections.running_requests) == (1, 0)


class TestDrain:
    """Draining a process's connections."""

    def test_a_running_request_may_finish(self, house: House) -> None:
        """Its response says that it is the last; pipelined requests are not begun."""
        line = house.connect().send(LATER + LATER)
        house.site.connections.drain(10)
        assert not line.closed
        house.pages.seen[0].finish()
        assert (line.answer.status, line.answer.headers["Connection"]) == (200, "close")
        assert line.closed
        assert len(house.pages.seen) == 1

    def test_a_response_that_has_begun_may_finish(self, house: House) -> None:
        """Its headers were sent too early to say so."""
        line = house.connect().send(LATER)
        house.pages.seen[0].write(b"begun")
        house.site.connections.drain(10)
        house.pages.seen[0].finish()
        assert line.answer.body == b"begun"
        assert line.closed

    def test_idle_connections_close_at_once(self, house: House) -> None:
        """So do older ones that never sent anything."""
        kept, old = house.connect().send(GET), house.connect()
        house.pass_time(2)
        young = house.connect()
        house.site.connections.drain(10)
        assert (kept.closed, old.closed, young.closed) == (True, True, False)

    def test_a_young_connection_may_still_send_its_request(self, house: House) -> None:
        """It has until it is two seconds old."""
        silent, asking = house.connect(), house.connect()
        house.pass_time(1.5)
        house.site.connections.drain(10)
        late = house.connect()
        assert asking.send(GET).answer.headers["Connection"] == "close"
        assert (silent.closed, asking.closed) == (False, True)
        house.pass_time(0.5)
        assert (silent.closed, late.closed) == (True, False)
        house.pass_time(1.5)
        assert late.closed

    @pytest.mark.parametrize("cut", [1, len(GET) - 1])
    def test_a_request_that_is_arriving_is_answered(self, house: House, cut: int) -> None:
        line = house.connect().send(GET[:cut])
        house.site.connections.drain(10)
        line.send(GET[cut:])
        assert (line.answer.status, line.answer.headers["Connection"]) == (200, "close")
        assert line.closed

    def test_a_request_that_outlasts_the_grace_is_aborted(self, house: House) -> None:
        """The request is told."""
        line = house.connect().send(LATER)
        outcome: list[int] = []
        house.site.connections.drain(10).addCallback(outcome.append)
        house.pass_time(10)
        assert line.transport.disconnected
        line.leave()
        assert outcome == [1]
        assert house.log[0].is_cut_off


PIECES = [
    GET, LATER[:-2] + b"Connection: close\r\n\r\n", LARGE, LARGE.replace(b"17", b"3") + b"abc",
    b"\r\n", b"\r", b"nonsense\r\n\r\n", b"A: 1\r\n", b"x" * 300,
    b"POST /auth HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + GET,
    b"GET http://a/b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join), st.lists(st.integers(0, 2000)))
def test_pieces_make_no_difference(sent: bytes, cuts: list[int]) -> None:
    """Any pieces of a stream give the same requests, responses and end."""

    def outcome(pieces: list[bytes]) -> object:
        house = House()
        line = house.connect()
        for piece in pieces:
            line.send(piece)
        for request in house.pages.seen:
            if not request.finished and request.path == b"/later":
                request.finish()
        return line.transport.value(), line.closed, [(request.method, request.uri) for request in house.log]

    edges = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    pieces = [sent[start:end] for start, end in pairwise(edges)]
    assert outcome(pieces) == outcome([sent]) == outcome([sent[i : i + 1] for i in range(len(sent))])


async def _with_server(site: HttpSite, client: Callable[[int], Any]) -> Any:
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        return await deferToThread(client, port.getHost().port)
    finally:
        await port.stopListening()
        await site.connections.drain(1)


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_a_blocking_client_reads_the_refusal_of_a_large_upload() -> None:
    """A client that sends 8 MiB before it reads would lose the response to a reset."""

    def upload(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            size = 8 * 1024 * 1024
            client.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
            client.sendall(bytes(size))
            return client.makefile("rb").read()

    answer = await _with_server(HttpSite(Pages(), reactor), upload)
    assert answer.startswith(b"HTTP/1.1 405 ")


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_a_drain_waits_for_a_running_response() -> None:
    """An idle connection closes at once, a running one after its response."""
    pages = Pages()
    site = HttpSite(pages, reactor)

    def clients(port: int) -> list[bytes]:
        idle, busy = (socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2))
        with idle, busy:
            idle.sendall(GET)
            first = idle.recv(4096)
            busy.sendall(LATER)
            reactor.callFromThread(reactor.callLater, 0.2, site.connections.drain, 10)
            end = idle.recv(4096)
            reactor.callFromThread(lambda: pages.seen[1].finish())
            return [first, end, busy.makefile("rb").read()]

    first, end, last = await _with_server(site, clients)
    assert (first[:12], end, last[:12]) == (b"HTTP/1.1 200", b"", b"HTTP/1.1 200")
    assert b"Connection: close" in last


def test_a_failing_log_leaks_no_connection(house: House) -> None:

    def fail(_: ServerRequest) -> None:
        raise ZeroDivisionError

    house.site.serve(house.pages, fail)
    line = house.connect().send(LATER)
    with pytest.raises(ZeroDivisionError):
        line.leave()
    assert house.site.connections.open_count == 0


def test_a_request_is_shown_without_its_query() -> None:
    """Passwords come in queries."""
    shown: list[str] = []
    site = HttpSite(Pages(), Clock(), log=lambda request: shown.append(repr(request)))
    Line(site).send(b"GET /v2/auth?password=s3cret HTTP/1.1\r\nHost: a\r\n\r\n")
    assert shown == ["<ServerRequest b'GET' b'/v2/auth'>"]
