"""``python -m bench.objects``: a blob from a bucket, and three mirrors with one bucket beside one mirror."""

from __future__ import annotations

import http.client
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from attrs import evolve, frozen

from .blobs import make_blob, verify
from .clients.drain import drain
from .command import run
from .peers import distribution, nginx
from .peers.mirror import mirrored
from .peers.origin import Origin, origin
from .peers.peer import Peer
from .peers.seaweedfs import ENVIRONMENT, Bucket, seaweedfs
from .process import processor_time
from .rounds import in_turn
from .table import Row, at_least, at_most

MEBIBYTES = 128
ROUNDS = 3
SECONDS = 1.0
BLOBS = 6
SMALL_MEBIBYTES = 8
CONNECTIONS = 2
_NEAR, _SENT, _FAR = "from the disk", "by redirect", "through the mirror"
_BALANCED = """
  location = /v2/ {{ proxy_pass http://mirrors; }}
  location / {{ proxy_pass http://mirrors; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $http_host; proxy_buffering off; }}
"""


def rows(rounds: int) -> Iterator[Row]:
    """Measure rates, the time to the first byte, and the processor time for a gigabyte."""
    os.environ.update(ENVIRONMENT)
    count = min(rounds, ROUNDS)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory))
        bucket = stack.enter_context(seaweedfs(directory))
        near = evolve(stack.enter_context(_mirror(upstream, bucket)), name=_NEAR)
        beside = stack.enter_context(distribution.bucket(directory, bucket.driver, near.url))
        yield from _hits(stack, upstream, bucket, near, beside, count)
        yield from _together(stack, directory, upstream, bucket, near, beside, count)


@frozen
class _Came:
    rate: float
    first: float
    cost: float


def _hits(
    stack: ExitStack, upstream: Origin, bucket: Bucket, near: Peer, beside: Peer, count: int
) -> Iterator[Row]:
    digests = [make_blob(upstream.blobs, MEBIBYTES, seed) for seed in range(count + 1)]
    for digest in digests:
        verify(near.blob(digest), digest)
    _wait_for(beside, digests)
    sent = evolve(stack.enter_context(_mirror(upstream, bucket, "redirect = true\n")), name=_SENT)
    far = evolve(stack.enter_context(_mirror(upstream, bucket)), name=_FAR)
    for peer in (far, beside):
        verify(peer.blob(digests[0]), digests[0])
    got = in_turn(
        count,
        {
            _NEAR: partial(_drained, near, digests),
            _SENT: partial(_redirected, sent, digests),
            _FAR: partial(_drained, far, digests),
            beside.name: partial(_drained, beside, digests),
        },
    )
    theirs = got[beside.name]
    aims = {_NEAR: at_least(1.5), _SENT: at_least(1.0), _FAR: None}
    for name, aim in aims.items():
        case = f"blob in a bucket, {name}"
        ours = got[name]
        yield Row(case, "MB/s", [c.rate for c in ours], beside.name, [c.rate for c in theirs], aim)
        yield Row(case, "first byte, ms", [c.first for c in ours], beside.name, [c.first for c in theirs])
        yield Row(case, "processor s/GB", [c.cost for c in ours], beside.name, [c.cost for c in theirs])


def _together(
    stack: ExitStack,
    directory: Path,
    upstream: Origin,
    bucket: Bucket,
    near: Peer,
    beside: Peer,
    count: int,
) -> Iterator[Row]:
    """Read cached blobs on several connections each, through the same nginx."""
    digests = [make_blob(upstream.blobs, SMALL_MEBIBYTES, 100 + seed) for seed in range(BLOBS)]
    for digest in digests:
        verify(near.blob(digest), digest)
    _wait_for(beside, digests)
    several = [near, *(stack.enter_context(_mirror(upstream, bucket)) for _ in range(2))]
    peers = {}
    for name, mirrors in (("one mirror", several[:1]), ("three mirrors", several)):
        servers = "".join(f"server {urlsplit(each.url).netloc};" for each in mirrors)
        http = f"upstream mirrors {{ hash $uri consistent; {servers} keepalive 32; }}"
        port, pid = stack.enter_context(nginx.serving(directory, _BALANCED.format(), http, workers=2))
        path = urlsplit(several[0].url).path
        peers[name] = Peer(name, f"http://127.0.0.1:{port}{path}", pid)
        for digest in digests:
            verify(peers[name].blob(digest), digest)
    got = in_turn(count, {name: partial(_all, peer, digests) for name, peer in peers.items()})
    case = f"{BLOBS} warm blobs, {BLOBS * CONNECTIONS} connections, three mirrors behind nginx"
    yield Row(case, "MB/s", got["three mirrors"], "one mirror", got["one mirror"])
    sent = [upstream.sent("objects", digest) / (SMALL_MEBIBYTES * 2**20) for digest in digests]
    yield Row(case, "from the upstream, in blobs", [max(sent)], aim=at_most(1.0))


def _mirror(upstream: Origin, bucket: Bucket, more: str = "") -> AbstractContextManager[Peer]:
    """Run a mirror with the bucket and its own disk; all mirrors serve the same repository."""
    return mirrored(upstream.url, name="objects", own=bucket.settings + more)


def _drained(peer: Peer, digests: Sequence[str], number: int) -> _Came:
    used = processor_time(peer.pid)
    drained = drain(peer.blob(digests[number]))
    cost = (processor_time(peer.pid) - used) / (drained.bytes / 1e9)
    return _Came(drained.rate, drained.first_bytes[0] * 1e3, cost)


def _redirected(peer: Peer, digests: Sequence[str], number: int) -> _Came:
    used, started = processor_time(peer.pid), time.monotonic()
    parts = urlsplit(peer.blob(digests[number]))
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    if answer.status != 307 or not location:
        raise ValueError(f"{peer.name} answered {answer.status}")
    asked = time.monotonic() - started
    drained = drain(location)
    cost = (processor_time(peer.pid) - used) / (drained.bytes / 1e9)
    return _Came(
        drained.bytes / (asked + drained.seconds) / 1e6, (asked + drained.first_bytes[0]) * 1e3, cost
    )


def _all(peer: Peer, digests: Sequence[str], number: int) -> float:
    """Return the rate of all mirrors together, in megabytes a second."""
    with ThreadPoolExecutor(len(digests)) as pool:
        drains = [pool.submit(drain, peer.blob(digest), CONNECTIONS, SECONDS) for digest in digests]
        return sum(each.result().rate for each in drains)


def _wait_for(peer: Peer, digests: Sequence[str]) -> None:
    """Wait until everything is uploaded and linked."""
    parts = urlsplit(peer.url)
    for digest in digests:
        while True:
            connection = http.client.HTTPConnection(parts.netloc)
            connection.request("HEAD", f"{parts.path}/blobs/{digest}")
            if connection.getresponse().status == 200:
                break
            time.sleep(0.2)


if __name__ == "__main__":
    run(rows)
