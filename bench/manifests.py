"""``python -m bench.manifests``: a cached manifest, by digest and by tag, to 64 connections."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from .blobs import verify
from .clients.wrk import Asked, wrk
from .command import run
from .images import push_image
from .peers import distribution, nginx
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer, repository
from .rounds import in_turn
from .table import Row, at_least, compared

CONNECTIONS = 64
SECONDS = 2
_AIMS = {"digest": {distribution.NAME: at_least(5)}, "tag": {distribution.NAME: at_least(10)}}


def rows(rounds: int) -> Iterator[Row]:
    """Measure three rows for each kind of request and each peer; the upstream is a ``docker-registry``."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(distribution.registry(directory))
        names = [repository(name) for name in (NAME, distribution.NAME, nginx.CACHE)]
        digest = push_image(upstream, names, 40, 1024, directory)
        url = upstream.url.partition("/v2/")[0]
        peers = [
            stack.enter_context(mirrored(url)),
            stack.enter_context(distribution.pull_through(directory, url)),
            stack.enter_context(nginx.proxy_cache(directory, url)),
        ]
        for way, reference in (("digest", digest), ("tag", "latest")):
            for peer in peers:
                verify(peer.manifest(reference), digest)
            got = in_turn(rounds, {peer.name: partial(_ask, peer, reference) for peer in peers})
            case = f"manifest by {way}, {CONNECTIONS} connections"
            rates = {name: [each.rate for each in asked] for name, asked in got.items()}
            yield from compared(case, "requests/s", rates, _AIMS[way])
            yield from compared(
                case, "p50, ms", {n: [each.half for each in asked] for n, asked in got.items()}
            )
            yield from compared(
                case, "p99, ms", {n: [each.most for each in asked] for n, asked in got.items()}
            )


def _ask(peer: Peer, reference: str, number: int) -> Asked:
    return wrk(peer.manifest(reference), CONNECTIONS, SECONDS)


if __name__ == "__main__":
    run(rows)
