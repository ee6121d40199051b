"""A registry that redirects everything, as registry.k8s.io does, beside one that has private images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from .conftest import MakeChain
from .parts.accounts import ALICE
from .parts.chain import Chain
from .parts.images import Image, image
from .parts.kept import holds
from .parts.machine import Machine
from .parts.process import wait_until
from .parts.redirector import Redirector
from .pulls import skopeo_pulls

pytestmark = pytest.mark.integration

PRIVATE, PUBLIC = "private/kept", "public/beside"
HOST, REGISTRY = "k8s", "registry.k8s.io"
SAMPLE = 64


@dataclass(frozen=True)
class Redirected:
    """A mirror of both, which holds a private image and a public one."""

    chain: Chain
    redirector: Redirector
    private: Image
    public: Image

    def held(self) -> list[str]:
        """The contents that any repository of the redirecting registry is said to have."""
        repositories = self.chain.mirror.cache / "docker/registry/v2/repositories"
        return [str(each) for each in repositories.glob(f"{REGISTRY}*/**/link")]


@pytest.fixture(scope="module")
def redirected(chains: MakeChain) -> Iterator[Redirected]:
    """Alice has pulled the private image, and somebody the public one; the target is the same registry."""
    with Redirector() as redirector, chains(others={HOST: {"url": redirector.url}}) as chain:
        redirector.target = chain.front.url
        private, public = image("alice's"), image("everybody's")
        for name, pushed, account in ((PRIVATE, private, ALICE), (PUBLIC, public, None)):
            chain.registry.push(name, pushed, "latest")
            client = chain.mirror.client("docker", account)
            assert client.manifest(name, "latest").status == 200
            for blob in pushed.blobs:
                assert client.blob(name, blob.digest).body == blob.data
            held = partial(holds, chain.mirror.cache, f"docker.io/{name}", pushed)
            wait_until(held, f"{name} is held")
        yield Redirected(chain, redirector, private, public)


@pytest.mark.parametrize("repository", [PRIVATE, PUBLIC, "any/name"])
def test_a_redirect_lets_nobody_have_what_is_held(redirected: Redirected, repository: str) -> None:
    """A client that knows the digests of a private image gets no byte of it by any request."""
    chain = redirected.chain
    before = redirected.held()
    for host, prefix in ((HOST, ""), ("", f"{REGISTRY}/")):
        client = chain.mirror.client(host)
        for content in (redirected.private.manifest, *redirected.private.blobs):
            kind = "manifests" if content == redirected.private.manifest else "blobs"
            path = f"/v2/{prefix}{repository}/{kind}/{content.digest}"
            ways: list[dict[str, str]] = [
                {},
                {"Range": "bytes=0-9"},
                {"If-None-Match": f'"{content.digest}"'},
            ]
            answers = [client.request("GET", path, headers=headers) for headers in ways]
            for answer in [*answers, client.request("HEAD", path)]:
                assert answer.status in (401, 403, 404, 502), answer
                assert content.data[:50] not in answer.body
    assert redirected.held() == before


def test_what_is_held_for_another_registry_is_compared(redirected: Redirected) -> None:
    """64 bytes of a blob are fetched, and a manifest as a whole; the rest is served from the cache."""
    chain, public = redirected.chain, redirected.public
    fetched = len(chain.blobs.requests)
    client = chain.mirror.client(HOST)
    assert client.request("GET", f"/v2/{PUBLIC}/manifests/{public.digest}").body == public.manifest.data
    for blob in public.blobs:
        assert client.blob(PUBLIC, blob.digest).body == blob.data
    for request in chain.blobs.requests[fetched:]:
        assert request.range is not None
        first, _, last = request.range.removeprefix("bytes=").partition("-")
        assert int(last) - int(first) + 1 == SAMPLE
    asked = len(redirected.redirector.requests)
    assert client.blob(PUBLIC, public.layers[0].digest).body == public.layers[0].data
    assert len(redirected.redirector.requests) == asked


def test_new_image(redirected: Redirected, skopeo_machine: Machine) -> None:
    """A client pulls a new image, and its tag again from the cache."""
    chain, new = redirected.chain, image("new")
    chain.registry.push("public/new", new, "latest")
    reference = f"{chain.mirror.host(HOST)}/public/new:latest"
    for _ in range(2):
        skopeo_pulls(skopeo_machine, reference, new)
    methods = [method for method, path in redirected.redirector.requests if "public/new" in path]
    assert methods.count("HEAD") <= 1
