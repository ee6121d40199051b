"""What clients have asked for of late: many go to the registry itself without a word when a mirror fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from math import inf
from struct import Struct
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from ..http.access import ClientAddress
from ..http.server_request import ServerRequest

REQUESTS_PER_CLIENT = 20
"""How many requests of a client are remembered."""
_LONGEST, _SHORTER = 300, 100
_METHOD = 20
_LENGTH = Struct("<H")
_RECORD = 1024
_HEAD = Struct("<QdQ")
"""Whose it is, when it was here last, and how many requests it has made."""
_SLOT = _HEAD.size + REQUESTS_PER_CLIENT * _RECORD
_TRIED = 8
SIZE = 512 * _SLOT
"""Bytes of memory for so many clients; it is used only as far as there are any."""


class RequestRecord(NamedTuple):
    """A request that has ended; without its query and its headers.

    :ivar time: when it ended, in seconds since the epoch.
    :ivar size: bytes of the response's body, as far as they were sent.
    :ivar upstream: what the upstream answered; None where it was not asked.
    """

    time: float
    method: str
    host: str
    path: str
    status: int
    size: int
    upstream: int | None
    cut_off: bool


class RecentRequests:
    """The last requests for anything below ``/v2/``, by the address of the client and the name it has here.

    Each sees its own only.  All is in memory, and bounded: of the few clients that share a slot, who has not
    been here for longest is forgotten.

    :param memory: of ``SIZE`` bytes or fewer, zero at first; processes that share it know the same.
    """

    def __init__(self, clock: IReactorTime, memory: memoryview) -> None:
        self._clock = clock
        self._memory = memory
        self._slots = len(memory) // _SLOT

    def __call__(self, request: ServerRequest) -> None:
        """To be called once, when a request has ended; one that was not let in is nobody's."""
        who = _who(request.admitted_client)
        if who is None or b"v2" not in request.path.split(b"/")[1:3]:
            return
        place, count = self._find(who)
        now = self._clock.seconds()
        written = _written(_seen(request, now))
        record = place + _HEAD.size + count % REQUESTS_PER_CLIENT * _RECORD
        self._memory[record + _LENGTH.size : record + _LENGTH.size + len(written)] = written
        _LENGTH.pack_into(self._memory, record, len(written))
        _HEAD.pack_into(self._memory, place, who, now, count + 1)

    def list_for(self, client: ClientAddress) -> Sequence[RequestRecord]:
        """What that client has asked for, the newest first; nothing where its address is not known."""
        who = _who(client)
        if who is None:
            return ()
        place, count = self._find(who)
        numbers = range(count - 1, max(-1, count - 1 - REQUESTS_PER_CLIENT), -1)
        read = (self._read(place + _HEAD.size + number % REQUESTS_PER_CLIENT * _RECORD) for number in numbers)
        return tuple(sorted((each for each in read if each), key=lambda each: -each.time))

    def _find(self, who: int) -> tuple[int, int]:
        """Its slot and how much it has asked for, or else the slot that is missed least, and none."""
        oldest, its_time = 0, inf
        for step in range(_TRIED):
            place = (who + step) % self._slots * _SLOT
            whose, last, count = _HEAD.unpack_from(self._memory, place)
            if whose == who:
                return place, count
            last = last if whose else -1.0
            if last < its_time:
                oldest, its_time = place, last
        return oldest, 0

    def _read(self, record: int) -> RequestRecord | None:
        """None where another process writes just now."""
        (length,) = _LENGTH.unpack_from(self._memory, record)
        written = bytes(self._memory[record + _LENGTH.size : record + _LENGTH.size + length])
        try:
            return RequestRecord(*json.loads(written))
        except (ValueError, TypeError):
            return None


def _written(seen: RequestRecord) -> bytes:
    """As it fits into a record: of odd characters, which take more bytes, there are fewer."""
    for longest in (_LONGEST, _SHORTER):
        cut = seen._replace(host=seen.host[:_SHORTER], path=seen.path[:longest])
        written = json.dumps(cut, ensure_ascii=False).encode()
        if len(written) <= _RECORD - _LENGTH.size:
            return written
    return b""


def _who(client: ClientAddress | None) -> int | None:
    if client is None or client.address is None:
        return None
    named = client.address.packed + (client.user or "").encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little") or 1


def _seen(request: ServerRequest, now: float) -> RequestRecord:
    return RequestRecord(
        now,
        request.method.decode("ascii", "replace")[:_METHOD],
        request.admitted_client.host if request.admitted_client else "",
        request.path.decode("ascii", "replace"),
        request.code,
        request.sentLength,
        request.upstream_status,
        request.cut_off,
    )
