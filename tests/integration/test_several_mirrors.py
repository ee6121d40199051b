"""Several mirrors on one bucket, behind what sends every request for a blob to the same one."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import MakeDirectory
from .parts.authority import Authority
from .parts.balancers import ANYBODY, ENVOY, Balancer
from .parts.images import Image, image
from .parts.kept import length
from .parts.mirror import Mirror
from .parts.plain import PlainClient
from .parts.process import wait_until
from .parts.programs import require
from .parts.sharing import Sharing

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
CLIENTS = 30
ATTEMPTS = 5


class Puller:
    """A client that does what they all do: what breaks off is asked for again, five times at most.

    :ivar again: how often it had to.
    """

    def __init__(self, balancer: Balancer, authority: Authority) -> None:
        host = f"docker.{balancer.netloc}"
        self.plain = PlainClient(
            f"https://127.0.0.1:{balancer.port}", host=host, authority=authority.certificate
        )
        self.again = 0

    def pull(self, repository: str, pulled: Image) -> None:
        """Pull an image and compare every byte."""
        assert self._get(f"/v2/{repository}/manifests/latest") == pulled.manifest.data
        for blob in pulled.blobs:
            assert self._get(f"/v2/{repository}/blobs/{blob.digest}") == blob.data

    def _get(self, path: str) -> bytes:
        for _ in range(ATTEMPTS):
            try:
                answer = self.plain.request("GET", path)
            except (http.client.HTTPException, OSError):
                self.again += 1
                continue
            if answer.status == 200:
                return answer.body
            assert answer.status >= 500, answer
            self.again += 1
        raise AssertionError(f"{path}: not in {ATTEMPTS} attempts")


@pytest.fixture(params=["nginx", "haproxy", ENVOY], ids=["nginx", "haproxy", "envoy"])
def balanced(
    request: pytest.FixtureRequest, sharing: Sharing, directory: MakeDirectory, authority: Authority
) -> Iterator[Balancer]:
    """Three mirrors, and what stands in front."""
    require(request.param)
    for _ in range(3):
        sharing.add(trust_proxy=["127.0.0.1"], networks=ANYBODY)
    certificate = authority.issue("127.0.0.1", "mirror.test", "*.mirror.test")
    with Balancer(directory("balancer"), request.param, certificate, numbered(sharing.mirrors)) as balancer:
        yield balancer


def numbered(mirrors: Sequence[Mirror]) -> dict[int, int]:
    """The port of each mirror by its number, from 1 on."""
    return {n: mirror.port for n, mirror in enumerate(mirrors, 1)}


def pulls(balancer: Balancer, authority: Authority, repository: str, pulled: Image) -> int:
    """Have all clients pull at once; return the number of attempts that had to be repeated."""
    pullers = [Puller(balancer, authority) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for each in [pool.submit(puller.pull, repository, pulled) for puller in pullers]:
            each.result()
    return sum(puller.again for puller in pullers)


def has_begun(growing: Path) -> bool:
    """Return True if a large blob is being downloaded."""
    return any(length(file) > MIB // 2 for file in growing.glob("sha256-*"))


def fetched(sharing: Sharing) -> Counter[str]:
    """The number of requests for each of the upstream's blobs."""
    return Counter(each.path for each in sharing.blobs.requests)


def test_several(sharing: Sharing, balanced: Balancer, authority: Authority) -> None:
    """30 clients; one mirror is killed, one is added: nobody fails, and nothing is fetched again."""
    first = image("several", layers=(MIB // 2, MIB // 4, 100_000))
    sharing.registry.push("library/first", first, "latest")
    assert pulls(balanced, authority, "library/first", first) == 0
    # With bounded load, what several clients want at once comes from several mirrors.
    assert max(fetched(sharing).values()) <= (1 if balanced.command[0] == "nginx" else len(sharing.mirrors))
    assert len(fetched(sharing)) == len(first.blobs)
    for mirror in sharing.mirrors:
        sharing.uploaded(mirror, {"library/first": first})

    second = image("killed", layers=(3 * MIB // 2, MIB // 2, MIB // 4))
    sharing.registry.push("library/second", second, "latest")
    busy = [mirror.cache / "dockmirror/growing/docker.io" for mirror in sharing.mirrors]
    with sharing.blobs.valve.shut(MIB):
        pulling = threading.Thread(
            target=lambda: again.append(pulls(balanced, authority, "library/second", second))
        )
        again: list[int] = []
        pulling.start()
        wait_until(lambda: any(map(has_begun, busy)), "clients have the beginning of a blob")
        victim = next(n for n, each in enumerate(busy) if has_begun(each))
        sharing.uploaded(sharing.mirrors[victim], {})  # else what it alone has whole would be lost with it
        sharing.mirrors[victim].kill()
        sharing.blobs.valve.open()
        pulling.join()
    assert len(again) == 1
    assert again[0] > 0

    for n, mirror in enumerate(sharing.mirrors):
        if n != victim:
            sharing.uploaded(mirror, {"library/second": second})
    before = fetched(sharing)
    if balanced.command[0] == "nginx":  # which reads its servers anew
        sharing.add(trust_proxy=["127.0.0.1"], networks=ANYBODY)
        balanced.configure({n: port for n, port in numbered(sharing.mirrors).items() if n != victim + 1})
        balanced.reload()
    else:
        sharing.mirrors[victim].start()
    assert pulls(balanced, authority, "library/first", first) == 0
    assert pulls(balanced, authority, "library/second", second) == 0
    assert fetched(sharing) == before
