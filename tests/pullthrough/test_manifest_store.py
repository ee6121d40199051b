"""The manifests that are held, and whether they are of use without the upstream."""

from __future__ import annotations

import json

from dockmirror.interfaces import ContentKind, IStoredContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import OCI_INDEX
from dockmirror.oci.reference import Repository
from dockmirror.pullthrough.manifest_store import ManifestStore

from ..answering import now
from ..store.memory import MemoryContents

HERE = Repository("docker.io/library/busybox")


class Counted(MemoryContents):
    """Counts how often a content is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opens = 0

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``."""
        self.opens += 1
        return await super().open(repository, digest, kind)


def index(name: str, *manifests: Digest) -> bytes:
    """An index of these, unlike any other."""
    referred = [{"digest": str(each), "size": 1, "mediaType": OCI_INDEX} for each in manifests]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referred, "annotations": {"name": name}}
    ).encode()


def test_indexes_of_indexes() -> None:
    """Are looked at once each, however many ways lead to them."""
    contents = Counted()
    below = (Digest.of(b"not"), Digest.of(b"there"))
    for _ in range(12):
        both = [index(name, *below) for name in ("one", "other")]
        for data in both:
            now(contents.add(HERE, Digest.of(data), ContentKind.MANIFEST, data))
        below = (Digest.of(both[0]), Digest.of(both[1]))
    kept = ManifestStore(contents)
    held = now(kept.get(HERE, below[0]))
    assert held is not None
    contents.opens = 0
    assert not now(kept.is_complete(HERE, held))
    assert contents.opens == 24
