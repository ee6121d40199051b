"""Clients pull through the mirror what they would have got from the registry, byte for byte."""

from __future__ import annotations

import json

import pytest

from .parts.accounts import ALICE, Account
from .parts.clients import curl, skopeo
from .parts.images import artifact, image, index, referrers
from .parts.machine import Machine
from .parts.media import FAMILIES, Family
from .parts.mirror import Mirror
from .parts.registry import Registry
from .parts.tokens import Tokens
from .pulls import podman_pulls, skopeo_pulls, skopeo_reads, succeeded

pytestmark = pytest.mark.integration

#: The upstreams, with the registry behind each, and the account without which it gives nothing.
UPSTREAMS: dict[str, tuple[str, Account | None]] = {
    "docker": ("token_registry", None),
    "direct": ("token_registry", None),
    "basic": ("basic_registry", ALICE),
    "open": ("open_registry", None),
    "tls": ("tls_registry", None),
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_skopeo_from_each_upstream(
    mirror: Mirror, upstream: str, request: pytest.FixtureRequest, skopeo_machine: Machine
) -> None:
    """However a registry guards its images, skopeo copies them from its virtual host."""
    fixture, account = UPSTREAMS[upstream]
    pushed = image(f"from {upstream}")
    request.getfixturevalue(fixture).push(f"public/{upstream}", pushed, "latest")
    skopeo_pulls(skopeo_machine, f"{mirror.host(upstream)}/public/{upstream}:latest", pushed, account)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_skopeo_by_tag_and_digest(
    mirror: Mirror, token_registry: Registry, family: Family, skopeo_machine: Machine
) -> None:
    """An image and an index of either family are the same by tag and by digest."""
    name = f"{mirror.host('docker')}/public/{family.name}"
    for pushed, tag in ((image("by tag", family), "single"), (index("by tag", family), "multi")):
        token_registry.push(f"public/{family.name}", pushed, tag)
        skopeo_pulls(skopeo_machine, f"{name}:{tag}", pushed)
        skopeo_pulls(skopeo_machine, f"{name}@{pushed.digest}", pushed)
        skopeo_reads(skopeo_machine, f"{name}:{tag}", pushed)


def test_short_name(
    mirror: Mirror, token_registry: Registry, tokens: Tokens, skopeo_machine: Machine
) -> None:
    """A name of one component is an official image of Docker Hub; the token is asked for by its full name."""
    pushed = image("short")
    token_registry.push("library/short", pushed, "latest")
    tokens.requests.clear()
    skopeo_pulls(skopeo_machine, f"{mirror.host('docker')}/short:latest", pushed)
    assert {scope for each in tokens.requests for scope in each.scopes} == {"repository:library/short:pull"}


def test_artifact_and_referrers(mirror: Mirror, token_registry: Registry, skopeo_machine: Machine) -> None:
    """A referrer is found as the upstream lists it: here under a tag, since it has no referrers API."""
    subject = image("mirrored subject")
    referrer = artifact("mirrored referrer", subject)
    tag, listing = referrers(subject, referrer)
    token_registry.push("public/subject", subject, "latest")
    token_registry.push("public/subject", listing, tag)
    name = f"{mirror.host('docker')}/public/subject"
    api = mirror.client("docker").request("GET", f"/v2/public/subject/referrers/{subject.digest}")
    assert api.status == 404
    skopeo_reads(skopeo_machine, f"{name}:{tag}", listing)
    skopeo_pulls(skopeo_machine, f"{name}@{referrer.digest}", referrer)


def test_tags(mirror: Mirror, token_registry: Registry, skopeo_machine: Machine) -> None:
    """The tags of a short name are those of the official image."""
    token_registry.push("library/tags", image("tags"), "a", "b")
    name = f"docker://{mirror.host('docker')}/tags"
    listed = json.loads(succeeded(skopeo(skopeo_machine, "list-tags", "--tls-verify=false", name)))
    assert sorted(listed["Tags"]) == ["a", "b"]


@pytest.mark.parametrize("location", ["docker.", "", "/docker.io"])
def test_podman_mirror(
    mirror: Mirror, token_registry: Registry, podman_machine: Machine, location: str
) -> None:
    """podman pulls by Docker Hub's name from a virtual host, the own host, or a path there."""
    host = f"{mirror.host('docker')}" if location == "docker." else f"{mirror.host()}{location}"
    (podman_machine.etc / "containers/registries.conf").write_text(
        'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "docker.io"\n'
        f'[[registry.mirror]]\nlocation = "{host}"\ninsecure = true\n'
    )
    pushed = image(f"podman mirror {location}")
    token_registry.push("library/podmanned", pushed, "latest")
    podman_pulls(podman_machine, "docker.io/library/podmanned@" + pushed.digest, pushed)


def test_curl(mirror: Mirror, token_registry: Registry, skopeo_machine: Machine) -> None:
    """curl, which knows no tokens, gets a public manifest and a part of a blob from the own host."""
    pushed = image("curl")
    token_registry.push("library/curled", pushed, "latest")
    base = f"http://{mirror.host()}/v2/docker.io/library/curled"
    manifest = ["-H", f"Accept: {pushed.manifest.media_type}", f"{base}/manifests/latest"]
    head = succeeded(curl(skopeo_machine, "--head", *manifest)).lower().splitlines()
    assert f"docker-content-digest: {pushed.digest}" in head
    assert f"content-length: {len(pushed.manifest.data)}" in head
    assert f"content-type: {pushed.manifest.media_type}" in head
    assert succeeded(curl(skopeo_machine, *manifest)).encode() == pushed.manifest.data
    layer, part = pushed.layers[0], skopeo_machine.home / "part"
    for _ in ("from upstream", "from the store"):
        options = ["-r", "100-299", "-o", str(part), "-w", "%{http_code}"]
        assert succeeded(curl(skopeo_machine, *options, f"{base}/blobs/{layer.digest}")) == "206"
        assert part.read_bytes() == layer.data[100:300]
