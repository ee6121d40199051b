"""A bucket that tells of its objects and cannot read them, like a server that was just started, fails."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from obstore.store import HTTPStore
from twisted.internet.task import Clock

from dockmirror.store.bucket.bucket import MIN_BACKOFF, Bucket, BucketUnavailable

from ...answering import now
from ...integration.parts.server import Exchange, Server
from ..threads import inline

ONE, OTHER, EMPTY = (PurePosixPath(name) for name in ("one", "other", "empty"))


class ObjectServer(Server):
    """Answers HEAD of its objects, and GET of those that it can read.

    :ivar unreadable: which it cannot.
    :ivar cut: whether it breaks off after the first byte.
    """

    def __init__(self) -> None:
        class Pass(_Exchange):
            objects = self

        super().__init__("127.0.0.1", Pass)
        self.held = {"one": b"1" * 100, "other": b"2" * 100, "empty": b""}
        self.unreadable: set[str] = set()
        self.cut = False


class _Exchange(Exchange):
    objects: ObjectServer

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        data = self.objects.held.get(name)
        headers = {"Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "ETag": '"1"'}
        if data is None:
            self.answer(404)
        elif self.command == "GET" and name in self.objects.unreadable:
            self.answer(500)
        elif self.command == "GET" and self.objects.cut:
            self.send_response(200)
            for header, value in {**headers, "Content_Length": str(len(data))}.items():
                self.send_header(header.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data[:1])
            self.close_connection = True
        elif "Range" in self.headers:
            part = f"bytes 0-0/{len(data)}"
            self.answer(206 if data else 416, data[:1], Content_Range=part, **headers)
        else:
            self.answer(200, data, **headers)

    do_HEAD = do_GET


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    """Can read all."""
    with ObjectServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """At nought."""
    return Clock()


@pytest.fixture
def bucket(server: ObjectServer, clock: Clock) -> Bucket:
    """Asked once for each request."""
    store = HTTPStore(
        server.url,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
    )
    return Bucket("the bucket", lambda: store, clock, inline)


def fail(bucket: Bucket, server: ObjectServer, key: PurePosixPath = ONE) -> None:
    """An object cannot be read."""
    server.unreadable.add(key.name)
    with pytest.raises(BucketUnavailable):
        now(bucket.get(key))


def test_ends_when_it_is_read(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """That the server tells of it is not enough; that it still cannot be read takes nothing else away."""
    fail(bucket, server)
    clock.advance(MIN_BACKOFF)
    fail(bucket, server, OTHER)
    server.unreadable.remove(OTHER.name)
    clock.advance(2 * MIN_BACKOFF)
    for _ in range(2):
        assert now(bucket.get(ONE, metadata_only=True)) is not None
        assert now(bucket.get(PurePosixPath("none"))) is None
        assert bucket.health.failure is not None
        with pytest.raises(BucketUnavailable):
            now(bucket.probe())
    server.unreadable.clear()
    now(bucket.probe())
    assert bucket.health.failure is None
    requests = dict(bucket.requests)
    now(bucket.probe())
    assert bucket.requests == requests


def test_breaks_off(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """One that breaks off in the middle was not read either."""
    server.cut = True
    found = now(bucket.get(ONE))
    assert found is not None
    with pytest.raises(BucketUnavailable):
        now(found.body.read_all())
    clock.advance(MIN_BACKOFF)
    now(bucket.get(ONE, metadata_only=True))
    assert bucket.health.failure is not None


def test_another_is_read(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """One that is spoilt for good does not keep the bucket from being well."""
    fail(bucket, server)
    clock.advance(MIN_BACKOFF)
    assert now(bucket.read(OTHER)) is not None
    assert bucket.health.failure is None
    now(bucket.probe())


@pytest.mark.parametrize("key", [ONE, EMPTY])
def test_nothing_to_be_read(bucket: Bucket, server: ObjectServer, clock: Clock, key: PurePosixPath) -> None:
    """Nor does one that is gone, or has no byte."""
    fail(bucket, server, key)
    if key == ONE:
        del server.held[key.name]
    else:
        server.unreadable.clear()
    clock.advance(MIN_BACKOFF)
    now(bucket.probe())
    assert bucket.health.failure is None


def test_gone(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """Whoever asks for it again and learns that it is gone has an answer."""
    fail(bucket, server)
    del server.held["one"]
    clock.advance(MIN_BACKOFF)
    assert now(bucket.get(ONE)) is None
    assert bucket.health.failure is None
