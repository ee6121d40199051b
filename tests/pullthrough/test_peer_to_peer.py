"""The mirror behind nodes that share images with each other, as Spegel and k3s's embedded registry do.

A node asks its peers first, and the mirror for what none of them has.  The requests are those of containerd:
a tag by HEAD, manifests and blobs by digest, the rest of a blob that a peer broke off by an open range.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import json

import pytest

from ..house import Answer
from ..shelf import image, index
from .test_chain import ACCEPT, LAYER, Chain

CONFIG = b'{"architecture":"amd64"}'
NAME = "/v2/library/shared"
INDEX = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*"


@pytest.fixture
def chain() -> Chain:
    """Return mirrors of a registry that has an image for one platform; the tests use the last mirror."""
    chain = Chain()
    registry = chain.hub.registry
    manifest = image(CONFIG, LAYER)
    registry.push("library/shared", "amd64", manifest)
    registry.push("library/shared", "latest", index(amd64=manifest))
    for blob in (CONFIG, LAYER):
        registry.add("library/shared", blob)
    return chain


def ask(chain: Chain, method: str, path: str, *headers: str) -> Answer:
    """Return the answer to a node that a peer could not help, which asks with ``ns`` as of any mirror."""
    return chain.mirrors[2].ask(method, f"{NAME}/{path}?ns=docker.io", *headers)


def digests(chain: Chain) -> tuple[str, str, str]:
    """Resolve the tag, and return the digests of the index, the manifest and the layer."""
    tag = ask(chain, "HEAD", "manifests/latest", INDEX)
    named = str(tag["Docker-Content-Digest"])
    children = json.loads(ask(chain, "GET", f"manifests/{named}", INDEX).body)["manifests"]
    child = children[0]["digest"]
    manifest = json.loads(ask(chain, "GET", f"manifests/{child}", ACCEPT).body)
    return named, child, manifest["layers"][0]["digest"]


def test_nothing_is_fetched_twice(chain: Chain) -> None:
    """Nodes of which each asks for the part that its peers did not have share one copy of the registry's."""
    _, manifest, layer = digests(chain)
    config = json.loads(ask(chain, "GET", f"manifests/{manifest}", ACCEPT).body)["config"]["digest"]
    assert ask(chain, "GET", f"blobs/{layer}").body == LAYER
    assert ask(chain, "GET", f"blobs/{config}").body == CONFIG
    fetched = [line for line in chain.mirrors[2].asked() if f"{NAME}/" in line]
    for _ in range(3):
        digests(chain)
        rest = ask(chain, "GET", f"blobs/{layer}", "Range: bytes=100000-")
        assert (rest.status, rest.body) == (206, LAYER[100_000:])
        assert rest["Content-Range"] == f"bytes 100000-{len(LAYER) - 1}/{len(LAYER)}"
    assert chain.mirrors[2].asked() == []
    for part in (f"blobs/{layer}", f"blobs/{config}", f"GET {NAME}/manifests/{manifest}"):
        assert sum(part in line for line in fetched) == 1


def test_a_head_says_everything_about_a_blob_and_a_manifest(chain: Chain) -> None:
    """A node that looks for a peer with a content first asks how large it is."""
    _, manifest, layer = digests(chain)
    ask(chain, "GET", f"blobs/{layer}")
    blob = ask(chain, "HEAD", f"blobs/{layer}")
    assert (blob.status, blob["Content-Length"], blob["Accept-Ranges"]) == (200, str(len(LAYER)), "bytes")
    described = ask(chain, "HEAD", f"manifests/{manifest}", ACCEPT)
    assert described["Docker-Content-Digest"] == manifest
    assert described["Content-Length"]
    assert described["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
