"""A bucket that is used without blocking the reactor, and its circuit breaker."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import EIO
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as TwistedTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ...concurrency.backoff import Backoff
from ...concurrency.coroutines import RunInThread, shield
from .. import layout
from .blocking_bucket import BlockingBucket, ListedObject, Metadata, StoredObject

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RESPONSE_TIMEOUT = 3.0
"""Seconds within which the bucket must begin to answer, so that a client does not wait for long."""
UPLOAD_TIMEOUT = 3600.0
LIST_TIMEOUT = 600.0
"""Seconds for requests that no client waits for."""
_DELETE_BATCH = 900
"""Objects per delete request, at most."""

MIN_BACKOFF, MAX_BACKOFF = 5.0, 60.0
"""Seconds without requests after a failure; doubled with each further failure, up to the maximum."""
HEALTHY_FOR = 15.0
"""Seconds for which a response proves that the bucket works."""

T = TypeVar("T")
_QUERY_STRING = re.compile(r"\?[^\s)]*")


class BucketUnavailable(OSError):
    """The bucket fails or is not asked because it failed; an ``OSError`` like a failing disk's."""

    def __init__(self, reason: str) -> None:
        super().__init__(EIO, reason)
        self._reason = reason

    def __str__(self) -> str:
        return self._reason


class BucketHealth:
    """The circuit breaker of requests to a bucket; logs once when they fail and once when they succeed again.

    :param effect: says what a failure means to clients.
    :param recovered: says that the failure is over.
    :ivar failure: the last failure; None after a success.
    """

    _log = Logger()

    def __init__(self, name: str, clock: IReactorTime, effect: str, recovered: str = "answers again") -> None:
        self.failure: str | None = None
        self._name = name
        self._effect = effect
        self._recovered = recovered
        self._clock = clock
        self._backoff: Backoff[None, None] = Backoff(clock, MIN_BACKOFF, MAX_BACKOFF)
        self._last_success = -HEALTHY_FOR

    @property
    def is_recently_healthy(self) -> bool:
        """True if the bucket responded a moment ago."""
        return self.failure is None and 0 <= self._clock.seconds() - self._last_success < HEALTHY_FOR

    def check(self) -> None:
        """Check that requests may be made.

        :raises BucketUnavailable: during a back-off.
        """
        if self.failure is not None and self._backoff.current_pause(None) is not None:
            raise BucketUnavailable(self.failure)

    def record_failure(self, reason: str) -> BucketUnavailable:
        """Record a failure and back off; a failure during the back-off restarts it without doubling it."""
        if self.failure is None:
            self._log.error(
                "{name} fails; {effect}: {reason}", name=self._name, effect=self._effect, reason=reason
            )
        self.failure = f"{self._name}: {reason}"
        self._backoff.record_failure(None, None)
        return BucketUnavailable(self.failure)

    def record_read_failure(self, reason: str) -> BucketUnavailable:
        """Record that an object still cannot be read, without backing off."""
        self.failure = f"{self._name}: {reason}"
        return BucketUnavailable(self.failure)

    def record_success(self) -> None:
        if self.failure is not None:
            self._log.info("{name} {recovered}", name=self._name, recovered=self._recovered)
        self.failure = None
        self._backoff.record_success(None)
        self._last_success = self._clock.seconds()


RecordFailure = Callable[[str], BucketUnavailable]
"""Records a failure by its message; returns the exception to raise."""


