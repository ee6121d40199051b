"""Content management: what is deleted is gone, at once."""

from __future__ import annotations

import json

import pytest

from tests.integration.parts.images import artifact, image
from tests.integration.parts.media import OCI, sha256

from .asked import Asked, code

pytestmark = pytest.mark.integration

no_tags = pytest.mark.lacks("distribution", "2.8 deletes manifests by digest alone")


@no_tags
def test_tag(registry: Asked) -> None:
    """The tag goes, and its manifest stays."""
    pushed = image(registry.seed("tag"))
    registry.push(pushed, "gone", "stays")
    assert registry.ask("GET", "manifests/gone").status == 200
    assert registry.ask("DELETE", "manifests/gone").status == 202
    for method in ("GET", "HEAD"):
        assert registry.ask(method, "manifests/gone").status == 404
    assert registry.ask("GET", "manifests/stays").body == pushed.manifest.data
    assert registry.ask("GET", f"manifests/{pushed.digest}").body == pushed.manifest.data
    assert json.loads(registry.ask("GET", "tags/list").body)["tags"] == ["stays"]


def test_manifest(registry: Asked) -> None:
    """A deleted manifest is gone by its digest and by all of its tags."""
    pushed, other = image(registry.seed("manifest")), image(registry.seed("other"))
    registry.push(pushed, "one", "two")
    registry.push(other, "other")
    for reference in ("one", "two", pushed.digest):
        assert registry.ask("GET", f"manifests/{reference}").status == 200
    assert len(json.loads(registry.ask("GET", "tags/list").body)["tags"]) == 3
    assert registry.ask("DELETE", f"manifests/{pushed.digest}").status == 202
    for reference in ("one", "two", pushed.digest):
        gone = registry.ask("GET", f"manifests/{reference}")
        assert (gone.status, code(gone)) == (404, "MANIFEST_UNKNOWN")
        assert registry.ask("HEAD", f"manifests/{reference}").status == 404
    assert json.loads(registry.ask("GET", "tags/list").body)["tags"] == ["other"]
    assert registry.ask("GET", "manifests/other").body == other.manifest.data


def test_manifest_twice(registry: Asked) -> None:
    """A manifest that is deleted, or never existed, is not found."""
    pushed = image(registry.seed("twice"))
    registry.push(pushed, "latest")
    assert registry.ask("DELETE", f"manifests/{pushed.digest}").status == 202
    again = registry.ask("DELETE", f"manifests/{pushed.digest}")
    assert (again.status, code(again)) == (404, "MANIFEST_UNKNOWN")


def test_manifest_again(registry: Asked) -> None:
    """A deleted manifest can be pushed once more."""
    pushed = image(registry.seed("again"))
    registry.push(pushed, "latest")
    registry.ask("DELETE", f"manifests/{pushed.digest}")
    assert registry.ask("GET", "manifests/latest").status == 404
    registry.push(pushed, "latest")
    assert registry.ask("GET", "manifests/latest").body == pushed.manifest.data


def test_blob(registry: Asked) -> None:
    """A deleted blob is gone, also if it was pulled before."""
    data = registry.bytes("blob")
    digest = registry.upload(data)
    assert registry.ask("GET", f"blobs/{digest}").body == data
    assert registry.ask("DELETE", f"blobs/{digest}").status == 202
    for method in ("GET", "HEAD"):
        assert registry.ask(method, f"blobs/{digest}").status == 404


def test_no_blob(registry: Asked) -> None:
    """A blob that is deleted, or never existed, is not found."""
    digest = registry.upload(registry.bytes("twice"))
    assert registry.ask("DELETE", f"blobs/{digest}").status == 202
    for each in (digest, sha256(registry.bytes("never"))):
        gone = registry.ask("DELETE", f"blobs/{each}")
        assert (gone.status, code(gone)) == (404, "BLOB_UNKNOWN")


@pytest.mark.lacks("distribution", "2.8 has no referrers")
def test_referrer(registry: Asked) -> None:
    """A manifest that is gone refers to nothing."""
    subject = image(registry.seed("subject"), OCI)
    note = artifact(registry.seed("note"), subject)
    registry.push(subject, "latest")
    registry.push(note)
    before = registry.ask("GET", f"referrers/{subject.digest}")
    assert before.status == 200
    assert len(json.loads(before.body)["manifests"]) == 1
    assert registry.ask("DELETE", f"manifests/{note.digest}").status == 202
    assert json.loads(registry.ask("GET", f"referrers/{subject.digest}").body)["manifests"] == []
