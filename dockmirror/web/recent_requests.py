"""Recent requests per client: many clients silently fall back to the registry when a mirror fails."""

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
from .access_log import find_reason

REQUESTS_PER_CLIENT = 20
"""Requests that are remembered for each client."""
_MAX_PATH, _MAX_SHORT_PATH = 300, 100
_METHOD = 20
_LENGTH = Struct("<H")
_RECORD = 1024
_HEAD = Struct("<QdQ")
"""Client key, time of the last request, number of requests made."""
_SLOT = _HEAD.size + REQUESTS_PER_CLIENT * _RECORD
_CANDIDATES = 8
SIZE = 512 * _SLOT
"""Bytes of memory for 512 clients; pages are used only as clients appear."""


class RequestRecord(NamedTuple):
    """A finished request, without its query and headers.

    :ivar time: when it ended, in seconds since the epoch.
    :ivar size: bytes of the response's body that were sent.
    :ivar upstream: the status of the upstream's response; None if it was not asked.
    :ivar reason: a sentence that says why it was refused or failed.
    """

    time: float
    method: str
    host: str
    path: str
    status: int
    size: int
    upstream: int | None
    cut_off: bool
    reason: str | None = None


class RecentRequests:
    """The last requests below ``/v2/``, by the client's address and user name.

    Each client sees only its own.  The memory is bounded: among the few clients that share a slot, the least
    recently seen one is evicted.

    :param memory: at most ``SIZE`` bytes, zeroed at first, shared by the processes of a mirror.
    """

    def __init__(self, clock: IReactorTime, memory: memoryview) -> None:
        self._clock = clock
        self._memory = memory
        self._slots = len(memory) // _SLOT

    def __call__(self, request: ServerRequest) -> None:
        """Record a finished request; one that was rejected belongs to no client."""
        key = _client_key(request.admitted_client)
        if key is None or b"v2" not in request.path.split(b"/")[1:3]:
            return
        offset, count = self._find(key)
        now = self._clock.seconds()
        encoded = _encode(_record_of(request, now))
        record = offset + _HEAD.size + count % REQUESTS_PER_CLIENT * _RECORD
        self._memory[record + _LENGTH.size : record + _LENGTH.size + len(encoded)] = encoded
        _LENGTH.pack_into(self._memory, record, len(encoded))
        _HEAD.pack_into(self._memory, offset, key, now, count + 1)

    def list_for(self, client: ClientAddress) -> Sequence[RequestRecord]:
        """Return the client's requests, newest first; none if its address is unknown."""
        key = _client_key(client)
        if key is None:
            return ()
        offset, count = self._find(key)
        numbers = range(count - 1, max(-1, count - 1 - REQUESTS_PER_CLIENT), -1)
        read = (
            self._read(offset + _HEAD.size + number % REQUESTS_PER_CLIENT * _RECORD) for number in numbers
        )
        return tuple(sorted((each for each in read if each), key=lambda each: -each.time))

    def _find(self, key: int) -> tuple[int, int]:
        """Return the client's slot and its number of requests, or else the slot to evict and 0."""
        evicted, evicted_time = 0, inf
        for step in range(_CANDIDATES):
            offset = (key + step) % self._slots * _SLOT
            slot_key, last, count = _HEAD.unpack_from(self._memory, offset)
            if slot_key == key:
                return offset, count
            last = last if slot_key else -1.0
            if last < evicted_time:
                evicted, evicted_time = offset, last
        return evicted, 0

    def _read(self, record: int) -> RequestRecord | None:
        """Return a record, or None if another process is writing it."""
        (length,) = _LENGTH.unpack_from(self._memory, record)
        encoded = bytes(self._memory[record + _LENGTH.size : record + _LENGTH.size + length])
        try:
            return RequestRecord(*json.loads(encoded))
        except (ValueError, TypeError):
            return None


def _encode(entry: RequestRecord) -> bytes:
    """Encode a record so that it fits: paths with many non-ASCII characters are cut shorter."""
    for max_length in (_MAX_PATH, _MAX_SHORT_PATH):
        shortened = entry._replace(
            host=entry.host[:_MAX_SHORT_PATH],
            path=entry.path[:max_length],
            reason=entry.reason and entry.reason[:max_length],
        )
        encoded = json.dumps(shortened, ensure_ascii=False).encode()
        if len(encoded) <= _RECORD - _LENGTH.size:
            return encoded
    return b""


def _client_key(client: ClientAddress | None) -> int | None:
    if client is None or client.address is None:
        return None
    identity = client.address.packed + (client.user or "").encode()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "little") or 1


def _record_of(request: ServerRequest, now: float) -> RequestRecord:
    return RequestRecord(
        now,
        request.method.decode("ascii", "replace")[:_METHOD],
        request.admitted_client.host if request.admitted_client else "",
        request.path.decode("ascii", "replace"),
        request.code,
        request.sentLength,
        request.upstream_status,
        request.is_cut_off,
        find_reason(request),
    )