class Bucket:
    """Objects below a prefix of a bucket, by their keys.

    A waiter may be cancelled; the request goes on in its thread.  After a failure the bucket is left alone
    for a while; see ``BucketHealth``.  That no thread is free is no failure of the bucket.  A server that was
    just restarted may list objects before it can read them: a failure to read an object ends when one is
    read, any other failure with the next response.  Failures of writes, and of signatures, count apart: a
    bucket that is full, or that may only be read, is still read.

    :param effect_of_failure: says in the log what a failure means to clients.
    :ivar write_health: the circuit breaker of writes.
    :ivar requests: the number of requests by kind; an upload in parts counts as one.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], ObjectStore],
        clock: IReactorTime,
        in_thread: RunInThread,
        effect_of_failure: str = "missing contents are fetched from upstream, uploads wait",
    ) -> None:
        self.health = BucketHealth(name, clock, effect_of_failure)
        self.write_health = BucketHealth(f"writing to {name}", clock, "uploads wait", "works again")
        self._signing = BucketHealth(
            f"signing addresses of {name}", clock, "clients are not sent there", "works again"
        )
        self.requests: dict[str, int] = {}
        self._calls = BlockingBucket(connect, lambda key: partial(self._read_step, key))
        self._clock = clock
        self._in_thread = in_thread
        self._unreadable: str | None = None  # the key that could not be read, until an object was read

    async def get(
        self, key: PurePosixPath, part: tuple[int, int] | None = None, metadata_only: bool = False
    ) -> StoredObject | None:
        """Open an object; None if there is none.

        :param part: the range of bytes wanted, the end exclusive.
        :param metadata_only: request only the size and the metadata.
        :raises BucketUnavailable: if the bucket fails.
        """
        options: Any = {"head": True} if metadata_only else {"range": part} if part else {}
        call = partial(self._calls.get, str(key), options)
        if metadata_only:
            return await self._ask("head", call, on_late_result=_close)
        found = await self._ask(
            "get", call, on_late_result=_close, record_failure=partial(self._read_failed, str(key))
        )
        self._record_read(str(key), found)
        return found

    async def read(self, key: PurePosixPath) -> tuple[bytes, StoredObject] | None:
        """Read a small object."""

        def call() -> tuple[bytes, StoredObject] | None:
            found = self._calls.get(str(key), {})
            return (found.body.read_all_blocking(), found) if found else None

        read = await self._ask("get", call, record_failure=partial(self._read_failed, str(key)))
        self._record_read(str(key), read)
        return read

    async def put(self, key: PurePosixPath, data: bytes, metadata: Metadata | None = None) -> None:
        """Store a small object; an existing one is replaced."""
        await self._write("put", partial(self._calls.put, str(key), data, metadata or {}))

    async def put_new(self, key: PurePosixPath, data: bytes, metadata: Metadata | None = None) -> bool:
        """Store a small object; False if it exists already."""
        return await self._write("put", partial(self._calls.put, str(key), data, metadata or {}, new=True))

    async def upload(self, key: PurePosixPath, file: BinaryIO, metadata: Metadata) -> None:
        """Store a file in parts; the object appears when all parts are there."""
        await self._write("upload", partial(self._calls.upload, str(key), file, metadata), UPLOAD_TIMEOUT)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones are ignored."""
        for first in range(0, len(keys), _DELETE_BATCH):
            batch = keys[first : first + _DELETE_BATCH]
            await self._write("delete", partial(self._calls.delete, batch), LIST_TIMEOUT)

    async def list(self, prefix: PurePosixPath) -> Sequence[ListedObject]:
        """List all objects below a path."""
        return await self.scan(prefix, list)

    async def scan(self, prefix: PurePosixPath, consume: Callable[[Iterator[ListedObject]], T]) -> T:
        """Call ``consume`` with an iterator over all objects below a path, maybe millions, in the thread."""
        return await self._ask("list", lambda: consume(self._calls.list(str(prefix))), LIST_TIMEOUT)

    async def sign_url(self, key: PurePosixPath, seconds: float) -> str:
        """Return a presigned URL of an object; credentials may have to be fetched for it.

        :raises BucketUnavailable: when it cannot be signed.
        """
        self._signing.check()
        sign = partial(self._calls.sign, str(key), seconds)
        failed = self._signing.record_failure
        signed = await self._run(sign, RESPONSE_TIMEOUT, "no signature", lambda _: None, failed)
        self._signing.record_success()
        return signed

    async def probe(self) -> None:
        """Request something small, unless the bucket responded a moment ago.

        If an object could not be read, its first byte is requested. Another failure to read it causes no
        back-off, since other objects may be readable.

        :raises BucketUnavailable: if the request fails.
        """
        if self.health.is_recently_healthy:
            return
        if self._unreadable is None:
            await self.get(layout.USAGE_COUNTER, metadata_only=True)
            return
        call = partial(self._calls.read_first_byte, self._unreadable)
        await self._ask("get", call, record_failure=self.health.record_read_failure)
        self._unreadable = None
        self.health.record_success()

    async def _read_step(self, key: str, call: Callable[[], T], seconds: float) -> T:
        """Read on in an open object, in a thread.

        :raises BucketUnavailable: if that fails or times out.
        """
        record_failure = partial(self._read_failed, key)
        return await self._run(call, seconds, "no data", lambda _: None, record_failure)

    async def _ask(
        self,
        name: str,
        call: Callable[[], T],
        seconds: float = RESPONSE_TIMEOUT,
        on_late_result: Callable[[T], None] = lambda _: None,
        record_failure: RecordFailure | None = None,
    ) -> T:
        self.health.check()
        self._count(name)
        result = await self._run(
            call, seconds, "no answer", on_late_result, record_failure or self.health.record_failure
        )
        if self._unreadable is None:
            self.health.record_success()
        return result

    def check_writable(self) -> None:
        """Check that writes may be made.

        :raises BucketUnavailable: during a back-off.
        """
        self.health.check()
        self.write_health.check()

    async def _write(self, name: str, call: Callable[[], T], seconds: float = RESPONSE_TIMEOUT) -> T:
        self.check_writable()
        self._count(name)
        failed = self.write_health.record_failure
        result = await self._run(call, seconds, "no answer", lambda _: None, failed)
        self.write_health.record_success()
        return result

    def _count(self, name: str) -> None:
        self.requests[name] = self.requests.get(name, 0) + 1

    async def _run(
        self,
        call: Callable[[], T],
        seconds: float,
        problem: str,
        on_late_result: Callable[[T], None],
        record_failure: RecordFailure,
    ) -> T:
        queued = _QueuedCall(call)
        waiting = shield(self._in_thread(queued), late=on_late_result)
        try:
            return await waiting.addTimeout(seconds, self._clock)
        except CancelledError:  # the waiter left
            raise
        except TwistedTimeoutError:
            if not queued.has_begun:
                queued.is_given_up = True
                raise BucketUnavailable(f"no thread was free within {seconds:g} s") from None
            raise record_failure(f"{problem} within {seconds:g} s") from None
        except Exception as error:
            raise _to_unavailable(error, record_failure) from error

    def _read_failed(self, key: str, reason: str) -> BucketUnavailable:
        self._unreadable = self._unreadable or key
        return self.health.record_failure(reason)

    def _record_read(self, key: str, found: object) -> None:
        """Record that bytes came; the absence of the unreadable object proves as much."""
        if found is not None or key == self._unreadable:
            self._unreadable = None
            self.health.record_success()


