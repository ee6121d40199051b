"""Server-sent events."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterable

import pytest

from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.oci.errors import Denied, RegistryError
from dockmirror.web.events import KEEP_ALIVE, LIFETIME, EventStream, NextEvent, encode_event
from tests.house import Connection, House
from tests.internet import Internet


class Page:
    """A site that has nothing but a stream of these events, of which None is none."""

    def __init__(self, events: Iterable[str | RegistryError | None] = (), most: int = 64) -> None:
        self.events = iter(events)
        self.asked = 0
        self.refusal: RegistryError | None = None
        self.house = House(Internet())
        self.house.site = HttpSite(EventStream(self._subscribe, self.house.clock, most), self.house.clock)

    def _subscribe(self, request: ServerRequest) -> NextEvent:
        if self.refusal:
            raise self.refusal

        async def next_event() -> str | None:
            self.asked += 1
            event = next(self.events, None)
            if isinstance(event, RegistryError):
                raise event
            return event

        return next_event

    def connect(self, method: str = "GET") -> Connection:
        return self.house.connect().ask(method, "mirror.example", "/")

    def pass_seconds(self, seconds: float) -> None:
        self.house.pass_time(*[1.0] * int(seconds))


def received(viewer: Connection) -> bytes:
    """Return the pieces that came after the head, whole or not."""
    data: bytes = viewer.transport.value()
    return b"".join(data.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("one", b"data: one\n\n"),
        ("a\nb\r\nc\n", b"data: a\ndata: b\ndata: c\n\n"),
        ("", b"data: \n\n"),
        ("拉取", "data: 拉取\n\n".encode()),
    ],
)
def test_each_line_of_a_text_is_a_line_of_data(text: str, encoded: bytes) -> None:
    assert encode_event(text) == encoded


def test_each_second_brings_an_event_if_there_is_one() -> None:
    page = Page(["one", None, "two"])
    viewer = page.connect()
    assert b"Content-Type: text/event-stream; charset=utf-8\r\n" in viewer.transport.value()
    assert received(viewer) == b":\n\ndata: one\n\n"
    page.pass_seconds(1)
    assert received(viewer) == b":\n\ndata: one\n\n"
    page.pass_seconds(1)
    assert received(viewer) == b":\n\ndata: one\n\ndata: two\n\n"


def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    page = Page()
    viewer = page.connect()
    page.pass_seconds(KEEP_ALIVE)
    assert received(viewer) == b":\n\n:\n\n"


@pytest.mark.parametrize("end", ["it leaves", "the mirror stops", "its time is over", "an error"])
def test_a_stream_ends_with(end: str) -> None:
    page = Page(["one", Denied("the history cannot be read")] if end == "an error" else [])
    viewer = page.connect()
    if end == "it leaves":
        viewer.leave()
    elif end == "the mirror stops":
        page.house.site.connections.drain(300)
    page.pass_seconds(LIFETIME if end == "its time is over" else 1)
    if end != "it leaves":
        assert viewer.answer.whole
    asked = page.asked
    page.pass_seconds(10)
    assert page.asked == asked
    if end == "it leaves":
        assert page.house.clock.getDelayedCalls() == []


def test_a_viewer_that_reads_nothing_gets_nothing_until_it_does() -> None:
    page = Page(map(str, range(100)))
    viewer = page.connect()
    viewer.producer.pauseProducing()
    page.pass_seconds(5)
    assert (page.asked, received(viewer)) == (1, b":\n\ndata: 0\n\n")
    viewer.producer.resumeProducing()
    page.pass_seconds(1)
    assert received(viewer).endswith(b"data: 1\n\n")


def test_there_are_only_so_many_viewers() -> None:
    page = Page(most=1)
    first = page.connect()
    assert page.connect().answer.error == (503, "TOOMANYREQUESTS")
    first.leave()
    assert received(page.connect()) == b":\n\n"


def test_a_subscription_may_be_refused() -> None:
    page = Page()
    page.refusal = Denied("not for you")
    assert page.connect().answer.error == (403, "DENIED")


def test_a_head_request_ends_at_once() -> None:
    answer = Page().connect("HEAD").answer
    assert (answer.status, answer["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
