"""A cached private image is given to clients that its registry gives it to, and to no others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import MakeChain, MakeMachine
from .parts.accounts import ALICE, BOB, Account
from .parts.chain import Chain
from .parts.clients import Containerd, Dockerd, podman, skopeo
from .parts.images import Image, artifact, image
from .parts.kept import growing_file, holds, leaks, length
from .parts.machine import Machine
from .parts.plain import Response
from .parts.process import wait_until
from .pulls import credentials, ctr_pulls, docker_pulls, refused, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
NAME = "private/kept"


@pytest.fixture(scope="module")
def kept(chains: MakeChain) -> Iterator[Chain]:
    """A mirror for these tests."""
    with chains() as chain:
        yield chain


@pytest.fixture(scope="module")
def pushed(kept: Chain, make_machine: MakeMachine) -> Image:
    """Alice's image, which the mirror holds since she pulled it; and another that is public."""
    alices = image("alice's")
    kept.registry.push(NAME, alices, "latest")
    kept.registry.push("public/beside", image("beside alice's"), "latest")
    _owner_pulls(kept, make_machine("skopeo"), alices)
    wait_until(lambda: holds(kept.mirror.cache, f"docker.io/{NAME}", alices), "Alice's image is held")
    return alices


def test_owner(kept: Chain, pushed: Image, skopeo_machine: Machine) -> None:
    """The owner's second pull, with a new token, costs the registry one HEAD and the CDN nothing."""
    front, blobs = len(kept.front.requests), len(kept.blobs.requests)
    _owner_pulls(kept, skopeo_machine, pushed)
    asked = [(each.method, each.path) for each in kept.front.requests[front:]]
    assert asked == [("GET", "/v2/"), ("HEAD", f"/v2/{NAME}/manifests/latest")]  # the login, and the pull
    assert len(kept.blobs.requests) == blobs


@pytest.mark.parametrize("account", [None, BOB], ids=["anonymous", "bob"])
def test_others(
    kept: Chain, pushed: Image, account: Account | None, skopeo_machine: Machine, podman_machine: Machine
) -> None:
    """Other accounts cannot pull it by name or digest, on either host."""
    denials = "unauthorized", "denied", "authentication required"
    hosts = f"{kept.mirror.host('docker')}/{NAME}", f"{kept.mirror.host()}/docker.io/{NAME}"
    for reference in (f"{host}{end}" for host in hosts for end in (":latest", f"@{pushed.digest}")):
        inspect = ["inspect", "--raw", "--tls-verify=false", *credentials(account)]
        refused(skopeo(skopeo_machine, *inspect, f"docker://{reference}"), *denials)
        pull = ["pull", "--tls-verify=false", *credentials(account), reference]
        refused(podman(podman_machine, *pull), *denials)


def test_guessed(kept: Chain, pushed: Image) -> None:
    """A client that guesses a digest gets no byte of it, by a public repository or by a private one."""
    for content in (pushed.manifest, pushed.layers[0]):
        for answer in _guesses(kept, content.digest):
            assert answer.status in (401, 403, 404), answer
            assert content.data[:50] not in answer.body


def test_growing(kept: Chain) -> None:
    """While a private blob is on its way to its owner, nobody else gets a byte of it.

    Her own second token is proven by 64 bytes; the blob is fetched once.
    """
    large = artifact("alice's large one", size=4 * MIB)
    kept.registry.push(NAME, large, "large")
    layer = large.layers[0]
    file = growing_file(kept.mirror.cache, layer.digest)
    with ThreadPoolExecutor(1) as pool, kept.blobs.valve.shut(2 * MIB):
        owners = pool.submit(kept.mirror.client("docker", ALICE).blob, NAME, layer.digest)
        wait_until(lambda: length(file) == 2 * MIB, "half of it has come")
        for answer in _guesses(kept, layer.digest):
            assert answer.status in (401, 403, 404), answer
        again = kept.mirror.client("docker", ALICE).blob(NAME, layer.digest, {"Range": "bytes=0-99"})
        assert (again.status, again.body) == (206, layer.data[:100])
        kept.blobs.valve.open()
        assert owners.result().body == layer.data
    path = f"/sha256/{layer.digest.removeprefix('sha256:')}"
    whole, sample = [each.range for each in kept.blobs.requests if each.path == path]
    assert whole is None
    first, last = map(int, str(sample).removeprefix("bytes=").split("-"))
    assert last - first + 1 == 64


