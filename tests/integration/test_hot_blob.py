"""One blob that everybody wants at once, from three mirrors behind a balancer with bounded load."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from .conftest import MakeDirectory
from .parts.authority import Authority
from .parts.balancers import ANYBODY, ENVOY, Balancer
from .parts.images import Image, image
from .parts.media import Content
from .parts.mirror import DOMAIN, PATIENT_PEERS, make_peers
from .parts.programs import require
from .parts.sharing import Sharing

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
CLIENTS, MIRRORS = 60, 3
FACTOR = 1.25
"""The most that a mirror gets, in shares; the balancers round it up to a whole request."""
PATIENCE = 120


@pytest.fixture(params=["haproxy", ENVOY], ids=["haproxy", "envoy"])
def balanced(
    request: pytest.FixtureRequest, sharing: Sharing, directory: MakeDirectory, authority: Authority
) -> Iterator[Balancer]:
    """Three mirrors that are peers, and the balancer in front."""
    require(request.param)
    sharing.patch = PATIENT_PEERS
    for _ in range(MIRRORS):
        sharing.add(trust_proxy=["127.0.0.1"], networks=ANYBODY)
    make_peers(sharing.mirrors)
    certificate = authority.issue("127.0.0.1", DOMAIN, f"*.{DOMAIN}")
    servers = {n: mirror.port for n, mirror in enumerate(sharing.mirrors, 1)}
    with Balancer(directory("balancer"), request.param, certificate, servers) as balancer:
        yield balancer


@dataclass(frozen=True)
class Crowd:
    """Clients of an image's layer; ``begun`` is released by each whose response has begun."""

    balancer: Balancer
    authority: Authority
    image: Image
    repository: str
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def path(self) -> str:
        return self._path(self.image.layers[0])

    def pull(self) -> None:
        self._get(self.path, self.image.layers[0])

    def pull_rest(self) -> None:
        """Get what the image has beside the layer."""
        assert self.image.config is not None
        self._get(f"/v2/docker.io/library/{self.repository}/manifests/latest", self.image.manifest)
        self._get(self._path(self.image.config), self.image.config)

    def _path(self, blob: Content) -> str:
        return f"/v2/docker.io/library/{self.repository}/blobs/{blob.digest}"

    def _get(self, path: str, content: Content) -> None:
        context = ssl.create_default_context(cafile=self.authority.certificate)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.balancer.port, timeout=PATIENCE, context=context
        )
        headers = {"Host": self.balancer.netloc, "Connection": "close", "Accept": "*/*"}
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:
            self.begun.release()
            assert response.status == 200, response.read()
            assert response.read() == content.data

    def served(self, sharing: Sharing) -> list[int]:
        """Return how many of the clients' responses each mirror has sent."""
        logs = [mirror.read_log().splitlines() for mirror in sharing.mirrors]
        sent = f" GET {self.path} 200 "
        return [sum(sent in line and " via " not in line for line in lines) for lines in logs]

    def copies(self, sharing: Sharing) -> int:
        """Return how often the upstream has sent the whole blob; a mirror reads a few bytes for consent."""
        digest = self.image.layers[0].digest.partition(":")[2]
        return sum(each.path.endswith(digest) and each.range is None for each in sharing.blobs.requests)


def crowd(sharing: Sharing, balanced: Balancer, authority: Authority, repository: str) -> Crowd:
    """Publish an image, and return the clients of its layer."""
    pushed = image(repository, layers=(3 * MIB,))
    sharing.registry.push(f"library/{repository}", pushed, "latest")
    return Crowd(balanced, authority, pushed, repository)


def test_a_blob_that_no_mirror_has(sharing: Sharing, balanced: Balancer, authority: Authority) -> None:
    """No mirror gets more than its bounded share, and one of them asks the upstream, once.

    All clients are there before the upstream has sent the whole blob, so all three mirrors are needed: two
    with 1.25 shares each do not serve three shares.
    """
    hot = crowd(sharing, balanced, authority, "cold")
    with ThreadPoolExecutor(CLIENTS) as pool, sharing.blobs.valve.shut(MIB):
        pulling = []
        for _ in range(CLIENTS):
            pulling.append(pool.submit(hot.pull))
            assert hot.begun.acquire(timeout=PATIENCE)
        sharing.blobs.valve.open()
        for each in pulling:
            each.result()
    assert sum(hot.served(sharing)) == CLIENTS
    assert max(hot.served(sharing)) <= CLIENTS / MIRRORS * FACTOR + 1
    assert hot.copies(sharing) == 1
    hot.pull_rest()
    for mirror in sharing.mirrors:
        sharing.uploaded(mirror, {"library/cold": hot.image})


def test_a_blob_in_the_bucket(sharing: Sharing, balanced: Balancer, authority: Authority) -> None:
    """The upstream is not asked again: the other mirrors read the bucket."""
    hot = crowd(sharing, balanced, authority, "held")
    hot.pull_rest()
    hot.pull()
    for mirror in sharing.mirrors:
        sharing.uploaded(mirror, {"library/held": hot.image})
    with ThreadPoolExecutor(CLIENTS) as pool:
        for each in [pool.submit(hot.pull) for _ in range(CLIENTS)]:
            each.result()
    assert sum(hot.served(sharing)) == CLIENTS + 1
    assert hot.copies(sharing) == 1
