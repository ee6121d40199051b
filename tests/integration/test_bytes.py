"""Blobs on their way through the mirror: verified, and never held in memory."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.long import LONG

from .parts.chain import Chain
from .parts.images import artifact
from .parts.mirror import Mirror
from .parts.process import wait_until

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
LARGE = (256 if LONG else 128) * MIB
"""Twice of what the memory may grow by, at least."""


def test_spoilt_blob(chain: Chain) -> None:
    """A blob that does not match its digest is cut off, not stored, and not fetched again for a while."""
    pushed = artifact("spoilt", size=4 * MIB)
    chain.registry.push("public/spoilt", pushed, "latest")
    layer = pushed.layers[0]
    file = chain.registry.blob(layer.digest)
    file.write_bytes(layer.data[:-1] + bytes([layer.data[-1] ^ 1]))
    client = chain.mirror.client("docker")
    try:
        response = client.blob("public/spoilt", layer.digest)
    except (http.client.IncompleteRead, ConnectionError):
        pass
    else:
        assert response.status == 502
    file.write_bytes(layer.data)
    asked = len(chain.blobs.requests)
    assert client.blob("public/spoilt", layer.digest).status == 502
    assert len(chain.blobs.requests) == asked
    chain.mirror.stop()
    chain.mirror.start()
    assert client.blob("public/spoilt", layer.digest).body == layer.data


def test_memory(chain: Chain) -> None:
    """A large blob for a slow client, and then for a quick one, does not stay in memory."""
    pushed = artifact("large", size=LARGE)
    chain.registry.push("public/large", pushed, "latest")
    layer = pushed.layers[0]
    client, hexadecimal = chain.mirror.client("docker"), layer.digest.removeprefix("sha256:")
    assert client.manifest("public/large", "latest").status == 200
    before = chain.mirror.rss()
    with _begun(chain.mirror, layer.digest, "docker.io/public/large") as response:
        response.read(MIB)
        wait_until(lambda: chain.blobs.requests[-1].path.endswith(hexadecimal), "it is fetched")
        while response.read(MIB):
            assert chain.mirror.rss() - before < 64 * MIB
    assert client.blob("public/large", layer.digest).body == layer.data
    assert chain.mirror.rss() - before < 64 * MIB


@contextmanager
def _begun(mirror: Mirror, digest: str, repository: str) -> Iterator[http.client.HTTPResponse]:
    """The response with a blob from the mirror's own host, its body not yet read."""
    with closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=30)) as connection:
        path = f"/v2/{repository}/blobs/{digest}"
        connection.request("GET", path, headers={"Host": mirror.host()})
        response = connection.getresponse()
        assert response.status == 200
        yield response
