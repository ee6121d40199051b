"""Failed logins, counted for each client network, so that nobody guesses passwords fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from math import ceil
from struct import Struct

from twisted.internet.interfaces import IReactorTime

from ..oci.errors import TooManyRequests, Unauthorized
from ..system.networks import Network
from ..system.shared_table import SharedTable, hash_key

WINDOW = 60.0
"""Seconds, from the first failed login on, in which failed logins are counted together."""
MAX_PER_NAME = 10
"""Failed logins by one name that a network may make in a window."""
MAX_PER_NETWORK = 100
"""Failed logins that a network may make in a window."""
MAX_CONCURRENT = 16
"""Passwords of a network that are compared, or wait to be, at the same time."""
_SLOT = Struct("<QdQ")
"""Whose failures they are, when the window began, how many."""
SIZE = 16_384 * _SLOT.size
"""Bytes of memory for so many networks and names at a time."""


class FailedLogins:
    """Limits how many wrong passwords a client network may try; no network limits another.

    A login counts as failed until it has succeeded, so that many at once are no way around the limit.

    :param memory: of ``SIZE`` bytes or fewer, zero at first; processes that serve as one share it.
    """

    def __init__(self, memory: memoryview, clock: IReactorTime) -> None:
        self._failures = SharedTable(memory, _SLOT, lambda record: record[1])
        self._clock = clock
        self._running: Counter[str] = Counter()

    async def attempt(self, network: Network | None, name: bytes, check: Callable[[], Awaitable[str]]) -> str:
        """Return what the check of a password returns.

        :param network: None for clients that come by a socket without addresses, who are counted as one.
        :param check: raises ``Unauthorized`` where the password is wrong.
        :raises TooManyRequests: when the network has failed too often; the password is not looked at.
        """
        origin = str(network or "")
        by_name = hash_key(f"name {origin} ".encode() + name)
        by_network = hash_key(f"network {origin}".encode())
        self._refuse(by_name, MAX_PER_NAME)
        self._refuse(by_network, MAX_PER_NETWORK)
        if self._running[origin] >= MAX_CONCURRENT:
            raise TooManyRequests("too many logins at once from your network", retry_after="1")
        self._running[origin] += 1
        self._add(by_name, 1)
        self._add(by_network, 1)
        failed = False
        try:
            return await check()
        except Unauthorized:
            failed = True
            raise
        finally:
            self._leave(origin)
            if not failed:
                self._add(by_name, -1)
                self._add(by_network, -1)

    def _refuse(self, key: int, most: int) -> None:
        _, began, count = self._find(key)
        if count >= most:
            left = str(max(1, ceil(began + WINDOW - self._clock.seconds())))
            raise TooManyRequests(
                f"too many failed logins from your network; try again in {left} s", retry_after=left
            )

    def _add(self, key: int, count: int) -> None:
        place, began, before = self._find(key)
        self._failures.put(place, key, began, max(0, before + count))

    def _find(self, key: int) -> tuple[int, float, int]:
        now = self._clock.seconds()
        place, record = self._failures.find(key)
        if record is not None and record[1] <= now < record[1] + WINDOW:
            return place, record[1], record[2]
        return place, now, 0

    def _leave(self, origin: str) -> None:
        self._running[origin] -= 1
        if not self._running[origin]:
            del self._running[origin]
