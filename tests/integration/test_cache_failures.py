"""An upstream that fails: what is held whole is served, and of the rest the truth is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

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

FAULTS = {"limit": LIMIT, "failure": FAILURE, "page": PAGE}


@pytest.fixture(scope="module")
def doubting(chains: MakeChain) -> Iterator[Chain]:
    """A mirror that asks what a tag names each time."""
    with chains(tag_ttl=0) as chain:
        yield chain


@pytest.fixture
def sound(doubting: Chain) -> Iterator[Chain]:
    """The same mirror, which has seen nothing fail since it was started."""
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


@pytest.mark.parametrize("kind", FAULTS)
def test_held(sound: Chain, held: Image, kind: str) -> None:
    """While the upstream answers 429, 500 or a web page, what is held is served and it is hardly asked."""
    sound.front.fault = FAULTS[kind]
    _served_stale(sound, held)


def test_held_while_nobody_answers(sound: Chain, held: Image) -> None:
    """While the upstream takes requests and never answers, what is held is served and it is hardly asked."""
    sound.front.fault = stall = Stall()
    _served_stale(sound, held)
    stall.over.set()


def test_held_while_nobody_listens(sound: Chain, held: Image) -> None:
    """While the upstream refuses connections, what is held is served and it is hardly asked."""
    with sound.front.stopped():
        _served_stale(sound, held)


@pytest.mark.parametrize(
    ("fault", "status"), [(LIMIT, 429), (FAILURE, 500), (PAGE, 502)], ids=["limit", "failure", "page"]
)
def test_not_held(sound: Chain, fault: Fault, status: int) -> None:
    """An image that is not cached gets the upstream's error, in the registry's format."""
    sound.front.fault = fault
    answered = sound.mirror.client().manifest("docker.io/library/never", "latest")
    assert answered.status == status
    assert answered.headers["Content-Type"].startswith("application/json")
    assert json.loads(answered.body)["errors"][0]["code"]
    assert answered.headers["Retry-After"] == fault.headers.get("Retry-After")


def test_not_held_while_nobody_listens(sound: Chain) -> None:
    """An upstream that refuses connections is a bad gateway, and no missing image."""
    with sound.front.stopped():
        answered = sound.mirror.client().manifest("docker.io/library/never", "latest")
    assert answered.status == 502
    assert json.loads(answered.body)["errors"][0]["code"] == "UNAVAILABLE"


def test_not_held_while_nobody_answers(sound: Chain) -> None:
    """A client waits for a slow upstream's answer about an image that is not cached."""
    sound.front.fault = stall = Stall()
    with ThreadPoolExecutor(1) as pool:
        asked = len(sound.front.requests)
        answer = pool.submit(sound.mirror.client().manifest, "docker.io/library/never", "latest")
        while len(sound.front.requests) == asked:
            assert not answer.done()
        sound.front.fault = None
        stall.over.set()
        assert answer.result().status == 404


@pytest.mark.parametrize("kind", FAULTS)
def test_partly_held(sound: Chain, skopeo_machine: Machine, kind: str) -> None:
    """An image of which a layer is missing is not served stale, by tag or by digest: clients move on."""
    pushed = image(f"partly held {kind}")
    sound.registry.push("library/partly", pushed, _tag(pushed))
    client = sound.mirror.client("docker")
    assert client.manifest("library/partly", _tag(pushed)).status == 200
    assert client.blob("library/partly", pushed.blobs[0].digest).status == 200
    assert client.blob("library/partly", pushed.blobs[1].digest).status == 200
    sound.front.fault = FAULTS[kind]
    for reference in (_tag(pushed), pushed.digest):
        assert client.manifest("library/partly", reference).status in (429, 500, 502, 503)
    if kind != "limit":  # of which skopeo waits for the end
        source = f"docker://{sound.mirror.host('docker')}/library/partly:{_tag(pushed)}"
        inspected = skopeo(skopeo_machine, "inspect", "--raw", "--tls-verify=false", source)
        refused(inspected, "reading manifest")


def test_index_of_which_one_platform_is_held(sound: Chain, skopeo_machine: Machine) -> None:
    """An index is served stale where one of its platforms is held whole: nobody pulls all of them."""
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


def test_address_that_may_be_trusted(chains: MakeChain) -> None:
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
    """All of an image of one platform; the answer to its manifest by that reference."""
    first = client.manifest(name, reference)
    assert (first.status, first.body) == (200, pushed.manifest.data)
    assert client.manifest(name, pushed.digest).body == pushed.manifest.data
    for content in pushed.blobs:
        assert client.blob(name, content.digest).body == content.data
    return first


def _hold(chain: Chain, name: str, reference: str, pushed: Image) -> None:
    """Pulled, and kept: the last bytes reach the client before the disk."""
    pull(chain.mirror.client("docker"), name, reference, pushed)
    wait_until(lambda: holds(chain.mirror.cache, f"docker.io/{name}", pushed), f"{name} is held")


def _served_stale(chain: Chain, held: Image) -> None:
    """Twenty pulls, and for all of them together one question, or another when the upstream has rested."""
    asked = len(chain.front.requests)
    client = chain.mirror.client("docker")
    for _ in range(20):
        answer = pull(client, "library/held", _tag(held), held)
        assert answer.headers["Cache-Status"] == "dockmirror; fwd=stale; detail=upstream"
        assert answer.headers["Warning"].startswith('299 - "served stale: ')
    assert len(chain.front.requests) - asked <= 2


def _tag(pushed: Image) -> str:
    return f"t{pushed.digest[-12:]}"
