"""``python -m bench.workers``: the mirror with one worker and with two, beside nginx with as many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from .blobs import make_blob, verify
from .clients.drain import drain
from .clients.wrk import wrk
from .command import run
from .images import push_image
from .peers import distribution, nginx
from .peers.mirror import NAME, mirrored
from .peers.origin import origin
from .peers.peer import Peer, repository
from .rounds import in_turn
from .table import Row, at_least

CONNECTIONS = 64
MEBIBYTES = 512
SECONDS = 1
_ONE, _TWO = "one worker", "two workers"


def rows(rounds: int) -> Iterator[Row]:
    """Measure a cached blob and a cached manifest."""
    yield from _blob(rounds)
    yield from _manifest(rounds)


def _blob(rounds: int) -> Iterator[Row]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory))
        peers = {
            _ONE: stack.enter_context(mirrored(upstream.url)),
            _TWO: stack.enter_context(mirrored(upstream.url, "--workers=2")),
            nginx.STATIC: stack.enter_context(nginx.static(directory, upstream.blobs, workers=2)),
        }
        digest = make_blob(upstream.blobs, MEBIBYTES)
        for peer in peers.values():
            verify(peer.blob(digest), digest)
        got = in_turn(rounds, {name: partial(_drained, peer, digest) for name, peer in peers.items()})
    case = f"warm blob, {CONNECTIONS} connections, two workers"
    yield Row(case, "MB/s", got[_TWO], f"{nginx.STATIC}, two", got[nginx.STATIC], at_least(1.0))
    yield Row(case, "MB/s", got[_TWO], _ONE, got[_ONE])


def _manifest(rounds: int) -> Iterator[Row]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = stack.enter_context(distribution.registry(directory))
        digest = push_image(registry, [repository(NAME)], 40, 1024, directory)
        url = registry.url.partition("/v2/")[0]
        peers = {
            _ONE: stack.enter_context(mirrored(url)),
            _TWO: stack.enter_context(mirrored(url, "--workers=2")),
        }
        for peer in peers.values():
            verify(peer.manifest(digest), digest)
        got = in_turn(rounds, {name: partial(_asked, peer, digest) for name, peer in peers.items()})
    case = f"manifest by digest, {CONNECTIONS} connections, two workers"
    yield Row(case, "requests/s", got[_TWO], _ONE, got[_ONE])


def _drained(peer: Peer, digest: str, number: int) -> float:
    return drain(peer.blob(digest), CONNECTIONS, SECONDS).rate


def _asked(peer: Peer, digest: str, number: int) -> float:
    return wrk(peer.manifest(digest), CONNECTIONS, SECONDS).rate


if __name__ == "__main__":
    run(rows)
