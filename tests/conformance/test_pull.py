"""Pull: manifests and blobs, whole, in parts, and as heads."""

from __future__ import annotations

import pytest

from tests.integration.parts.images import image, index
from tests.integration.parts.media import FAMILIES, Family, sha256

from .asked import Asked, code

pytestmark = pytest.mark.integration

NOBODYS = sha256(b"nobody has pushed this")


def test_base(registry: Asked) -> None:
    """``/v2/`` says that this is a registry."""
    assert registry.ask("GET", "/v2/").status == 200


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_manifest(registry: Asked, family: Family) -> None:
    """A manifest has the same bytes and its type by tag and by digest."""
    pushed = image(registry.seed("manifest"), family)
    registry.push(pushed, "latest")
    for reference in ("latest", pushed.digest):
        got = registry.ask("GET", f"manifests/{reference}")
        assert got.status == 200
        assert got.body == pushed.manifest.data
        assert got.headers["Content-Type"] == family.manifest
        assert got.headers["Docker-Content-Digest"] == pushed.digest
        head = registry.ask("HEAD", f"manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(pushed.manifest.data))
        assert head.headers["Docker-Content-Digest"] == pushed.digest


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_index(registry: Asked, family: Family) -> None:
    """An index and each manifest in it."""
    pushed = index(registry.seed("index"), family)
    registry.push(pushed, "latest")
    got = registry.ask("GET", "manifests/latest")
    assert (got.body, got.headers["Content-Type"]) == (pushed.manifest.data, family.index)
    for child in pushed.children:
        assert registry.ask("GET", f"manifests/{child.digest}").body == child.manifest.data


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_manifest(registry: Asked, method: str) -> None:
    """A missing manifest is not found, by tag or by digest."""
    registry.push(image(registry.seed(f"another {method}")), "latest")
    for reference in ("nobodys", NOBODYS):
        got = registry.ask(method, f"manifests/{reference}")
        assert got.status == 404
        assert code(got) == ("MANIFEST_UNKNOWN" if method == "GET" else None)


def test_blob(registry: Asked) -> None:
    """Its bytes and its length."""
    data = registry.bytes("blob")
    digest = registry.upload(data)
    assert registry.ask("GET", f"blobs/{digest}").body == data
    head = registry.ask("HEAD", f"blobs/{digest}")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(data)))


def test_parts_of_blob(registry: Asked) -> None:
    """A range is answered with that part."""
    data = registry.bytes("parts")
    path = f"blobs/{registry.upload(data)}"
    part = registry.ask("GET", path, headers={"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, data[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(data)}"
    rest = registry.ask("GET", path, headers={"Range": "bytes=2000-"})
    assert (rest.status, rest.body) == (206, data[2000:])


@pytest.mark.lacks("distribution", "2.8 announces with 416 the length of the blob, and sends less")
def test_part_behind_the_end(registry: Asked) -> None:
    """A range beyond the end is 416."""
    path = f"blobs/{registry.upload(registry.bytes('behind'))}"
    assert registry.ask("GET", path, headers={"Range": "bytes=5000-6000"}).status == 416


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_blob(registry: Asked, method: str) -> None:
    """A missing blob is not found."""
    registry.upload(registry.bytes(method))
    got = registry.ask(method, f"blobs/{NOBODYS}")
    assert got.status == 404
    assert code(got) == ("BLOB_UNKNOWN" if method == "GET" else None)


def test_blob_of_another_repository(registry: Asked) -> None:
    """A blob is found only in the repository to which it was pushed."""
    registry.upload(registry.bytes("mine"))
    digest = registry.beside("other").upload(registry.bytes("theirs"))
    assert registry.ask("GET", f"blobs/{digest}").status == 404