def test_no_secret(
    kept: Chain, pushed: Image, containerd: Containerd, dockerd: Dockerd, skopeo_machine: Machine
) -> None:
    """The log and the cache contain no password and no token."""
    reference = f"{kept.mirror.host('docker')}/{NAME}:latest"
    _owner_pulls(kept, skopeo_machine, pushed)
    docker_pulls(dockerd, reference, pushed, ALICE)
    succeeded(dockerd.docker("image", "rm", reference))
    ctr_pulls(containerd, reference, pushed, "--plain-http", f"--user=alice:{ALICE.password}")
    own = kept.mirror.client(account=ALICE)
    own.bare("GET", "/v2/", None, {"Host": kept.mirror.host(), "Authorization": ALICE.basic})
    inspect = ["inspect", "--tls-verify=false", f"--creds={BOB.name}:{BOB.password}", f"docker://{reference}"]
    refused(skopeo(skopeo_machine, *inspect), "unauthorized", "denied")
    in_query = f"/v2/auth?account=alice&password={ALICE.password}&scope=repository:{NAME}:pull"
    kept.mirror.client("docker").bare("GET", in_query, None, {"Host": kept.mirror.host("docker")})
    assert any(each.offline for each in kept.tokens.requests)
    assert {"password", "refresh_token"} & {each.grant for each in kept.tokens.requests}
    assert leaks(kept.mirror.directory, kept.secrets()) == []
    assert leaks(kept.mirror.directory, [NAME]) != []


def test_outage(kept: Chain, pushed: Image, skopeo_machine: Machine) -> None:
    """While the registry and its token service are down, nobody else gets it either."""
    assert kept.mirror.client("docker").manifest("public/beside", "latest").status == 200
    bobs = kept.tokens.token(BOB, [f"repository:{NAME}:pull"])
    with kept.upstream_stopped():
        for content in (pushed.manifest, pushed.layers[0]):
            for answer in _guesses(kept, content.digest):
                assert answer.status in (401, 403, 404, 502, 503), answer
            headers = {"Host": kept.mirror.host("docker"), "Authorization": f"Bearer {bobs}"}
            for kind in ("manifests", "blobs"):
                path = f"/v2/{NAME}/{kind}/{content.digest}"
                assert kept.mirror.client().bare("GET", path, None, headers).status in (502, 503)
        source = f"docker://{kept.mirror.host('docker')}/{NAME}:latest"
        refused(skopeo(skopeo_machine, "inspect", "--tls-verify=false", source), "reading manifest", "token")


def _owner_pulls(chain: Chain, machine: Machine, pushed: Image) -> None:
    """Alice logs in, pulls and logs out."""
    host = chain.mirror.host("docker")
    succeeded(skopeo(machine, "login", "--tls-verify=false", "-ualice", f"-p{ALICE.password}", host))
    skopeo_pulls(machine, f"{host}/{NAME}:latest", pushed)
    succeeded(skopeo(machine, "logout", host))


def _guesses(chain: Chain, digest: str) -> Iterator[Response]:
    """The answers to all ways of asking for a digest that is Alice's, for all others."""
    strangers = chain.mirror.client("docker"), chain.mirror.client("docker", BOB)
    owns = chain.mirror.client(), chain.mirror.client(account=BOB)
    for repository in (NAME, "public/beside"):
        for client, prefix in (
            (strangers[0], ""),
            (strangers[1], ""),
            (owns[0], "docker.io/"),
            (owns[1], ""),
        ):
            path = f"/v2/{prefix}{repository}"
            yield client.request("GET", f"{path}/manifests/{digest}")
            yield client.request("GET", f"{path}/blobs/{digest}")
            yield client.request("HEAD", f"{path}/blobs/{digest}")
            yield client.request("GET", f"{path}/blobs/{digest}", headers={"Range": "bytes=0-9"})
            yield client.request("GET", f"{path}/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
