"""``python -m bench.accel``: a large cached blob through nginx with TLS, which sends or proxies it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from attrs import evolve

from .blobs import make_blob
from .clients.drain import drain
from .command import run
from .peers import nginx
from .peers.certificate import make_certificate
from .peers.mirror import NAME, mirrored
from .peers.origin import origin
from .peers.peer import Peer
from .process import processor_time
from .rounds import in_turn
from .table import Row, at_least, compared
from .warm import Served

MEBIBYTES = 256
CONNECTIONS = (1, 8, 32)
SECONDS = 2.0
_STATIC, _PROXIED = "nginx static, TLS", "nginx that proxies, TLS"
_GROUP = "nogroup"
_SETTINGS = f'trust_proxy = ["127.0.0.1"]\naccel = "nginx"\ncache_group = "{_GROUP}"'
"""nginx's workers are nobody, and belong to that group."""
_DECLINED = "proxy_set_header Dockmirror-Accel off; proxy_pass"
_AIMS = {_STATIC: at_least(0.95)}


def rows(rounds: int) -> Iterator[Row]:
    """Measure two rows for each number of connections and each peer."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory))
        certificate, cache = make_certificate(directory), directory / "cache"
        mirror = stack.enter_context(mirrored(upstream.url, f"--cache={cache}", own=_SETTINGS))
        behind = partial(nginx.in_front, directory, mirror=mirror, certificate=certificate)
        moved = {"/var/cache/dockmirror": str(cache)}
        peers = [
            stack.enter_context(behind("nginx-accel.conf", moved=moved)),
            stack.enter_context(nginx.static(directory, upstream.blobs, certificate=certificate)),
            stack.enter_context(behind("nginx.conf", moved={"proxy_pass": _DECLINED})),
        ]
        names = (NAME, _STATIC, _PROXIED)
        named = [evolve(peer, name=name) for peer, name in zip(peers, names, strict=True)]
        digest = make_blob(upstream.blobs, MEBIBYTES)
        for peer in (mirror, *named):
            drain(peer.blob(digest))
        for connections in CONNECTIONS:
            measures = {peer.name: partial(_serve, peer, mirror, digest, connections) for peer in named}
            got = in_turn(rounds, measures)
            case = f"accel, TLS, {connections} connections"
            yield from compared(
                case, "MB/s", {n: [s.rate for s in served] for n, served in got.items()}, _AIMS
            )
            costs = {name: [each.cost for each in served] for name, served in got.items()}
            yield from compared(case, "processor s/GB", costs)


def _serve(peer: Peer, mirror: Peer, digest: str, connections: int, number: int) -> Served:
    """Return the rate, and the processor time of nginx and the mirror together."""
    used = processor_time(peer.pid) + processor_time(mirror.pid)
    drained = drain(peer.blob(digest), connections, SECONDS)
    used = processor_time(peer.pid) + processor_time(mirror.pid) - used
    return Served(drained.rate, used / (drained.bytes / 1e9))


if __name__ == "__main__":
    run(rows)
