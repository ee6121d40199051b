"""Count failed logins per client network, to slow down password guessing."""

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
"""Seconds, from the first failed login, in which failures are counted together."""
MAX_PER_NAME = 10
"""Failed logins that a network may make with one user name in a window."""
MAX_PER_NETWORK = 100
"""Failed logins that a network may make in a window."""
MAX_CONCURRENT = 16
"""Passwords of one network that are compared, or wait for it, at the same time."""
_SLOT = Struct("<QdQ")
"""Key of the network or name, start of the window, number of failures."""
FAILED_LOGINS_SIZE = 16_384 * _SLOT.size
"""Bytes of memory for 16,384 networks and names."""


class FailedLogins:
    """Limits the wrong passwords that a client network may try; networks do not affect each other.

    A login counts as failed until it succeeds, so that parallel attempts do not evade the limit.

    :param memory: at most ``FAILED_LOGINS_SIZE`` bytes, zeroed at first, shared by the processes of a mirror.
    """

    def __init__(self, memory: memoryview, clock: IReactorTime) -> None:
        self._failures = SharedTable(memory, _SLOT, lambda record: record[1])
        self._clock = clock
        self._running: Counter[str] = Counter()

    async def attempt(self, network: Network | None, name: bytes, check: Callable[[], Awaitable[str]]) -> str:
        """Return the result of a password check.

        :param network: None for clients on a socket without addresses, who count as one network.
        :param check: raises ``Unauthorized`` for a wrong password.
        :raises TooManyRequests: when the network has failed too often; the password is not compared.
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

    def _refuse(self, key: int, limit: int) -> None:
        _, began, count = self._find(key)
        if count >= limit:
            left = str(max(1, ceil(began + WINDOW - self._clock.seconds())))
            raise TooManyRequests(
                f"too many failed logins from your network; try again in {left} s", retry_after=left
            )

    def _add(self, key: int, count: int) -> None:
        offset, began, before = self._find(key)
        self._failures.put(offset, key, began, max(0, before + count))

    def _find(self, key: int) -> tuple[int, float, int]:
        now = self._clock.seconds()
        offset, record = self._failures.find(key)
        if record is not None and record[1] <= now < record[1] + WINDOW:
            return offset, record[1], record[2]
        return offset, now, 0

    def _leave(self, origin: str) -> None:
        self._running[origin] -= 1
        if not self._running[origin]:
            del self._running[origin]
