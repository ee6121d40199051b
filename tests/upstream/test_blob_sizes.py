"""How long blobs are, as the manifests say that have passed."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository
from dockmirror.upstream.blob_sizes import DEFAULT_LIMIT, BlobSizes

CONFIG, LAYER = Digest.of(b"config"), Digest.of(b"layer")
HERE, THERE = Repository("here"), Repository("there")
TYPE = "application/vnd.oci.image.manifest.v1+json"


def manifest(size: object) -> bytes:
    """With a configuration of 6 bytes, and a layer of that size."""
    blobs = [
        {"mediaType": "a/b", "digest": str(digest), "size": told}
        for digest, told in ((CONFIG, 6), (LAYER, size))
    ]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": TYPE, "config": blobs[0], "layers": blobs[1:]}
    ).encode()


def test_a_manifest_says_it() -> None:
    """For its own repository."""
    sizes = BlobSizes(Clock())
    sizes.learn(HERE, manifest(5))
    assert (sizes.most(HERE, CONFIG), sizes.most(HERE, LAYER)) == (6, 5)
    assert sizes.most(THERE, LAYER) == DEFAULT_LIMIT


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", manifest(-1), manifest("many")])
def test_what_says_nothing(data: bytes) -> None:
    """Leaves the limit that there is for all."""
    sizes = BlobSizes(Clock())
    sizes.learn(HERE, data)
    assert sizes.most(HERE, LAYER) == DEFAULT_LIMIT


def test_it_is_forgotten() -> None:
    """After an hour."""
    clock = Clock()
    sizes = BlobSizes(clock)
    sizes.learn(HERE, manifest(5))
    clock.advance(3600)
    assert sizes.most(HERE, LAYER) == DEFAULT_LIMIT
