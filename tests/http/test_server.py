"""The HTTP server, from bytes to bytes."""

# mypy: allow-untyped-calls

from __future__ import annotations

import socket
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor as twisted_reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from dockmirror.http.connections import HttpLimits
from dockmirror.http.server import HttpSite, LimitedHTTPChannel
from dockmirror.http.server_request import ServerRequest
from dockmirror.oci.errors import RegistryError
from tests.house import Answer, read_answers
from tests.stacks import logged

reactor: Any = twisted_reactor

LIMITS = HttpLimits(head_bytes=512, linger_bytes=1000)
GET = b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n"
LARGE = b"POST /auth HTTP/1.1\r\nHost: h\r\nContent-Length: 17\r\n\r\n"
SMALL = LARGE.replace(b"17", b"16")
UNREAD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"
UPLOAD = LATER[:-2] + b"Content-Length: 9999\r\n\r\n"


class Pages(Resource):
    """A resource that repeats the request; ``/later`` is answered by the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[ServerRequest] = []

    def render_GET(self, request: ServerRequest) -> bytes | int:
        """Respond, fail or wait, by the path."""
        self.seen.append(request)
        if request.path == b"/begun":
            request.write(b"begun")
        if request.path in (b"/broken", b"/begun"):
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


class Line:
    """A client's end of a connection."""

    def __init__(self, site: HttpSite) -> None:
        self.transport = StringTransport()
        self._clock: Any = site.reactor
        built: Any = site.buildProtocol(None)
        self.channel: LimitedHTTPChannel = built
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> Line:
        """Send, unless the server has closed, and let it have its turns."""
        if not self.transport.disconnecting:
            self.channel.dataReceived(data)
            self._clock.advance(0)
        return self

    def leave(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def answers(self) -> list[Answer]:
        return read_answers(self.transport.value())

    @property
    def answer(self) -> Answer:
        """Return the only response."""
        (answer,) = self.answers
        return answer

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def closed(self) -> bool:
        """Tell whether the server has closed."""
        return self.transport.disconnecting


class Site:
    """A site with its clock, log and clients."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pages = Pages()
        self.log: list[ServerRequest] = []
        self.site = HttpSite(
            self.pages, self.clock, body_limit=body_limit, limits=LIMITS, log=self.log.append
        )
        self.connections = self.site.connections

    def connect(self, sent: bytes = b"") -> Line:
        """Return a new client that has sent these bytes."""
        line = Line(self.site)
        return line.send(sent) if sent else line

    def pass_time(self, *seconds: float) -> None:
        self.clock.pump(seconds)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def failures() -> Iterator[list[str]]:
    with logged() as texts:
        yield texts


def assert_refused(line: Line, status: int, code: str = "UNSUPPORTED") -> None:
    """Expect a single error, and no reaction to further input."""
    answer = line.answer
    assert (answer.error, answer["Connection"]) == ((status, code), "close")
    assert answer["Content-Length"] == str(len(answer.body))
    line.send(GET)
    assert line.statuses == [status]


class TestKeptAlive:
    def test_a_response_has_server_date_and_length(self, site: Site) -> None:
        """No media type is guessed, and HTTP/2 is not offered: proxies in front may speak it."""
        assert site.connect(GET).answer.headers == (
            ("server", "dockmirror"), ("date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("content-length", "4"),
        )  # fmt: skip
        assert site.site.acceptableProtocols() == [b"http/1.1"]

    def test_pipelined_requests_wait_for_their_turn(self, site: Site) -> None:
        line = site.connect(LATER + GET).send(GET)
        assert line.statuses == []
        site.pages.seen[0].finish()
        site.pass_time(0)
        assert [answer.body for answer in line.answers] == [b"", b"/v2/", b"/v2/"]

    def test_other_clients_have_a_turn_between_pipelined_requests(self, site: Site) -> None:
        """Meanwhile no more is read, and the connection may be lost."""
        line, gone = site.connect(), site.connect()
        for each in (line, gone):
            each.channel.dataReceived(3 * GET)
        gone.leave()
        turns = []

        def have_turn() -> None:
            turns.append((len(line.statuses), line.transport.producerState))
            if len(turns) < 3:
                site.clock.callLater(0, have_turn)

        have_turn()
        site.pass_time(0)
        assert turns == [(1, "paused"), (2, "paused"), (3, "producing")]
        assert len(site.pages.seen) == 4

    def test_no_request_begins_while_the_client_reads_no_responses(self, site: Site) -> None:
        line = site.connect(LATER + GET)
        line.channel.pauseProducing()
        site.pages.seen[0].finish()
        line.send(GET)
        assert (line.statuses, line.transport.producerState) == ([200], "paused")
        line.channel.resumeProducing()
        site.pass_time(0)
        assert (line.statuses, line.transport.producerState) == ([200] * 3, "producing")

    def test_empty_lines_before_a_request_are_ignored(self, site: Site) -> None:
        """Some clients end a body with one (RFC 9112 section 2.2)."""
        assert site.connect(b"\r\n" + GET).send(b"\r\n\r").send(b"\n").send(GET).statuses == [200, 200]

    @pytest.mark.parametrize(
        "head",
        [
            *(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\n\r\n" % option
              for option in (b"close", b"Close, TE", b"TE,close", b"te\r\nConnection: close")),
            b"GET / HTTP/1.0\r\n\r\n",
        ],
    )  # fmt: skip
    def test_a_client_may_ask_to_close(self, site: Site, head: bytes) -> None:
        """The end of an HTTP/1.0 connection may be the only end of a response."""
        line = site.connect(head)
        assert (line.answer.status, line.answer["Connection"], line.closed) == (200, "close", True)

    def test_absolute_form_is_understood(self, site: Site) -> None:
        site.connect(b"GET http://r.example/v2/?n=1 HTTP/1.1\r\nHost: proxy\r\n\r\n")
        (request,) = site.pages.seen
        assert (request.uri, request.path, request.args) == (b"/v2/?n=1", b"/v2/", {b"n": [b"1"]})
        assert request.requestHeaders.getRawHeaders(b"host") == [b"r.example"]


class TestRefused:
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
    def test_ambiguous_framing_is_refused(self, site: Site, fields: bytes) -> None:
        """Another server in the chain could read it differently."""
        assert_refused(site.connect(b"POST /auth HTTP/1.1\r\nHost: h\r\n%b\r\n\r\nG" % fields), 400)
        assert site.pages.seen == []

    @pytest.mark.parametrize(
        "head",
        [
            b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
            b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"nonsense\r\n\r\n" + GET,
        ],
    )
    def test_invalid_request_lines_are_refused_and_logged(self, site: Site, head: bytes) -> None:
        assert_refused(site.connect(head), 400)
        assert [(request.code, request.is_cut_off) for request in site.log] == [(400, False)]

    def test_a_tls_hello_is_refused_at_once_and_not_logged(self, site: Site) -> None:
        """It must not wait for more: dockerd tries https first, and then http."""
        assert_refused(site.connect(b"\x16\x03\x01\x02\x00"), 400)
        assert site.log == []

    @pytest.mark.parametrize("field", [b"A: b\r\n", b"A: " + b"b" * 600 + b"\r\n", b"b" * 600])
    def test_a_head_that_is_too_large_is_refused(self, site: Site, field: bytes) -> None:
        """It may have many lines or one, with or without an end."""
        line = site.connect(GET[:-2])
        for _ in range(512 // len(field) + 1):
            line.send(field)
        assert_refused(line, 431)

    def test_a_head_may_be_as_large_as_the_limit(self) -> None:
        """One line may have 64 KiB, where Twisted's own limits are lower."""
        site = HttpSite(Pages(), Clock())
        head = GET[:-2] + b"A: " + b"b" * (65536 - len(GET) - len(b"A: \r\n")) + b"\r\n\r\n"
        assert Line(site).send(head).answer.status == 200
        assert_refused(Line(site).send(head[:-4] + b"b\r\n\r\n"), 431)


class TestTime:
    def test_a_silent_connection_closes_without_a_response(self, site: Site) -> None:
        line = site.connect()
        site.pass_time(14.9)
        assert not line.closed
        site.pass_time(0.1)
        assert (line.closed, line.answers) == (True, [])

    @pytest.mark.parametrize(
        ("sent", "pause"), [([bytes([byte]) for byte in GET[:14]], 1), ([b"\r", b"\n"] * 14, 0.5)]
    )
    def test_a_head_has_15_seconds_in_all(self, site: Site, sent: list[bytes], pause: float) -> None:
        """Neither bytes now and then nor empty lines extend the time."""
        line = site.connect()
        for data in sent:
            line.send(data)
            site.pass_time(pause)
        assert line.answers == []
        line.send(b"\r")
        site.pass_time(1)
        assert_refused(line, 408, "UNKNOWN")

    def test_a_later_head_has_as_long(self, site: Site) -> None:
        """Its first byte may come with the request before it."""
        line = site.connect(GET + b"G")
        site.pass_time(14.9)
        assert line.statuses == [200]
        site.pass_time(0.1)
        assert line.statuses == [200, 408]

    def test_an_idle_connection_is_kept_for_90_seconds(self, site: Site) -> None:
        line = site.connect(GET)
        site.pass_time(89.9)
        line.send(GET)
        site.pass_time(89.9)
        assert not line.closed
        site.pass_time(0.1)
        assert (line.closed, line.statuses) == (True, [200, 200])

    def test_a_response_may_take_as_long_as_it_needs(self, site: Site) -> None:
        line = site.connect(LATER)
        site.pass_time(*[100] * 100)
        site.pages.seen[0].finish()
        assert line.answer.status == 200

    def test_a_client_that_reads_nothing_for_ten_minutes_is_aborted(self, site: Site) -> None:
        """A slow one is not."""
        line = site.connect(LATER)
        for _ in range(20):
            line.channel.pauseProducing()
            site.pass_time(599)
            line.channel.resumeProducing()
        site.pass_time(1000)
        line.channel.pauseProducing()
        site.pass_time(599.9)
        assert not line.transport.disconnected
        site.pass_time(0.1)
        assert line.transport.disconnected

    def test_a_collected_body_has_30_seconds(self, site: Site) -> None:
        line = site.connect(SMALL)
        for _ in range(14):
            site.pass_time(2)
            line.send(b"x")
        assert line.answers == []
        site.pass_time(2)
        assert_refused(line, 408, "UNKNOWN")

    def test_a_closing_connection_that_is_not_read_is_aborted(self, site: Site) -> None:
        """It has as long as an idle one."""
        line = site.connect()
        site.pass_time(15, 89.9)
        assert not line.transport.disconnected
        site.pass_time(0.1)
        assert line.transport.disconnected

    def test_nothing_is_left_scheduled(self, site: Site) -> None:
        """The client may leave at any point."""
        for sent in (b"", b"GET", GET, LATER, LARGE, LARGE + b"x", GET.replace(b"v2", b"*"), b"\x16"):
            site.connect(sent).leave()
        paused = site.connect(LATER)
        paused.channel.pauseProducing()
        paused.leave()
        assert (site.clock.getDelayedCalls(), site.connections.open_count) == ([], 0)


class TestBody:
    def test_a_collected_body_is_complete_when_the_request_is_processed(self, site: Site) -> None:
        line = site.connect(SMALL + b"client_id=docker" + GET)
        assert [answer.body for answer in line.answers] == [b"posted client_id=docker", b"/v2/"]

    def test_a_chunked_body_is_counted_as_it_arrives(self, site: Site) -> None:
        head = b"POST /auth HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        line = site.connect(head + b"10\r\n0123456789abcdef\r\n0\r\n\r\n" + GET)
        assert [answer.body for answer in line.answers] == [b"posted 0123456789abcdef", b"/v2/"]
        assert_refused(site.connect(head + b"f\r\n0123456789abcde\r\n2\r\nfg"), 413, "SIZE_INVALID")
        assert_refused(site.connect(head + b"f\r\n0123456789abcdefg"), 400)

    def test_only_the_query_is_parsed_and_no_form(self, site: Site) -> None:
        form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=1"
        site.connect(b"POST /auth?b=2 HTTP/1.1\r\nHost: h\r\n" + form)
        assert site.pages.seen[0].args == {b"b": [b"2"]}

    @pytest.mark.parametrize("framing", [b"Content-Length: 60", b"Transfer-Encoding: chunked"])
    def test_an_unread_body_delays_no_response(self, site: Site, framing: bytes) -> None:
        """Its bytes are not taken for a request, even if they look like one."""
        line = site.connect(b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % framing)
        assert (line.answer.body, line.answer["Connection"]) == (b"posted ", "close")
        line.send(GET)
        assert (len(site.pages.seen), line.closed) == (1, False)

    def test_the_connection_closes_with_the_end_of_the_body(self, site: Site) -> None:
        """Nothing is unread then, so the client gets the response."""
        assert site.connect(UNREAD + b"ab").closed
        line = site.connect(UNREAD + b"a")
        assert not line.closed
        assert line.send(b"b" + GET).closed
        assert len(site.pages.seen) == 2

    def test_a_client_that_sends_on_gets_time_to_read(self, site: Site) -> None:
        """It has five seconds, or so many bytes, from the end of the response."""
        line, other = site.connect(UPLOAD), site.connect(UPLOAD)
        for client in (line, other):
            client.send(b"x" * 2000)
        site.pass_time(60)
        for request in site.pages.seen:
            request.finish()
        other.send(b"x" * 999)
        site.pass_time(4.9)
        assert (line.closed, other.closed) == (False, False)
        assert other.send(b"x").closed
        site.pass_time(0.1)
        assert line.closed

    def test_a_client_that_leaves_while_its_body_is_discarded_is_noticed(self, site: Site) -> None:
        line = site.connect(UPLOAD).send(b"x" * 5000)
        lost: list[Failure] = []
        site.pages.seen[0].notifyFinish().addErrback(lost.append)
        line.leave()
        assert len(lost) == 1

    def test_a_method_that_is_not_allowed_is_refused_with_the_allowed_ones(self, site: Site) -> None:
        answer = site.connect(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n").answer
        assert answer.error == (405, "UNSUPPORTED")
        assert {"GET", "POST"} <= set(str(answer["Allow"]).split(", "))


EXPECT = b"Expect: 100-continue\r\n\r\n"


def test_100_is_sent_for_a_collected_body(site: Site) -> None:
    line = site.connect(LARGE.replace(b"17\r\n\r\n", b"2\r\n" + EXPECT))
    assert line.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert line.send(b"ab").answer.body == b"posted ab"


@pytest.mark.parametrize(
    ("head", "status"),
    [(LARGE, 413), (LARGE.replace(b"auth", b"v2"), 200), (GET, 200), (b"PUT" + LARGE[4:], 405)],
)
def test_other_requests_that_expect_100_get_a_final_status(site: Site, head: bytes, status: int) -> None:
    """There may be no body, or it is too large, or nobody reads it."""
    line = site.connect(head[:-2] + EXPECT)
    assert line.transport.value().startswith(b"HTTP/1.1 %d " % status)
    if status == 413:
        assert_refused(site.connect(head), 413, "SIZE_INVALID")


class TestFailing:
    @pytest.mark.parametrize("path", [b"/broken", b"/text"])
    def test_a_failure_is_an_error_without_details(
        self, site: Site, failures: list[str], path: bytes
    ) -> None:
        """The details are logged; the connection stays open."""
        line = site.connect(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path + GET)
        assert (line.statuses, line.answers[0].error) == ([500, 200], (500, "UNKNOWN"))
        assert b"secret" not in line.transport.value()
        assert len(failures) == 1

    def test_a_failure_within_a_response_cuts_it_off(self, site: Site, failures: list[str]) -> None:
        """No client takes it for complete."""
        line = site.connect(b"GET /begun HTTP/1.1\r\nHost: h\r\n\r\n")
        assert line.transport.value().endswith(b"\r\n5\r\nbegun\r\n")
        assert line.transport.disconnected
        line.leave()
        assert [(request.is_cut_off, request.sentLength) for request in site.log] == [(True, 5)]
        assert len(failures) == 1

    def test_a_failure_after_the_client_left_is_only_logged(self, site: Site, failures: list[str]) -> None:
        site.connect(LATER).leave()
        site.pages.seen[0].processingFailed(Failure(ZeroDivisionError()))
        assert (len(failures), len(site.log)) == (1, 1)

    def test_an_error_keeps_no_headers_of_the_failed_response(self, site: Site, failures: list[str]) -> None:
        line = site.connect(LATER)
        site.pages.seen[0].setHeader(b"Docker-Content-Digest", b"sha256:00")
        site.pages.seen[0].processingFailed(Failure(ZeroDivisionError()))
        assert (line.answer["Docker-Content-Digest"], len(failures)) == (None, 1)
        site.connect(LATER)
        site.pages.seen[1].refuse(RegistryError(status=520))  # upstreams and proxies invent some
        assert site.log[1].code == 520

    def test_each_request_is_logged_once_at_its_end(self, site: Site) -> None:
        """It ends when its response is complete, or its client has left."""
        line = site.connect(GET)
        site.pass_time(7)
        line.send(LATER)
        line.leave()
        site.pages.seen[1].write(b"too late")
        first, second = site.log
        assert (first.code, first.sentLength, first.started, first.is_cut_off) == (200, 4, 0, False)
        assert (second.started, second.is_cut_off) == (7, True)

    def test_running_requests_are_counted(self, site: Site) -> None:
        """A request runs from its head to the end of its response."""
        line, _ = site.connect(LATER), site.connect(GET)
        assert (site.connections.open_count, site.connections.running_requests) == (2, 1)
        site.pages.seen[0].finish()
        line.leave()
        assert (site.connections.open_count, site.connections.running_requests) == (1, 0)

    def test_a_failing_log_leaks_no_connection(self, site: Site) -> None:
        def fail(_: ServerRequest) -> None:
            raise ZeroDivisionError

        site.site.serve(site.pages, fail)
        line = site.connect(LATER)
        with pytest.raises(ZeroDivisionError):
            line.leave()
        assert site.connections.open_count == 0

    def test_a_request_is_shown_without_its_query(self, site: Site) -> None:
        """Passwords come in queries."""
        site.connect(b"GET /v2/auth?password=s3cret HTTP/1.1\r\nHost: a\r\n\r\n")
        assert repr(site.log[0]) == "<ServerRequest b'GET' b'/v2/auth'>"


class TestDrain:
    @pytest.mark.parametrize("begun", [b"", b"begun"])
    def test_a_running_request_may_finish(self, site: Site, begun: bytes) -> None:
        """Pipelined requests are not begun; the response says so, unless its headers were sent already."""
        line = site.connect(LATER + LATER)
        if begun:
            site.pages.seen[0].write(begun)
        site.connections.drain(10)
        assert not line.closed
        site.pages.seen[0].finish()
        assert (line.answer.body, line.answer["Connection"]) == (begun, None if begun else "close")
        assert (line.closed, len(site.pages.seen)) == (True, 1)

    def test_idle_connections_close_at_once(self, site: Site) -> None:
        """So do older ones that never sent anything."""
        kept, old = site.connect(GET), site.connect()
        site.pass_time(2)
        young = site.connect()
        site.connections.drain(10)
        assert (kept.closed, old.closed, young.closed) == (True, True, False)

    def test_a_young_connection_may_send_its_request_until_it_is_two_seconds_old(self, site: Site) -> None:
        silent, asking = site.connect(), site.connect()
        site.pass_time(1.5)
        site.connections.drain(10)
        late = site.connect()
        assert asking.send(GET).answer["Connection"] == "close"
        assert (silent.closed, asking.closed) == (False, True)
        site.pass_time(0.5)
        assert (silent.closed, late.closed) == (True, False)
        site.pass_time(1.5)
        assert late.closed

    @pytest.mark.parametrize("cut", [1, len(GET) - 1])
    def test_a_request_that_is_arriving_is_answered(self, site: Site, cut: int) -> None:
        line = site.connect(GET[:cut])
        site.connections.drain(10)
        line.send(GET[cut:])
        assert (line.answer.status, line.answer["Connection"], line.closed) == (200, "close", True)

    def test_a_request_that_outlasts_the_grace_is_aborted(self, site: Site) -> None:
        line = site.connect(LATER)
        outcome: list[int] = []
        site.connections.drain(10).addCallback(outcome.append)
        site.pass_time(10)
        assert line.transport.disconnected
        line.leave()
        assert (outcome, site.log[0].is_cut_off) == ([1], True)


PIECES = [
    GET, LATER[:-2] + b"Connection: close\r\n\r\n", LARGE, LARGE.replace(b"17", b"3") + b"abc",
    b"\r\n", b"\r", b"nonsense\r\n\r\n", b"A: 1\r\n", b"x" * 300,
    b"POST /auth HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + GET,
    b"GET http://a/b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join), st.lists(st.integers(0, 2000)))
def test_any_pieces_of_a_stream_give_the_same_responses(sent: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        site = Site()
        line = site.connect()
        for piece in pieces:
            line.send(piece)
        for request in site.pages.seen:
            if not request.finished and request.path == b"/later":
                request.finish()
                site.pass_time(0)
        return line.transport.value(), line.closed, [(request.method, request.uri) for request in site.log]

    edges = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    pieces = [sent[start:end] for start, end in pairwise(edges)]
    assert outcome(pieces) == outcome([sent]) == outcome([sent[i : i + 1] for i in range(len(sent))])


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_a_blocking_client_reads_the_refusal_of_a_large_upload() -> None:
    """A client that sends 8 MiB before it reads would lose the response to a reset."""

    def upload(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            size = 8 * 1024 * 1024
            client.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
            client.sendall(bytes(size))
            return client.makefile("rb").read()

    site = HttpSite(Pages(), reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        answer = await deferToThread(upload, port.getHost().port)
    finally:
        await port.stopListening()
        await site.connections.drain(1)
    assert answer.startswith(b"HTTP/1.1 405 ")
