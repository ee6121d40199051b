"""One fetch for everybody, which goes on where it was when its process is killed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.long import LONG

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.chain import Chain
from .parts.images import Image, artifact
from .parts.kept import blob_file, growing_file, length
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.stream import begun, digest_of, fetched

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
LARGE = 1024 if LONG else 48
"""MiB of the blob that many clients pull."""
PULLS = 10 if LONG else 4
MEMORY = 256 if LONG else 128
"""MiB of a blob, of which three quarters are more than the mirror may hold in memory."""


@pytest.fixture(scope="module")
def upstream(chains: MakeChain) -> Iterator[Chain]:
    """A mirror for these tests; each has repositories of its own."""
    with chains(upstream={"segments": 1}, grace=1) as chain:
        yield chain


@pytest.fixture(scope="module")
def second(upstream: Chain, directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """Another mirror process, on the directory of the first."""
    upstreams = {"docker": {"url": upstream.front.url, "realms": [upstream.tokens.url], "segments": 1}}
    with Mirror(
        directory("second"), make_machine(), upstreams, cache=str(upstream.mirror.cache), grace=1
    ) as mirror:
        yield mirror
    assert mirror.failures() == ""


def test_twenty_clients(upstream: Chain) -> None:
    """A blob for which twenty clients ask at once is fetched once, and each gets every byte."""
    digest = _push(upstream, "public/large", LARGE * MIB)
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(fetched, [upstream.mirror] * 20, ["public/large"] * 20, [digest] * 20))
    assert got == [digest] * 20
    assert _ranges(upstream, digest) == [None]


def test_first_client_leaves(upstream: Chain) -> None:
    """A client that leaves, even the first, takes nobody with it."""
    digest = _push(upstream, "public/left", 4 * MIB)
    path = f"/v2/docker.io/public/left/blobs/{digest}"
    with ThreadPoolExecutor(2) as pool, upstream.blobs.valve.shut(2 * MIB):
        with begun(upstream.mirror, path) as first:
            first.read(MIB // 2)
            staying = pool.submit(fetched, upstream.mirror, "public/left", digest)
            _wait_for(upstream, digest, 2 * MIB)
        upstream.blobs.valve.open()
        assert staying.result() == digest
    assert _ranges(upstream, digest) == [None]


def test_two_processes(upstream: Chain, second: Mirror) -> None:
    """Clients of two processes on one directory get the blob from one fetch, as it arrives."""
    digest = _push(upstream, "public/shared", 4 * MIB)
    with ThreadPoolExecutor(4) as pool, upstream.blobs.valve.shut(2 * MIB):
        got = _begin(pool, upstream, second, "public/shared", digest)
        upstream.blobs.valve.open()
        assert [each.result() for each in got] == [digest] * 4
    assert _ranges(upstream, digest) == [None]


def test_one_of_two_processes_killed(upstream: Chain, second: Mirror) -> None:
    """When the process that fetches is killed, another one goes on by a range."""
    digest = _push(upstream, "public/survived", 4 * MIB)
    with ThreadPoolExecutor(4) as pool, upstream.blobs.valve.shut(2 * MIB):
        got = _begin(pool, upstream, second, "public/survived", digest)
        upstream.mirror.kill()
        wait_until(lambda: len(_ranges(upstream, digest)) == 2, "the other goes on")
        upstream.blobs.valve.open()
        assert [each.result() for each in got[2:]] == [digest] * 2
    upstream.mirror.start()
    assert _ranges(upstream, digest) == [None, f"bytes={2 * MIB}-"]
    assert fetched(upstream.mirror, "public/survived", digest) == digest
    assert len(_ranges(upstream, digest)) == 2


def test_killed_in_many_pulls(upstream: Chain) -> None:
    """A mirror killed while it fetches several blobs goes on with each by a range."""
    digests = [_push(upstream, f"public/ten-{number}", 2 * MIB) for number in range(PULLS)]
    names = [f"public/ten-{number}" for number in range(PULLS)]
    with ThreadPoolExecutor(PULLS) as pool, upstream.blobs.valve.shut(MIB):
        broken = [
            pool.submit(_attempted, upstream.mirror, *each) for each in zip(names, digests, strict=True)
        ]
        for digest in digests:
            _wait_for(upstream, digest, MIB)
        upstream.mirror.kill()
        assert [each.result() for each in broken] == [False] * PULLS
        upstream.mirror.start()
        again = [pool.submit(fetched, upstream.mirror, *each) for each in zip(names, digests, strict=True)]
        wait_until(lambda: all(len(_ranges(upstream, each)) == 2 for each in digests), "all go on")
        upstream.blobs.valve.open()
        assert [each.result() for each in again] == digests
    assert [_ranges(upstream, digest) for digest in digests] == [[None, f"bytes={MIB}-"]] * PULLS
    statuses = [each.status for each in upstream.blobs.requests if each.range]
    assert set(statuses) == {206}


def test_last_client_leaves(upstream: Chain) -> None:
    """A blob of which little is missing is fetched to its end when nobody reads it any more."""
    digest = _push(upstream, "public/alone", 4 * MIB)
    path = f"/v2/docker.io/public/alone/blobs/{digest}"
    with upstream.blobs.valve.shut(2 * MIB):
        with begun(upstream.mirror, path) as response:
            assert response.status == 200
            _wait_for(upstream, digest, 2 * MIB)
        wait_until(lambda: f"{digest} 200" in upstream.mirror.read_log(), "the client has left")
    wait_until(blob_file(upstream.mirror.cache, digest).exists, "the blob is whole")
    assert fetched(upstream.mirror, "public/alone", digest) == digest
    assert _ranges(upstream, digest) == [None]


def test_memory(upstream: Chain) -> None:
    """A large blob for a slow client, and then for a quick one, does not stay in memory."""
    pushed = artifact("in memory", size=MEMORY * MIB)
    upstream.registry.push("public/memory", pushed, "latest")
    layer = pushed.layers[0]
    client, hexadecimal = upstream.mirror.client("docker"), layer.digest.removeprefix("sha256:")
    assert client.manifest("public/memory", "latest").status == 200
    before = upstream.mirror.rss()
    with begun(upstream.mirror, f"/v2/docker.io/public/memory/blobs/{layer.digest}") as response:
        response.read(MIB)
        wait_until(lambda: upstream.blobs.requests[-1].path.endswith(hexadecimal), "it is fetched")
        while response.read(MIB):
            assert upstream.mirror.rss() - before < MEMORY * MIB * 3 // 4
    assert client.blob("public/memory", layer.digest).body == layer.data
    assert upstream.mirror.rss() - before < MEMORY * MIB * 3 // 4


def _push(chain: Chain, name: str, size: int) -> str:
    """The digest of a new blob of that repository."""
    pushed: Image = artifact(name, size=size)
    chain.registry.push(name, pushed, "latest")
    return pushed.layers[0].digest


def _begin(
    pool: ThreadPoolExecutor, chain: Chain, second: Mirror, name: str, digest: str
) -> list[Future[str]]:
    """Two clients of the first process, which fetches, and two of the second, until half has come to all."""
    got = [pool.submit(fetched, chain.mirror, name, digest)]
    _wait_for(chain, digest, 2 * MIB)
    got.append(pool.submit(fetched, chain.mirror, name, digest))
    got += [pool.submit(fetched, second, name, digest) for _ in range(2)]
    path = f"/v2/docker.io/{name}/blobs/{digest}"
    with begun(second, path) as response:  # it is read from the start, while the end has not come
        assert response.headers["Cache-Status"] == "dockmirror; fwd=miss; collapsed"
        assert len(response.read(MIB)) == MIB
    return got


def _attempted(mirror: Mirror, name: str, digest: str) -> bool:
    """Return True if the blob was sent completely."""
    with suppress(OSError), begun(mirror, f"/v2/docker.io/{name}/blobs/{digest}") as response:
        return digest_of(response) == digest
    return False


def _wait_for(chain: Chain, digest: str, size: int) -> None:
    file: Path = growing_file(chain.mirror.cache, digest)
    wait_until(lambda: length(file) == size, f"{size} bytes of {digest} have come")


def _ranges(chain: Chain, digest: str) -> list[str | None]:
    """Which parts of the blob the CDN was asked for, but for the proofs of 64 bytes; None for all of it."""
    path = f"/sha256/{digest.removeprefix('sha256:')}"
    asked = [each.range for each in chain.blobs.requests if each.path == path]
    return [each for each in asked if each is None or not _is_proof(each)]


def _is_proof(asked: str) -> bool:
    first, _, last = asked.removeprefix("bytes=").partition("-")
    return bool(last) and int(last) - int(first) == 63
