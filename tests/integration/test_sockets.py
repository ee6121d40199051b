"""Connections: however many requests there were, few are left open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.long import LONG

from .conftest import MakeChain
from .parts.images import artifact
from .parts.mirror import Mirror, opened_names

pytestmark = pytest.mark.integration

KEPT = 64
"""The idle connections to a host that the mirror keeps."""
REQUESTS = 1000 if LONG else 5 * KEPT
"""More than twice as many as the connections to both hosts that may be left."""


def sockets(mirror: Mirror) -> int:
    """The number of sockets that the mirror has open."""
    return sum(name.startswith("socket:") for name in opened_names(mirror.pid))


def test_redirected_blobs(chains: MakeChain) -> None:
    """Redirects leave no more sockets open than the pools of the registry and its CDN hold."""
    with chains(cache_size="0") as chain:
        pushed = artifact("many times", size=1024)
        chain.registry.push("public/often", pushed, "latest")
        client, layer = chain.mirror.client("docker"), pushed.layers[0]
        path = f"/v2/public/often/blobs/{layer.digest}"
        admitted = client.let("GET", path)
        before = sockets(chain.mirror)
        with ThreadPoolExecutor(8) as pool:
            bodies = pool.map(lambda _: client.bare("GET", path, None, admitted).body, range(REQUESTS))
            assert all(body == layer.data for body in bodies)
        assert len(chain.blobs.requests) == REQUESTS
        assert sockets(chain.mirror) <= before + 2 * KEPT
