"""Real clients pull a public image cold, warm, after a restart, and when nothing upstream answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.long import LONG

from .conftest import MakeChain, MakeMachine
from .parts.chain import Chain
from .parts.clients import Containerd, Dockerd
from .parts.images import Image, index
from .parts.kept import holds
from .parts.process import wait_until
from .pullers import PULLERS, Clients

pytestmark = pytest.mark.integration

each_puller = pytest.mark.parametrize("puller", PULLERS)
SOME = PULLERS if LONG else ("skopeo", "containerd-ns", "dockerd-mirror")
"""For tests in which the mirror differs, and the client's requests do not."""


@pytest.fixture(scope="module")
def lasting(chains: MakeChain) -> Iterator[Chain]:
    """A mirror that believes what a tag names for as long as these tests last."""
    with chains(tag_ttl=3600) as chain:
        yield chain


@pytest.fixture(scope="module")
def clients(lasting: Chain, make_machine: MakeMachine, containerd: Containerd) -> Iterator[Clients]:
    """The clients of that mirror."""
    machine = make_machine("dockerd", "docker")
    with Dockerd(machine, mirrors=(f"http://{lasting.mirror.host()}",)) as dockerd:
        new_machine = partial(make_machine, "skopeo", "podman", "buildah")
        yield Clients(lasting.mirror, new_machine, dockerd, containerd)


@pytest.fixture(scope="module")
def images(lasting: Chain) -> dict[str, Image]:
    """A multi-architecture image for each of the clients."""
    pushed = {puller: index(f"cached for {puller}") for puller in PULLERS}
    for puller, each in pushed.items():
        lasting.registry.push(f"library/{puller}", each, "latest")
    return pushed


@pytest.fixture(scope="module")
def restarted(lasting: Chain, images: dict[str, Image]) -> Chain:
    """The mirror, which was stopped and started when it held all images."""
    _hold(lasting, images)
    lasting.mirror.stop()
    lasting.mirror.start()
    return lasting


@pytest.fixture(scope="module")
def alone(lasting: Chain, images: dict[str, Image]) -> Chain:
    """The mirror without an upstream, started when that was gone; no tag is within its time to live."""
    _hold(lasting, images)
    lasting.mirror.stop()
    lasting.stop_upstream()
    lasting.mirror.configure(tag_ttl=0)
    lasting.mirror.start()
    return lasting


@each_puller
def test_cold_and_warm(lasting: Chain, clients: Clients, images: dict[str, Image], puller: str) -> None:
    """A cold pull fetches each layer once; a warm one of the same client, emptied, asks nobody anything."""
    native = images[puller].children[0]
    PULLERS[puller](clients, f"library/{puller}", images[puller])
    fetched = [each.path for each in lasting.blobs.requests]
    assert [fetched.count(f"/sha256/{each.digest.removeprefix('sha256:')}") for each in native.blobs] == [
        1
    ] * 3
    _pulls_unasked(lasting, clients, images, puller)


@pytest.mark.parametrize("puller", SOME)
def test_restarted(restarted: Chain, clients: Clients, images: dict[str, Image], puller: str) -> None:
    """After a restart a cached image is pulled without a request upstream, even for a token."""
    _pulls_unasked(restarted, clients, images, puller)


@pytest.mark.parametrize("puller", SOME)
def test_outage(alone: Chain, clients: Clients, images: dict[str, Image], puller: str) -> None:
    """Every client pulls cached images without registry, token service and CDN, stale tags included."""
    _pulls_unasked(alone, clients, images, puller)


def test_headers_in_an_outage(alone: Chain, images: dict[str, Image]) -> None:
    """In an outage responses by tag are marked as stale, and those by digest are not."""
    pushed = images["skopeo"]
    client = alone.mirror.client("docker")
    by_tag = client.manifest("library/skopeo", "latest")
    assert by_tag.body == pushed.manifest.data
    assert by_tag.headers["Cache-Status"] == "dockmirror; fwd=stale; detail=upstream"
    assert by_tag.headers["Warning"].startswith('299 - "served stale: ')
    assert int(by_tag.headers["Age"]) >= 0
    for content in pushed.everything():
        kind = (
            "blob" if content in (blob for child in pushed.children for blob in child.blobs) else "manifest"
        )
        held = getattr(client, kind)("library/skopeo", content.digest)
        assert held.body == content.data
        assert (held.headers["Cache-Status"], held.headers["Warning"]) == ("dockmirror; hit", None)
    assert "library/skopeo/manifests/latest is served stale: " in alone.mirror.read_log()
    assert client.bare("GET", "/v2/", None, {"Host": alone.mirror.host("docker")}).status in (200, 401)
    absent = client.manifest("library/never-seen", "latest")
    assert absent.status in (502, 503, 504)
    assert absent.headers["Content-Type"].startswith("application/json")


def _hold(chain: Chain, images: dict[str, Image]) -> None:
    """Pull all architectures, so that the mirror caches them."""
    client = chain.mirror.client("docker")
    for puller, pushed in images.items():
        name = f"library/{puller}"
        assert client.manifest(name, "latest").body == pushed.manifest.data
        for child in pushed.children:
            assert client.manifest(name, child.digest).body == child.manifest.data
            for blob in child.blobs:
                assert client.blob(name, blob.digest).body == blob.data
            wait_until(partial(holds, chain.mirror.cache, f"docker.io/{name}", child), f"{name} is held")


def _pulls_unasked(chain: Chain, clients: Clients, images: dict[str, Image], puller: str) -> None:
    """The client pulls, every blob from the mirror, and nobody behind the mirror is asked."""
    asked, log = chain.asked(), len(chain.mirror.read_log())
    PULLERS[puller](clients, f"library/{puller}", images[puller])
    assert chain.asked() == asked
    for blob in images[puller].children[0].blobs:
        line = f"/blobs/{blob.digest} 200"
        wait_until(partial(_is_logged, chain, line, log), f"the mirror's log has {line}")


def _is_logged(chain: Chain, line: str, since: int) -> bool:
    return line in chain.mirror.read_log()[since:]
