"""The store: a blob is fetched once, and is there after a restart and in an outage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .parts.chain import Chain
from .parts.images import artifact, image

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


def test_fetched_once(chain: Chain) -> None:
    """Eight clients that ask for one cold blob at once get it whole, and it is fetched once."""
    pushed = artifact("fetched once", size=32 * MIB)
    chain.registry.push("public/once", pushed, "latest")
    digest, data = pushed.layers[0].digest, pushed.layers[0].data
    client = chain.mirror.client("docker")
    with ThreadPoolExecutor(8) as pool:
        bodies = [pool.submit(client.blob, "public/once", digest) for _ in range(8)]
    assert all(each.result().body == data for each in bodies)
    assert [each.status for each in chain.blobs.requests] == [200]


def test_restart(chain: Chain) -> None:
    """An image that was pulled before a restart is served after it without another fetch."""
    pushed = image("restarted")
    chain.registry.push("public/restarted", pushed, "latest")
    client = chain.mirror.client("docker")
    for content in pushed.blobs:
        assert client.blob("public/restarted", content.digest).body == content.data
    assert client.manifest("public/restarted", "latest").body == pushed.manifest.data
    before = list(chain.blobs.requests)
    chain.mirror.stop()
    chain.mirror.start()
    for content in pushed.blobs:
        assert client.blob("public/restarted", content.digest).body == content.data
    assert client.manifest("public/restarted", "latest").body == pushed.manifest.data
    assert chain.blobs.requests == before


def test_outage(chain: Chain) -> None:
    """A public image that is held whole is pulled, tokens and all, while nothing upstream answers."""
    pushed = image("outage")
    chain.registry.push("library/outage", pushed, "latest")
    for name in ("docker.io/library/outage", "library/outage"):
        client = chain.mirror.client("" if "." in name else "docker")
        assert client.manifest(name, "latest").body == pushed.manifest.data
        for content in pushed.blobs:
            assert client.blob(name, content.digest).body == content.data
    chain.stop_upstream()
    client = chain.mirror.client("docker")
    assert client.bare("GET", "/v2/", None, {"Host": chain.mirror.host("docker")}).status in (200, 401)
    for reference in ("latest", pushed.digest):
        assert client.manifest("library/outage", reference).body == pushed.manifest.data
    for content in pushed.blobs:
        assert client.blob("library/outage", content.digest).body == content.data
    absent = client.manifest("library/never-seen", "latest")
    assert absent.status in (502, 503, 504)
    assert absent.headers["Content-Type"].startswith("application/json")
