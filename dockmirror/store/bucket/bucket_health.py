"""How a bucket is: whether it answers, and until when it is left alone where it does not."""

from __future__ import annotations

from errno import EIO

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

FIRST, LONGEST = 5.0, 60.0
"""Seconds for which it is left alone after a failure, doubled with each that follows up to the longest."""


PROVEN = 15.0
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
        self._answered = -PROVEN

    @property
    def is_proven(self) -> bool:
        """Whether it has answered just now."""
        return self.failure is None and 0 <= self._clock.seconds() - self._answered < PROVEN

    def check(self) -> None:
        """:raises BucketUnavailable: while it is left alone."""
        if self.failure is not None and self._rests(self._clock.seconds()):
            raise BucketUnavailable(self.failure)

    def failed(self, words: str) -> BucketUnavailable:
        """It did; of failures while it is left alone already each was asked before the first."""
        if self.failure is None:
            self._log.error(
                "{name} fails; what is not held here is fetched from upstream, uploads wait: {words}",
                name=self._name, words=words,
            )  # fmt: skip
        self.failure = f"{self._name}: {words}"
        now = self._clock.seconds()
        if not self._rests(now):
            self._length = min(LONGEST, self._length * 2) if self._length else FIRST
            self._until = now + self._length
        return BucketUnavailable(self.failure)

    def failed_again(self, words: str) -> BucketUnavailable:
        """The object that could not be read still cannot; it is not left alone for that."""
        self.failure = f"{self._name}: {words}"
        return BucketUnavailable(self.failure)

    def succeeded(self) -> None:
        """It answered."""
        if self.failure is not None:
            self._log.info("{name} answers again", name=self._name)
        self.failure, self._until, self._length = None, 0.0, 0.0
        self._answered = self._clock.seconds()

    def _rests(self, now: float) -> bool:
        """Not where the clock was set back to before it began to."""
        return self._until - self._length <= now < self._until
