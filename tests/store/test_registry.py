"""An ordinary registry serves the store."""

from __future__ import annotations

import json
import urllib.request
import uuid
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketTagStore
from dockmirror.store.eviction.store_budget import Budget

from ..answering import now
from ..integration.parts import images
from ..integration.parts.images import Image
from ..integration.parts.media import DOCKER, OCI
from ..integration.parts.programs import require
from ..integration.parts.registry import Registry
from ..integration.parts.seaweed import SeaweedFS
from .bucket.machines import bucket
from .stocked import HOUR, Stocked

pytestmark = pytest.mark.integration

REPOSITORIES = ["docker.io/library/busybox", "registry.example.com_5000/blobs", "docker.io/library"]
IMAGES = {
    "docker": images.image("docker", DOCKER),
    "oci": images.image("oci", OCI),
    "list": images.index("list", DOCKER),
    "index": images.index("index", OCI),
    "artifact": images.artifact("artifact"),
}


def store_image(
    store: Stocked, repository: Repository, image: Image, tag: str | None, age: float = HOUR
) -> None:
    """Store an image like a mirror."""
    for child in image.children:
        store_image(store, repository, child, None, age)
    for blob in image.blobs:
        store.put(blob.data, age, repository, ContentKind.BLOB)
    digest = store.put(image.manifest.data, age, repository, ContentKind.MANIFEST)
    if tag is not None:
        now(store.tags.put(repository, Tag(tag), digest))


def pull(registry: Registry, repository: str, pulled: Image, *references: str) -> None:
    """Pull an image with plain HTTP and compare every byte."""
    for reference in (*references, pulled.digest):
        response = registry.plain.manifest(repository, reference)
        assert (response.status, response.body) == (200, pulled.manifest.data)
        assert response.headers["Content-Type"] == pulled.manifest.media_type
        assert response.headers["Docker-Content-Digest"] == pulled.digest
    for blob in pulled.blobs:
        response = registry.plain.blob(repository, blob.digest)
        assert (response.status, response.body) == (200, blob.data)
    for child in pulled.children:
        pull(registry, repository, child)


@pytest.mark.parametrize("name", REPOSITORIES)
def test_served(tmp_path: Path, name: str) -> None:
    """Images, indexes and artifacts are served by tag and by digest with their media types."""
    require("docker-registry")
    registry = Registry(tmp_path)
    store = Stocked(registry.storage)
    for tag, each in IMAGES.items():
        store_image(store, Repository(name), each, tag)
    with registry:
        for tag, each in IMAGES.items():
            pull(registry, name, each, tag)
        assert json.loads(registry.plain.request("GET", "/v2/_catalog").body) == {"repositories": [name]}
        listed = json.loads(registry.plain.request("GET", f"/v2/{name}/tags/list").body)
        assert (listed["name"], sorted(listed["tags"])) == (name, sorted(IMAGES))


def test_nested_repository(tmp_path: Path) -> None:
    """A repository that lies in another has its own contents only, with digests of any algorithm."""
    require("docker-registry")
    registry = Registry(tmp_path)
    store = Stocked(registry.storage)
    outer, inner = Repository("docker.io/a"), Repository("docker.io/a/b")
    store_image(store, outer, IMAGES["docker"], "latest")
    store_image(store, inner, IMAGES["oci"], "latest")
    digest = Digest.of(b"a blob", "sha512")
    now(store.contents.add(outer, digest, ContentKind.BLOB, b"a blob"))
    with registry:
        pull(registry, outer.name, IMAGES["docker"], "latest")
        pull(registry, inner.name, IMAGES["oci"], "latest")
        assert registry.plain.manifest(outer.name, IMAGES["oci"].digest).status == 404
        for blob in IMAGES["oci"].blobs:
            assert registry.plain.blob(outer.name, blob.digest).status == 404
        assert registry.plain.blob(outer.name, str(digest)).body == b"a blob"


def test_evicted(tmp_path: Path) -> None:
    """After an eviction the remaining images are complete and the others are gone."""
    require("docker-registry")
    registry = Registry(tmp_path)
    store = Stocked(registry.storage)
    here, elsewhere = Repository("docker.io/a"), Repository("docker.io/b")
    store_image(store, here, IMAGES["index"], "kept", age=0)
    store_image(store, here, IMAGES["docker"], "gone")
    store_image(store, elsewhere, IMAGES["oci"], "gone")
    store.evict(Budget(0))
    with registry:
        pull(registry, "docker.io/a", IMAGES["index"], "kept")
        listed = json.loads(registry.plain.request("GET", "/v2/docker.io/a/tags/list").body)
        assert listed["tags"] == ["kept"]
        for repository, gone in (("docker.io/a", IMAGES["docker"]), ("docker.io/b", IMAGES["oci"])):
            assert registry.plain.manifest(repository, "gone").status == 404
            assert registry.plain.manifest(repository, gone.digest).status == 404
            assert registry.plain.blob(repository, gone.layers[0].digest).status == 404
        catalog = json.loads(registry.plain.request("GET", "/v2/_catalog").body)
        assert catalog == {"repositories": ["docker.io/a"]}


def test_bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """An ordinary registry with its s3 driver on the bucket serves an image by tag and by digest."""
    require("docker-registry")
    prefix, image = uuid.uuid4().hex, images.image("in a bucket")
    place = Repository("docker.io/library/stored")
    objects = bucket(Clock(), seaweedfs.store(prefix))
    contents = BucketContentStore(objects, Clock())
    for blob in image.blobs:
        now(contents.add(place, Digest.parse(blob.digest), ContentKind.BLOB, blob.data))
    digest = Digest.parse(image.digest)
    now(contents.add(place, digest, ContentKind.MANIFEST, image.manifest.data))
    now(BucketTagStore(objects, Clock()).put(place, Tag("latest"), digest))
    with Registry(tmp_path, bucket=seaweedfs.distribution(prefix)) as registry:
        for reference in ("latest", image.digest):
            answer = registry.plain.manifest(place.name, reference)
            assert answer.body == image.manifest.data
            assert answer.headers["Content-Type"] == image.manifest.media_type
        for blob in image.blobs:
            redirected = registry.plain.blob(place.name, blob.digest)
            assert redirected.status == 307
            with urllib.request.urlopen(redirected.headers["Location"], timeout=10) as answered:  # noqa: S310
                assert answered.read() == blob.data
