"""A store in a real bucket keeps the contract, and distribution serves it."""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from obstore.store import ObjectStore
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind, IContentStore, IDocumentStore, ITagStore
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository, Tag
from dockmirror.store.bucket.bucket import Bucket
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore

from ...answering import now
from ...integration.parts.images import image
from ...integration.parts.programs import require
from ...integration.parts.registry import Registry
from ...integration.parts.seaweed import WEED, SeaweedFS
from ..contract import ContentsContract, DocumentsContract, TagsContract
from ..threads import inline
from .crashing import CrashContract

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 server."""
    require(WEED)
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


def bucket(store: ObjectStore) -> Bucket:
    """A bucket that is used without threads."""
    return Bucket("the bucket", lambda: store, Clock(), inline)


class TestContents(ContentsContract):
    @pytest.fixture
    def contents(self, seaweedfs: SeaweedFS) -> IContentStore:
        return BucketContentStore(bucket(seaweedfs.store()), Clock())


class TestTags(TagsContract):
    @pytest.fixture
    def tags(self, clock: Clock, seaweedfs: SeaweedFS) -> ITagStore:
        return BucketTagStore(bucket(seaweedfs.store()), clock)


class TestDocuments(DocumentsContract):
    @pytest.fixture
    def documents(self, seaweedfs: SeaweedFS) -> IDocumentStore:
        return BucketDocumentStore(bucket(seaweedfs.store()))


class TestCrashes(CrashContract):
    @pytest.fixture
    def new_store(self, seaweedfs: SeaweedFS) -> Callable[[], ObjectStore]:
        return seaweedfs.store


def test_distribution(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """An ordinary registry with its s3 driver on the bucket serves an image by tag and by digest."""
    require("docker-registry")
    prefix, held = uuid.uuid4().hex, image("in a bucket")
    place = Repository("docker.io/library/stored")
    kept = bucket(seaweedfs.store(prefix))
    contents = BucketContentStore(kept, Clock())
    for blob in held.blobs:
        now(contents.add(place, Digest.parse(blob.digest), ContentKind.BLOB, blob.data))
    digest = Digest.parse(held.digest)
    now(contents.add(place, digest, ContentKind.MANIFEST, held.manifest.data))
    now(BucketTagStore(kept, Clock()).put(place, Tag("latest"), digest))
    with Registry(tmp_path, bucket=seaweedfs.distribution(prefix)) as registry:
        for reference in ("latest", held.digest):
            answer = registry.plain.manifest(place.name, reference)
            assert (answer.body, answer.headers["Content-Type"]) == (
                held.manifest.data,
                held.manifest.media_type,
            )
        for blob in held.blobs:
            redirected = registry.plain.blob(place.name, blob.digest)
            assert redirected.status == 307
            with urllib.request.urlopen(redirected.headers["Location"], timeout=10) as answered:  # noqa: S310
                assert answered.read() == blob.data
