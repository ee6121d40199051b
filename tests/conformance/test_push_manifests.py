"""Push: manifests, by tag and by digest."""

from __future__ import annotations

import pytest

from tests.integration.parts.images import artifact, image, index
from tests.integration.parts.media import FAMILIES, OCI, Content, Family

from .asked import Asked, code

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_manifest(registry: Asked, family: Family, by: str) -> None:
    """The answer leads to what was pushed."""
    pushed = image(registry.seed(f"{family.name} {by}"), family)
    for blob in pushed.blobs:
        registry.upload(blob.data)
    put = registry.put(pushed.manifest, "latest" if by == "tag" else pushed.digest)
    assert put.status == 201
    assert put.headers["Docker-Content-Digest"] == pushed.digest
    assert registry.ask("GET", registry.location(put)).body == pushed.manifest.data


def test_artifact(registry: Asked) -> None:
    """A manifest whose configuration is empty."""
    pushed = artifact(registry.seed("artifact"))
    registry.push(pushed, "notes")
    assert registry.ask("GET", "manifests/notes").body == pushed.manifest.data


def test_other_digest(registry: Asked) -> None:
    """A manifest is not pushed by the digest of another."""
    pushed, other = image(registry.seed("one")), image(registry.seed("other"))
    for blob in pushed.blobs:
        registry.upload(blob.data)
    refused = registry.put(pushed.manifest, other.digest)
    assert (refused.status, code(refused)) == (400, "DIGEST_INVALID")
    assert registry.ask("GET", f"manifests/{other.digest}").status == 404


def test_no_json(registry: Asked) -> None:
    """A body that is no manifest is refused."""
    refused = registry.put(Content(OCI.manifest, b'{"schemaVersion": 2'), "broken")
    assert (refused.status, code(refused)) == (400, "MANIFEST_INVALID")
    assert registry.ask("GET", "manifests/broken").status == 404


def test_missing_blob(registry: Asked) -> None:
    """A manifest of blobs that nobody has pushed is refused."""
    refused = registry.put(image(registry.seed("missing")).manifest, "missing")
    assert refused.status in (400, 404)
    assert code(refused) in ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN")
    assert registry.ask("GET", "manifests/missing").status == 404


def test_tag_seen_at_once(registry: Asked) -> None:
    """A tag that was asked for names what was pushed last, whatever it was before."""
    assert registry.ask("GET", "manifests/moving").status == 404
    for number in range(3):
        pushed = image(registry.seed(f"moved {number}"))
        registry.push(pushed, "moving")
        assert registry.ask("GET", "manifests/moving").body == pushed.manifest.data
        assert registry.ask("HEAD", "manifests/moving").headers["Docker-Content-Digest"] == pushed.digest


def test_old_manifest_stays(registry: Asked) -> None:
    """The manifest that a tag named before is still there by its digest."""
    first, second = image(registry.seed("first")), index(registry.seed("second"))
    registry.push(first, "moved")
    registry.push(second, "moved")
    assert registry.ask("GET", f"manifests/{first.digest}").body == first.manifest.data
    assert registry.ask("GET", "manifests/moved").body == second.manifest.data
