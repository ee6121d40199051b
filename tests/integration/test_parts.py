"""The parts of the integration tests do what is said of them, without a mirror between them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from .parts.accounts import ALICE, BOB, Account
from .parts.authority import Authority
from .parts.cdn import BlobStore
from .parts.clients import Containerd, Dockerd, curl, podman, skopeo
from .parts.front import Front
from .parts.images import artifact, image, index, referrers
from .parts.machine import Machine
from .parts.media import FAMILIES, Family
from .parts.plain import PlainClient
from .parts.process import wait_until
from .parts.programs import require
from .parts.registry import Registry
from .parts.tokens import Tokens
from .pulls import (
    buildah_pulls,
    credentials,
    ctr_pulls,
    docker_pulls,
    podman_pulls,
    refused,
    skopeo_pulls,
    skopeo_reads,
    succeeded,
)

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Place:
    """A registry where a client pulls from *netloc* what was pushed to *registry*."""

    netloc: str
    registry: Registry
    account: Account | None = None
    plain_http: bool = True


def test_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is missing skips a test, or fails it where all of them are required."""
    monkeypatch.delenv("REQUIRE_INTEGRATION", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require("no-such-program")
    monkeypatch.setenv("REQUIRE_INTEGRATION", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("no-such-program")


@pytest.fixture(params=["token", "cdn", "basic", "open", "tls"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of registry in turn."""
    if request.param == "cdn":
        registry: Registry = request.getfixturevalue("token_registry")
        return Place(request.getfixturevalue("front").netloc, registry)
    registry = request.getfixturevalue(f"{request.param}_registry")
    if request.param == "tls":
        return Place(f"tls.test:{registry.port}", registry, plain_http=False)
    return Place(registry.netloc, registry, ALICE if request.param == "basic" else None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_skopeo_copies(place: Place, family: Family, skopeo_machine: Machine) -> None:
    """skopeo copies an image of either family, bytes unchanged."""
    pushed = image("skopeo copies", family)
    place.registry.push("library/copied", pushed, family.name)
    skopeo_pulls(skopeo_machine, f"{place.netloc}/library/copied:{family.name}", pushed, place.account)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_skopeo_copies_every_architecture(
    token_registry: Registry, family: Family, skopeo_machine: Machine
) -> None:
    """skopeo copies an index with the images of all its architectures."""
    pushed = index("skopeo copies", family)
    token_registry.push("library/index", pushed, family.name)
    skopeo_pulls(skopeo_machine, f"{token_registry.netloc}/library/index@{pushed.digest}", pushed)


def test_skopeo_copies_an_artifact(token_registry: Registry, skopeo_machine: Machine) -> None:
    """A referrer that is no image can be copied, and is listed under the tag made of its subject's digest."""
    subject = image("subject")
    referrer = artifact("referrer", subject)
    tag, listing = referrers(subject, referrer)
    token_registry.push("library/subject", subject, "latest")
    token_registry.push("library/subject", listing, tag)
    name = f"{token_registry.netloc}/library/subject"
    skopeo_pulls(skopeo_machine, f"{name}@{referrer.digest}", referrer)
    skopeo_reads(skopeo_machine, f"{name}:{tag}", listing)


def test_skopeo_inspects_and_lists(place: Place, skopeo_machine: Machine) -> None:
    """skopeo reads a manifest as it was pushed, and lists the tags."""
    pushed = image("inspected")
    place.registry.push("library/inspected", pushed, "one", "two")
    name = f"{place.netloc}/library/inspected"
    skopeo_reads(skopeo_machine, f"{name}:one", pushed, place.account)
    options = ["--tls-verify=false", *credentials(place.account)]
    tags = json.loads(succeeded(skopeo(skopeo_machine, "list-tags", *options, f"docker://{name}")))
    assert sorted(tags["Tags"]) == ["one", "two"]


def test_podman_and_buildah_pull(place: Place, podman_machine: Machine) -> None:
    """podman and buildah unpack an image to the files that were packed."""
    for pull in (podman_pulls, buildah_pulls):
        pushed = image(pull.__name__)
        place.registry.push("library/unpacked", pushed, "latest")
        pull(podman_machine, f"{place.netloc}/library/unpacked:latest", pushed, place.account)


def test_containerd_pulls(place: Place, authority: Authority, containerd: Containerd) -> None:
    """containerd stores manifests and blobs as they were pushed."""
    pushed = index(f"containerd {place.netloc}")
    place.registry.push("library/content", pushed, "latest")
    containerd.machine.trust(authority.certificate, place.netloc)
    options = ["--plain-http"] if place.plain_http else [f"--tlscacert={authority.certificate}"]
    user = [f"--user={place.account.name}:{place.account.password}"] if place.account else []
    ctr_pulls(containerd, f"{place.netloc}/library/content:latest", pushed, *options, *user)


def test_containerd_pulls_from_a_mirror(
    front: Front, token_registry: Registry, containerd: Containerd
) -> None:
    """containerd asks the host of ``hosts.toml`` in place of the registry that the name says."""
    pushed = index("containerd mirror")
    token_registry.push("library/mirrored", pushed, "latest")
    hosts = containerd.hosts("docker.io", f'[host."{front.url}"]\ncapabilities = ["pull", "resolve"]\n')
    ctr_pulls(containerd, "docker.io/library/mirrored:latest", pushed, f"--hosts-dir={hosts}")


def test_dockerd_pulls(place: Place, authority: Authority, dockerd: Dockerd) -> None:
    """dockerd unpacks an image to the layers that were packed."""
    pushed = image(f"dockerd {place.netloc}")
    place.registry.push("library/layers", pushed, "latest")
    dockerd.machine.trust(authority.certificate, place.netloc)
    docker_pulls(dockerd, f"{place.netloc}/library/layers:latest", pushed, place.account)


def test_tls_is_verified(tls_registry: Registry, authority: Authority, skopeo_machine: Machine) -> None:
    """The certificate is good for the registry's own name, for those who trust the authority."""
    pushed = image("verified")
    tls_registry.push("public/verified", pushed, "latest")
    right, wrong = f"tls.test:{tls_registry.port}", f"wrong.test:{tls_registry.port}"
    refused(skopeo(skopeo_machine, "inspect", f"docker://{right}/public/verified"), "unknown authority")
    for name in (right, wrong):
        skopeo_machine.trust(authority.certificate, name)
    skopeo_pulls(skopeo_machine, f"{right}/public/verified", pushed, verified=True)
    refused(
        skopeo(skopeo_machine, "inspect", f"docker://{wrong}/public/verified"), "certificate is valid for"
    )


def test_private_image(token_registry: Registry, tokens: Tokens, skopeo_machine: Machine) -> None:
    """A private image is given to its owner, after a login, and to nobody else."""
    pushed = image("private")
    token_registry.push("private/image", pushed, "latest")
    reference = f"{token_registry.netloc}/private/image:latest"
    machine = skopeo_machine
    refused(skopeo(machine, "inspect", "--tls-verify=false", f"docker://{reference}"), "unauthorized")
    tokens.requests.clear()
    skopeo_pulls(machine, reference, pushed, ALICE)
    assert {(each.method, each.account) for each in tokens.requests} == {("GET", "alice")}
    assert all("repository:private/image:pull" in each.scopes for each in tokens.requests)


def test_login(token_registry: Registry, dockerd: Dockerd, podman_machine: Machine) -> None:
    """docker and podman log in with the right password only; docker asks for a refresh token with it."""
    wrong = Account("alice", "wrong")
    name = token_registry.netloc
    refused(dockerd.login(name, wrong), "incorrect username or password")
    refused(
        podman(podman_machine, "login", "--tls-verify=false", "-ualice", "-pwrong", name), "invalid username"
    )
    pushed = image("login")
    token_registry.push("private/login", pushed, "latest")
    refused(dockerd.docker("pull", f"{name}/private/login"), "denied", "unauthorized")
    docker_pulls(dockerd, f"{name}/private/login:latest", pushed, ALICE)
    succeeded(podman(podman_machine, "login", "--tls-verify=false", "-ualice", f"-p{ALICE.password}", name))
    podman_pulls(podman_machine, f"{name}/private/login:latest", pushed)


def test_team_image(token_registry: Registry) -> None:
    """A team's image is given to each of its members."""
    pushed = image("team")
    token_registry.push("team/image", pushed, "latest")
    for account in (ALICE, BOB):
        client = PlainClient(token_registry.url, account)
        assert client.manifest("team/image", "latest").body == pushed.manifest.data
    assert PlainClient(token_registry.url, BOB).manifest("private/image", "latest").status == 401


def test_cdn_refuses_authorization(
    front: Front, token_registry: Registry, blob_store: BlobStore, skopeo_machine: Machine
) -> None:
    """The CDN takes no credentials besides the signature in its URLs, and gives parts."""
    pushed = image("cdn", layers=(300_000,))
    layer = pushed.layers[0]
    token_registry.push("public/cdn", pushed, "latest")
    redirect = PlainClient(front.url).blob("public/cdn", layer.digest)
    assert redirect.status == 307
    location = redirect.headers["Location"]
    status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    assert succeeded(curl(skopeo_machine, *status, "-H", "Authorization: Bearer x", location)) == "400"
    assert succeeded(curl(skopeo_machine, *status, "--head", location)) == "403"
    assert succeeded(curl(skopeo_machine, *status, "-r", "400000-", location)) == "416"
    part = skopeo_machine.home / "part"
    spans = {"100-199": layer.data[100:200], "299000-": layer.data[299000:], "-7": layer.data[-7:]}
    for span, data in spans.items():
        wrote = succeeded(curl(skopeo_machine, *status[2:], "-o", str(part), "-r", span, location))
        assert (wrote, part.read_bytes()) == ("206", data)
    assert [each.range for each in blob_store.requests[-3:]] == [f"bytes={span}" for span in spans]


def test_cdn_keeps_private_blobs(front: Front, token_registry: Registry) -> None:
    """The front redirects to a private blob only whom the registry would give it to."""
    pushed = image("private cdn")
    token_registry.push("private/cdn", pushed, "latest")
    digest = pushed.layers[0].digest
    assert PlainClient(front.url).blob("private/cdn", digest).status == 401
    assert PlainClient(front.url, ALICE).blob("private/cdn", digest).status == 307


def test_push_through_the_front(front: Front) -> None:
    """Uploads pass through the front."""
    pushed = image("through")
    publisher = PlainClient(front.url, front.registry.plain.account)
    publisher.push("public/through", pushed, "latest")
    assert publisher.manifest("public/through", "latest").body == pushed.manifest.data


def test_access_log(open_registry: Registry) -> None:
    """A registry's log tells how often a path was asked for."""
    pushed = image("counted")
    open_registry.push("public/counted", pushed, "latest")
    for _ in range(3):
        assert (
            open_registry.plain.blob("public/counted", pushed.layers[0].digest).body == pushed.layers[0].data
        )
    path = f"/v2/public/counted/blobs/{pushed.layers[0].digest}"
    wait_until(lambda: len(open_registry.accesses("GET", path)) >= 3, "the log tells of three requests")
    assert len(open_registry.accesses("GET", path)) == 3
