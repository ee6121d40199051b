"""An ordinary registry serves the store in a bucket."""

from __future__ import annotations

import urllib.request
import uuid
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository, Tag
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketTagStore

from ...answering import now
from ...integration.parts.images import image
from ...integration.parts.programs import require
from ...integration.parts.registry import Registry
from ...integration.parts.seaweed import SeaweedFS
from .machines import bucket

pytestmark = pytest.mark.integration


def test_distribution(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """An ordinary registry with its s3 driver on the bucket serves an image by tag and by digest."""
    require("docker-registry")
    prefix, held = uuid.uuid4().hex, image("in a bucket")
    place = Repository("docker.io/library/stored")
    kept = bucket(Clock(), seaweedfs.store(prefix))
    contents = BucketContentStore(kept, Clock())
    for blob in held.blobs:
        now(contents.add(place, Digest.parse(blob.digest), ContentKind.BLOB, blob.data))
    digest = Digest.parse(held.digest)
    now(contents.add(place, digest, ContentKind.MANIFEST, held.manifest.data))
    now(BucketTagStore(kept, Clock()).put(place, Tag("latest"), digest))
    with Registry(tmp_path, bucket=seaweedfs.distribution(prefix)) as registry:
        for reference in ("latest", held.digest):
            answer = registry.plain.manifest(place.name, reference)
            assert answer.body == held.manifest.data
            assert answer.headers["Content-Type"] == held.manifest.media_type
        for blob in held.blobs:
            redirected = registry.plain.blob(place.name, blob.digest)
            assert redirected.status == 307
            with urllib.request.urlopen(redirected.headers["Location"], timeout=10) as answered:  # noqa: S310
                assert answered.read() == blob.data