class _QueuedCall(Generic[T]):
    """A call that waits for a free thread, and is not made if it was given up by then."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.has_begun = self.is_given_up = False
        self._call = call

    def __call__(self) -> T:
        if self.is_given_up:
            raise CancelledError
        self.has_begun = True
        return self._call()


def _to_unavailable(error: Exception, record_failure: RecordFailure) -> Exception:
    """Convert obstore's and OS errors to ``BucketUnavailable``; a missing file is a missing bucket."""
    from obstore.exceptions import BaseError

    return record_failure(describe_error(error)) if isinstance(error, BaseError | OSError) else error


def describe_error(error: Exception) -> str:
    """Return the error's first line without signed query strings."""
    return _QUERY_STRING.sub("", str(error).partition("\n")[0].strip()) or type(error).__name__


def _close(found: StoredObject | None) -> None:
    if found is not None:
        found.body.close()


BUCKET_THREADS = 64
"""Threads that wait for a bucket; none is started before it is needed."""


class BucketThreadPool(Service):
    """Daemon threads, so that one that waits for a hanging bucket does not delay the exit."""

    def __init__(self) -> None:
        self.pool = ThreadPool(0, BUCKET_THREADS, "bucket")
        self.pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def startService(self) -> None:
        super().startService()
        self.pool.start()
