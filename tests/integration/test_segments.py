"""One blob by several connections."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.long import LONG

from .conftest import MakeChain
from .parts.cdn import CdnRequest
from .parts.chain import Chain
from .parts.images import artifact
from .parts.kept import growing_file, length
from .parts.process import wait_until
from .parts.stream import fetched

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
SIZE = 24 * MIB
RATE = 8 * MIB
"""Bytes a second on each connection."""
SEGMENTS = 4


@pytest.fixture(scope="module")
def upstream(chains: MakeChain) -> Iterator[Chain]:
    """A mirror that may open four connections for a blob, of a CDN whose connections are slow."""
    with chains(upstream={"segments": SEGMENTS}, grace=1) as chain, chain.blobs.valve.narrow(RATE):
        yield chain


def test_large_blob(upstream: Chain) -> None:
    """A large blob is fetched by several connections within the limit, after one request to the registry."""
    digest = _push(upstream, "public/large", SIZE)
    assert fetched(upstream.mirror, "public/large", digest) == digest
    whole, *parts = _asked(upstream, digest)
    assert (whole.range, {part.status for part in parts}) == (None, {206})
    assert 1 < len({part.connection for part in parts}) <= SEGMENTS
    assert not any(part.authorized for part in parts)
    consents = [each for each in upstream.front.requests if each.path.endswith(digest) and each.status == 307]
    assert len(consents) == 1


@pytest.mark.parametrize("connections", [1, 2] if LONG else [1])
def test_few_requests_at_a_time(chains: MakeChain, connections: int) -> None:
    """Fewer than there may be segments are enough for two blobs at once: none waits for the other's parts."""
    with (
        chains(upstream={"segments": SEGMENTS, "connections": connections}, grace=1) as chain,
        chain.blobs.valve.narrow(RATE),
        ThreadPoolExecutor(2) as pool,
    ):
        names = ["public/one", "public/other"]
        digests = [_push(chain, name, SIZE // 2 + number) for number, name in enumerate(names)]
        assert list(pool.map(fetched, [chain.mirror] * 2, names, digests)) == digests


def test_small_blob(upstream: Chain) -> None:
    """A small blob is fetched by one request."""
    digest = _push(upstream, "public/small", 4 * MIB)
    assert fetched(upstream.mirror, "public/small", digest) == digest
    assert [each.range for each in _asked(upstream, digest)] == [None]


def test_killed_in_the_middle(upstream: Chain) -> None:
    """Started again, the mirror goes on where the file ends: what was ahead of that is fetched again."""
    digest = _push(upstream, "public/killed", SIZE)
    file = growing_file(upstream.mirror.cache, digest)
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(_attempt, upstream, "public/killed", digest)
        wait_until(lambda: length(file) > 6 * MIB, "some of it has come")
        upstream.mirror.kill()
        assert broken.result() != digest
    kept, before = length(file), len(_asked(upstream, digest))
    upstream.mirror.start()
    assert fetched(upstream.mirror, "public/killed", digest) == digest
    # What the one that was killed had asked for last may have been heard of late.
    assert f"bytes={kept}-" in [each.range for each in _asked(upstream, digest)[before:]]


def test_upstream_without_ranges(upstream: Chain) -> None:
    """From an upstream without ranges the blob is read once, by one connection."""
    upstream.blobs.ranges = False
    digest = _push(upstream, "public/whole", SIZE // 2)
    assert fetched(upstream.mirror, "public/whole", digest) == digest
    upstream.blobs.ranges = True
    assert [each.range for each in _asked(upstream, digest)].count(None) == 1


def _push(chain: Chain, name: str, size: int) -> str:
    """The digest of a new blob of that repository."""
    pushed = artifact(name, size=size)
    chain.registry.push(name, pushed, "latest")
    return pushed.layers[0].digest


def _attempt(chain: Chain, name: str, digest: str) -> str | None:
    """The digest of what came, if anything did."""
    try:
        return fetched(chain.mirror, name, digest)
    except OSError:
        return None


def _asked(chain: Chain, digest: str) -> list[CdnRequest]:
    """The CDN's requests for that blob."""
    path = f"/sha256/{digest.removeprefix('sha256:')}"
    return [each for each in chain.blobs.requests if each.path == path]
