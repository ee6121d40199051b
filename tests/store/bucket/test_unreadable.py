"""A bucket fails if it lists objects and cannot read them, like a server that was just started."""

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
    """A server that answers HEAD for all its objects, and GET for readable ones.

    :ivar unreadable: keys that cannot be read.
    :ivar cut: whether responses break off after the first byte.
    """

    def __init__(self) -> None:
        class Pass(_Exchange):
            objects = self

        super().__init__("127.0.0.1", Pass)
        self.data = {"one": b"1" * 100, "other": b"2" * 100, "empty": b""}
        self.unreadable: set[str] = set()
        self.cut = False


class _Exchange(Exchange):
    objects: ObjectServer

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        data = self.objects.data.get(name)
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
    """A server that can read all objects."""
    with ObjectServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket(server: ObjectServer, clock: Clock) -> Bucket:
    """A bucket without retries."""
    store = HTTPStore(
        server.url,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
    )
    return Bucket("the bucket", lambda: store, clock, inline)


def fail(bucket: Bucket, server: ObjectServer, key: PurePosixPath = ONE) -> None:
    server.unreadable.add(key.name)
    with pytest.raises(BucketUnavailable):
        now(bucket.get(key))


def test_failure_ends_with_a_read(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """A HEAD does not end the failure; another failed read causes no back-off."""
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


def test_truncated_response(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """A response that breaks off does not end the failure."""
    server.cut = True
    found = now(bucket.get(ONE))
    assert found is not None
    with pytest.raises(BucketUnavailable):
        now(found.body.read_all())
    clock.advance(MIN_BACKOFF)
    now(bucket.get(ONE, metadata_only=True))
    assert bucket.health.failure is not None


def test_another_object_is_read(bucket: Bucket, server: ObjectServer, clock: Clock) -> None:
    """A read of another object ends the failure."""
    fail(bucket, server)
    clock.advance(MIN_BACKOFF)
    assert now(bucket.read(OTHER)) is not None
    assert bucket.health.failure is None
    now(bucket.probe())


@pytest.mark.parametrize("key", [ONE, EMPTY])
@pytest.mark.parametrize("is_probed", [True, False])
def test_missing_or_empty_object(
    bucket: Bucket, server: ObjectServer, clock: Clock, key: PurePosixPath, is_probed: bool
) -> None:
    """A probe or a request that finds the object deleted or empty ends the failure."""
    fail(bucket, server, key)
    server.unreadable.clear()
    if key == ONE:
        del server.data[key.name]
    clock.advance(MIN_BACKOFF)
    assert now(bucket.probe() if is_probed else bucket.get(key)) is None or key == EMPTY
    assert bucket.health.failure is None
