"""The limits that clients are held to, and the timers that enforce them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime


@frozen
class HttpLimits:
    """The sizes and times that a client is held to.

    Every time is absolute: a byte now and then extends none.  Only a streamed body may take as long as it
    needs, if it keeps to the minimum rate.

    :ivar head_bytes: for request line, headers and the empty line.
    :ivar head_seconds: from a head's first byte to its last, and for a new connection to send one.
    :ivar body_seconds: for a collected body; for a streamed one, the window of the minimum rate.
    :ivar body_window_bytes: that must arrive in each window, while the mirror is ready to receive them.
    :ivar idle_seconds: between a response and the next request, and for a closing connection to be gone.
    :ivar linger_seconds: from a response whose request was not read to its end until the close; some round
        trips, for a client that reads while it sends.
    :ivar linger_bytes: discarded at most in that time; more than the two kernels buffer (4 and 6 MiB on
        Linux), since a close with unread bytes is a reset, which destroys the response as well.
    :ivar write_seconds: for a client that reads nothing of a response while all buffers in between are full.
    :ivar first_request_seconds: the age at which a drain closes a connection that has sent nothing; its
        request may be on its way.
    """

    head_bytes: int = 64 * 1024
    head_seconds: float = 15
    body_seconds: float = 30
    body_window_bytes: int = 8 * 1024
    idle_seconds: float = 90
    linger_seconds: float = 5
    linger_bytes: int = 16 * 1024 * 1024
    write_seconds: float = 600
    first_request_seconds: float = 2


@frozen
class MinimumRate:
    """The minimum rate of a body: so many bytes in so many seconds, while the mirror is ready to receive
    them.
    """

    bytes: int
    seconds: float


class Timer:
    """A single delayed call; setting it again replaces the pending one."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    def set(self, seconds: float, callback: Callable[[], object]) -> None:
        self.clear()
        self._call = self._clock.callLater(seconds, callback)

    def clear(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


class WriteTimeout:
    """Ends a connection whose client has read nothing for too long.

    A delayed call for each pause would cost fast clients: one pending call serves all pauses.
    """

    def __init__(self, seconds: float, on_timeout: Callable[[], object], clock: IReactorTime) -> None:
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._clock = clock
        self._stalled_since: float | None = None
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Start measuring: the client reads nothing."""
        self._stalled_since = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._check)

    def stop(self) -> None:
        """Stop measuring: the client has read something."""
        self._stalled_since = None

    def cancel(self) -> None:
        """Cancel the pending call: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._stalled_since is None:
            return
        remaining = self._stalled_since + self._seconds - self._clock.seconds()
        if remaining <= 0:
            self._on_timeout()
        else:
            self._timer = self._clock.callLater(remaining, self._check)
