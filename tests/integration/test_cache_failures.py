"""An upstream that fails: complete images are served stale, and others get its error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.long import LONG

from .conftest import MakeChain
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.faults import FAILURE, LIMIT, PAGE, Fault, Stall
from .parts.images import Image, image, index
from .parts.kept import holds
from .parts.machine import Machine
from .parts.plain import PlainClient, Response
from .parts.process import wait_until
from .pulls import refused, skopeo_pulls

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def doubting(chains: MakeChain) -> Iterator[Chain]:
    """A mirror that asks what a tag names each time."""
    with chains(tag_ttl=0) as chain:
        yield chain


@pytest.fixture
def sound(doubting: Chain) -> Iterator[Chain]:
    """The same mirror, restarted, so that it remembers no failure."""
    doubting.mirror.stop()
    doubting.mirror.start()
    yield doubting
    doubting.front.fault = None


@pytest.fixture
def held(sound: Chain, request: pytest.FixtureRequest) -> Image:
    """An image that is held whole as ``library/held``, under a tag of the test's own."""
    pushed = image(f"held {request.node.name}")
    sound.registry.push("library/held", pushed, _tag(pushed))
    _hold(sound, "library/held", _tag(pushed), pushed)
    return pushed


FAULTS = {"limit": (LIMIT, 429), "failure": (FAILURE, 500), "page": (PAGE, 502)}
"""Faults, and the status for an image that is not cached."""


@pytest.mark.parametrize(("fault", "status"), FAULTS.values(), ids=FAULTS)
def test_fault(sound: Chain, held: Image, skopeo_machine: Machine, fault: Fault, status: int) -> None:
    """While the upstream answers 429, 500 or a web page, complete images are served stale, and no others.

    An image that is not cached gets the upstream's error, in the registry's format; one of which a layer is
    missing is an error by tag and by digest, so that clients use another mirror.
    """
    partly, client = image(f"partly held {status}"), sound.mirror.client("docker")
    sound.registry.push("library/partly", partly, _tag(partly))
    assert client.manifest("library/partly", _tag(partly)).status == 200
    for blob in partly.blobs[::2]:  # no layer behind the last one is prefetched
        assert client.blob("library/partly", blob.digest).status == 200
    sound.front.fault = fault
    answered = sound.mirror.client().manifest("docker.io/library/never", "latest")
    assert answered.status == status
    assert answered.headers["Content-Type"].startswith("application/json")
    assert json.loads(answered.body)["errors"][0]["code"]
    assert answered.headers["Retry-After"] == fault.headers.get("Retry-After")
    for reference in (_tag(partly), partly.digest):
        assert client.manifest("library/partly", reference).status in (429, 500, 502, 503)
    if fault is not LIMIT:  # of which skopeo waits for the end
        source = f"docker://{sound.mirror.host('docker')}/library/partly:{_tag(partly)}"
        refused(skopeo(skopeo_machine, "inspect", "--raw", "--tls-verify=false", source), "reading manifest")
    _served_stale(sound, held)


def test_refused_connections(sound: Chain, held: Image) -> None:
    """An upstream that refuses connections is 502 for other images, and complete ones are served stale."""
    with sound.front.stopped():
        answered = sound.mirror.client().manifest("docker.io/library/never", "latest")
        assert answered.status == 502
        assert json.loads(answered.body)["errors"][0]["code"] == "UNAVAILABLE"
        _served_stale(sound, held)


def test_no_answer(sound: Chain, held: Image) -> None:
    """While the upstream never answers, complete images are served stale; clients wait for others."""
    sound.front.fault = stall = Stall()
    _served_stale(sound, held)
    with ThreadPoolExecutor(1) as pool:
        asked = len(sound.front.requests)
        answer = pool.submit(sound.mirror.client().manifest, "docker.io/library/never", "latest")
        while len(sound.front.requests) == asked:
            assert not answer.done()
        sound.front.fault = None
        stall.over.set()
        assert answer.result().status == 404


def test_index_with_one_platform(sound: Chain, skopeo_machine: Machine) -> None:
    """An index is served stale if one of its platforms is complete: clients pull one."""
    pushed = index("one platform")
    sound.registry.push("library/platform", pushed, "latest")
    source = f"{sound.mirror.host('docker')}/library/platform"
    client = sound.mirror.client("docker")
    assert client.manifest("library/platform", "latest").status == 200
    sound.front.fault = FAILURE
    assert client.manifest("library/platform", "latest").status == 500
    sound.front.fault = None
    sound.mirror.stop()
    sound.mirror.start()
    _hold(sound, "library/platform", pushed.children[0].digest, pushed.children[0])
    sound.front.fault = FAILURE
    assert client.manifest("library/platform", "latest").body == pushed.manifest.data
    skopeo_pulls(skopeo_machine, f"{source}@{pushed.children[0].digest}", pushed.children[0])


def test_private_network(chains: MakeChain) -> None:
    """An upstream in a private network decides at each request who may have its cached content."""
    with chains(upstream={"public": None}) as chain:
        pushed = image("perhaps for us alone")
        chain.registry.push("library/internal", pushed, "latest")
        client = chain.mirror.client("docker")
        _hold(chain, "library/internal", "latest", pushed)
        front, blobs = len(chain.front.requests), len(chain.blobs.requests)
        pull(client, "library/internal", "latest", pushed)
        manifests = [each for each in chain.front.requests[front:] if "/manifests/" in each.path]
        assert {each.method for each in manifests} == {"HEAD"}
        for each in chain.blobs.requests[blobs:]:  # a redirect proves nothing: a sample of each blob does
            assert each.range is not None
            first, _, last = each.range.removeprefix("bytes=").partition("-")
            assert int(last) - int(first) < 64
        chain.stop_upstream()
        for content in pushed.everything():
            assert client.manifest("library/internal", content.digest).status >= 500
            assert client.blob("library/internal", content.digest).status >= 500


def pull(client: PlainClient, name: str, reference: str, pushed: Image) -> Response:
    """Pull an image of one platform; return the response for its manifest."""
    first = client.manifest(name, reference)
    assert (first.status, first.body) == (200, pushed.manifest.data)
    assert client.manifest(name, pushed.digest).body == pushed.manifest.data
    for content in pushed.blobs:
        assert client.blob(name, content.digest).body == content.data
    return first


def _hold(chain: Chain, name: str, reference: str, pushed: Image) -> None:
    """Pull an image and wait until it is stored."""
    pull(chain.mirror.client("docker"), name, reference, pushed)
    wait_until(lambda: holds(chain.mirror.cache, f"docker.io/{name}", pushed), f"{name} is held")


def _served_stale(chain: Chain, held: Image) -> None:
    """Pull again and again, with one request upstream, or another one after a while."""
    asked = len(chain.front.requests)
    client = chain.mirror.client("docker")
    for _ in range(20 if LONG else 5):
        answer = pull(client, "library/held", _tag(held), held)
        assert answer.headers["Cache-Status"] == "dockmirror; fwd=stale; detail=upstream"
        assert answer.headers["Warning"].startswith('299 - "served stale: ')
    assert len(chain.front.requests) - asked <= 2


def _tag(pushed: Image) -> str:
    return f"t{pushed.digest[-12:]}"
