"""A bucket, asked without being in the reactor's way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from errno import EIO
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from .. import layout
from ..threads import RunInThread, shield
from .blocking_bucket import BlockingBucket, ListedObject, Metadata, StoredObject

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RESPONSE_TIMEOUT = 3.0
"""Seconds in which the bucket must begin to answer; then it is slow, and the upstream is asked."""
UPLOAD_TIMEOUT = 3600.0
LIST_TIMEOUT = 600.0
"""Seconds; of what nobody waits for."""

T = TypeVar("T")
_QUERY = re.compile(r"\?[^\s)]*")
MIN_BACKOFF, MAX_BACKOFF = 5.0, 60.0
"""Seconds for which it is left alone after a failure, doubled with each that follows up to the longest."""


HEALTHY_FOR = 15.0
"""Seconds for which an answer proves that it is well."""


class BucketUnavailable(OSError):
    """The bucket gives or takes nothing just now; it says so like a disk that does not."""

    def __init__(self, words: str) -> None:
        super().__init__(EIO, words)


class BucketHealth:
    """Says once that the bucket fails, and once that it does no longer.

    :ivar failure: what failed last, where nothing has succeeded since.
    """

    _log = Logger()

    def __init__(self, name: str, clock: IReactorTime) -> None:
        self.failure: str | None = None
        self._name = name
        self._clock = clock
        self._until = 0.0
        self._length = 0.0
        self._answered = -HEALTHY_FOR

    @property
    def is_recently_healthy(self) -> bool:
        """Whether it has answered just now."""
        return self.failure is None and 0 <= self._clock.seconds() - self._answered < HEALTHY_FOR

    def check(self) -> None:
        """:raises BucketUnavailable: while it is left alone."""
        if self.failure is not None and self._rests(self._clock.seconds()):
            raise BucketUnavailable(self.failure)

    def record_failure(self, words: str) -> BucketUnavailable:
        """It did; of failures while it is left alone already each was asked before the first."""
        if self.failure is None:
            self._log.error(
                "{name} fails; what is not held here is fetched from upstream, uploads wait: {words}",
                name=self._name, words=words,
            )  # fmt: skip
        self.failure = f"{self._name}: {words}"
        now = self._clock.seconds()
        if not self._rests(now):
            self._length = min(MAX_BACKOFF, self._length * 2) if self._length else MIN_BACKOFF
            self._until = now + self._length
        return BucketUnavailable(self.failure)

    def record_read_failure(self, words: str) -> BucketUnavailable:
        """The object that could not be read still cannot; it is not left alone for that."""
        self.failure = f"{self._name}: {words}"
        return BucketUnavailable(self.failure)

    def record_success(self) -> None:
        """It answered."""
        if self.failure is not None:
            self._log.info("{name} answers again", name=self._name)
        self.failure, self._until, self._length = None, 0.0, 0.0
        self._answered = self._clock.seconds()

    def _rests(self, now: float) -> bool:
        """Not where the clock was set back to before it began to."""
        return self._until - self._length <= now < self._until


RecordFailure = Callable[[str], BucketUnavailable]
"""Takes note of a failure, by its words."""


class Bucket:
    """What lies in a bucket under a prefix, by keys below that.

    Whoever waits may leave; the thread that asks goes on.  What fails is rested from: see ``Health``.

    A server that was started again may tell of its objects before it can read them.  So a failure to read
    one ends when one has been read; every other failure ends with the next answer.

    :ivar requests: how many the bucket was asked, by what; a file of several parts counts as one.
    """

    def __init__(
        self, name: str, connect: Callable[[], ObjectStore], clock: IReactorTime, in_thread: RunInThread
    ) -> None:
        self.health = BucketHealth(name, clock)
        self.requests: dict[str, int] = {}
        self._calls = BlockingBucket(connect, lambda key: partial(self._read_on, key))
        self._clock = clock
        self._in_thread = in_thread
        self._unread: str | None = None  # the object that could not be read, while none has been since

    async def get(
        self, key: PurePosixPath, part: tuple[int, int] | None = None, bare: bool = False
    ) -> StoredObject | None:
        """An object, opened; None where there is none.

        :param part: of which bytes are wanted, the end exclusive.
        :param bare: whether its bytes are not wanted.
        :raises BucketUnavailable: when that cannot be told.
        """
        options: Any = {"head": True} if bare else {"range": part} if part else {}
        call = partial(self._calls.get, str(key), options)
        if bare:
            return await self._ask("head", call, late=_close)
        found = await self._ask("get", call, late=_close, failed=partial(self._read_failed, str(key)))
        self._has_read(str(key), found)
        return found

    async def read(self, key: PurePosixPath) -> tuple[bytes, StoredObject] | None:
        """A small object, whole."""

        def call() -> tuple[bytes, StoredObject] | None:
            found = self._calls.get(str(key), {})
            return (found.body.read_all_blocking(), found) if found else None

        read = await self._ask("get", call, failed=partial(self._read_failed, str(key)))
        self._has_read(str(key), read)
        return read

    async def put(self, key: PurePosixPath, data: bytes, metadata: Metadata | None = None) -> None:
        """Replaces a small object."""
        await self._ask("put", partial(self._calls.put, str(key), data, metadata or {}))

    async def put_new(self, key: PurePosixPath, data: bytes, metadata: Metadata | None = None) -> bool:
        """The same unless there is one already: then False."""
        return await self._ask("put", partial(self._calls.put, str(key), data, metadata or {}, new=True))

    async def upload(self, key: PurePosixPath, file: Path, metadata: Metadata) -> None:
        """Replaces an object by what is in a file, in parts: it has its name when all are there.

        :raises OSError: when the file is not to be read.
        """
        await self._ask("upload", partial(self._calls.upload, str(key), file, metadata), UPLOAD_TIMEOUT)

    async def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects, there or not."""
        if keys:
            await self._ask("delete", partial(self._calls.delete, keys), LIST_TIMEOUT)

    async def list(self, prefix: PurePosixPath) -> Sequence[ListedObject]:
        """Everything below a path."""
        return await self.scan(prefix, list)

    async def scan(self, prefix: PurePosixPath, take: Callable[[Iterator[ListedObject]], T]) -> T:
        """What is taken of everything below a path, which may be millions: in the thread."""
        return await self._ask("list", lambda: take(self._calls.list(str(prefix))), LIST_TIMEOUT)

    async def sign_url(self, key: PurePosixPath, seconds: float) -> str:
        """An address at which anybody gets an object for so long; the bucket is asked nothing for it."""
        return await self._in_thread(partial(self._calls.sign, str(key), seconds))

    async def probe(self) -> None:
        """Asks for something small, unless the bucket has answered just now.

        Where an object could not be read it is the first byte of that.  If that fails again the bucket is not
        rested from for it: the others may well be read.

        :raises BucketUnavailable: when it does not give it.
        """
        if self.health.is_recently_healthy:
            return
        if self._unread is None:
            await self.get(layout.USAGE_COUNTER, bare=True)
            return
        call = partial(self._calls.read_first_byte, self._unread)
        await self._ask("get", call, failed=self.health.record_read_failure)
        self._unread = None
        self.health.record_success()

    async def _read_on(self, key: str, call: Callable[[], T], patience: float) -> T:
        """Goes on with an object that was opened, in a thread.

        :raises BucketUnavailable: when it does not, or not in time.
        """
        failed = partial(self._read_failed, key)
        return await self._patiently(call, patience, "nothing came", lambda _: None, failed)

    async def _ask(
        self,
        name: str,
        call: Callable[[], T],
        patience: float = RESPONSE_TIMEOUT,
        late: Callable[[T], None] = lambda _: None,
        failed: RecordFailure | None = None,
    ) -> T:
        self.health.check()
        self.requests[name] = self.requests.get(name, 0) + 1
        result = await self._patiently(
            call, patience, "no answer", late, failed or self.health.record_failure
        )
        if self._unread is None:
            self.health.record_success()
        return result

    async def _patiently(
        self,
        call: Callable[[], T],
        patience: float,
        lacking: str,
        late: Callable[[T], None],
        failed: RecordFailure,
    ) -> T:
        waiting = shield(self._in_thread(call), late=late)
        try:
            return await waiting.addTimeout(patience, self._clock)
        except CancelledError:  # whoever waited has left
            raise
        except TookTooLong:
            raise failed(f"{lacking} within {patience:g} s") from None
        except Exception as error:
            raise _of_bucket(error, failed) from error

    def _read_failed(self, key: str, words: str) -> BucketUnavailable:
        self._unread = self._unread or key
        return self.health.record_failure(words)

    def _has_read(self, key: str, found: object) -> None:
        """Bytes came, unless there is no such object; that is as good for the one that could not be read."""
        if found is not None or key == self._unread:
            self._unread = None
            self.health.record_success()


def _of_bucket(error: Exception, failed: RecordFailure) -> Exception:
    """What obstore raises is of the bucket: also that a file is missing, which is the bucket itself."""
    from obstore.exceptions import BaseError

    return failed(_words(error)) if isinstance(error, BaseError | OSError) else error


def _words(error: Exception) -> str:
    """An error of obstore's in one line, without what may be signed in an address."""
    return _QUERY.sub("", str(error).partition("\n")[0].strip()) or type(error).__name__


def _close(found: StoredObject | None) -> None:
    if found is not None:
        found.body.close()
