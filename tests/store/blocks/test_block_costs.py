"""The requests and bytes that clients which read in parts cost at the upstream."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator

import pytest

from dockmirror.store.downloads.block_waiter import POLL
from dockmirror.store.downloads.context import LINGER

from .parts import BLOB, END, MEBIBYTE, PartMirror, PartRead, PartSource, PartUpstream

EIGHT = 8 * MEBIBYTE
STEP = MEBIBYTE // 2
"""Bytes that a connection to the upstream carries in one turn."""


class PartsClient:
    """Reads a blob in parts, of which so many are under way at the same time.

    As containerd does with a buffer for concurrent fetches, it leaves each part of an open-ended range when
    it has its bytes.
    """

    def __init__(
        self,
        mirror: PartMirror,
        upstream: PartUpstream,
        parts: Iterable[tuple[int, int]],
        is_open_ended: bool = False,
        most: int = 8,
    ) -> None:
        self.received: dict[int, bytes] = {}
        self._mirror = mirror
        self._upstream = upstream
        self._left = deque(parts)
        self._is_open_ended = is_open_ended
        self._most = most
        self._reads: list[tuple[int, int, PartRead]] = []

    @property
    def is_done(self) -> bool:
        return not self._left and not self._reads

    def turn(self) -> None:
        """Take what has come, and ask for the next parts."""
        for each in tuple(self._reads):
            first, last, read = each
            assert read.error is None
            assert not read.is_relayed
            length = last + 1 - first
            if sum(map(len, read.client.pieces)) >= length:
                data = read.data[:length]
                assert data == self._upstream.data[first : last + 1]
                self.received[first] = data
                self._reads.remove(each)
                if read.outcome is None:
                    read.leave()
            else:
                assert read.outcome is None
        while self._left and len(self._reads) < self._most:
            first, last = self._left.popleft()
            source = PartSource(self._upstream)
            read = self._mirror.read_part(source, first, None if self._is_open_ended else last)
            self._reads.append((first, last, read))


def pull(upstream: PartUpstream, mirrors: Iterable[PartMirror], clients: Iterable[PartsClient]) -> None:
    """Let the clients read until all of them have all of their parts."""
    clients = list(clients)
    for _ in range(2000):
        for client in clients:
            client.turn()
        for body in upstream.running:
            body.advance(STEP)
            if body.position > body.last:
                body.end()
        for mirror in mirrors:
            mirror.turn(POLL)
        if all(client.is_done for client in clients):
            return
    raise AssertionError("the clients do not come to an end")


def eights() -> Iterator[tuple[int, int]]:
    for first in range(0, END, EIGHT):
        yield first, min(END, first + EIGHT) - 1


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("is_open_ended", [False, True])
def test_sixteen_clients_in_parts(
    mirrors: tuple[PartMirror, PartMirror], upstream: PartUpstream, is_open_ended: bool, count: int
) -> None:
    """Clients that read a blob in parts of 8 MiB cost one copy of it, and it is held afterwards."""
    used = mirrors[:count]
    pull(
        upstream,
        used,
        [PartsClient(used[each % count], upstream, eights(), is_open_ended) for each in range(16)],
    )
    for _ in range(100):
        for body in upstream.running:
            body.finish()
        for mirror in used:
            mirror.turn(POLL)
    assert upstream.sent == END
    assert mirrors[0].blob.read_bytes() == BLOB


@pytest.mark.parametrize("count", [1, 2])
def test_scattered_parts(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    """Twenty clients that read the same 50 parts cost the blocks that these touch, each once."""
    data = os.urandom(160 * MEBIBYTE)
    upstream, root = PartUpstream(data), tmp_path_factory.mktemp("scattered")
    opened: dict[int, object] = {}
    mirrors = [PartMirror(root, data, opened=opened) for _ in range(count)]  # type: ignore[arg-type]
    parts = [
        (first := number * 37 * MEBIBYTE % (159 * MEBIBYTE) + number * 10007, first + 300_000)
        for number in range(50)
    ]
    touched = {block for first, last in parts for block in range(first // MEBIBYTE, last // MEBIBYTE + 1)}
    clients = [PartsClient(mirrors[each % count], upstream, parts, most=1) for each in range(20)]
    pull(upstream, mirrors, clients)
    assert upstream.sent <= 1.1 * len(touched) * MEBIBYTE
    assert len(upstream.requests) <= 70
    for mirror in mirrors:
        mirror.turn(LINGER, 3)
