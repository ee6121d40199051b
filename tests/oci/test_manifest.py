"""Manifests, indexes and platforms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import ManifestDocument, Platform
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


def described(digest: Digest, **more: Any) -> dict[str, Any]:
    return {"mediaType": "a/b", "digest": str(digest), "size": 1, **more}


def parsed(**fields: Any) -> ManifestDocument | None:
    return ManifestDocument.parse(json.dumps({"schemaVersion": 2, **fields}).encode())


def test_an_image() -> None:
    """An image has a configuration and its layers in order, of which one may occur twice."""
    manifest = parsed(config=described(ONE), layers=[described(TWO), described(TWO)])
    assert manifest is not None
    assert manifest.media_type == OCI_MANIFEST
    assert [layer.digest for layer in manifest.layers] == [TWO, TWO]
    assert [blob.digest for blob in manifest.blobs] == [ONE, TWO]
    assert not manifest.foreign


def test_foreign_layers() -> None:
    """They are in no registry, and left out."""
    manifest = parsed(config=described(ONE), layers=[described(TWO, urls=["https://a.example"])])
    assert manifest is not None
    assert manifest.layers == ()
    assert [each.digest for each in manifest.foreign] == [TWO]


def test_an_index() -> None:
    """An index states the platform of each image."""
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    manifest = parsed(manifests=[described(ONE, platform=platform), described(TWO)])
    assert manifest is not None
    assert manifest.media_type == OCI_INDEX
    assert [child.platform for child in manifest.children] == [Platform("linux", "arm", "v7"), None]


@settings(max_examples=30)
@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_any_document_is_parsed_or_ignored(document: Any) -> None:
    for fields in (
        document,
        {"schemaVersion": 2, "manifests": document},
        {"schemaVersion": 2, "layers": document},
    ):
        ManifestDocument.parse(json.dumps(fields).encode())


def test_a_manifest_with_an_invalid_size_is_ignored() -> None:
    assert parsed(config={**described(ONE), "size": "many"}) is None
    assert parsed(config=described(ONE), layers=[{**described(TWO), "size": float("inf")}]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"config":' * 50_000,
        b'{"schemaVersion":2,"config":{"size":' + b"9" * 10_000 + b"}}",
        b'{"schemaVersion":2,"config":{"digest":"sha256:%b","size":1e999}}' % (b"0" * 64),
        b'{"schemaVersion":2,"manifests":[{"digest":"sha256:%b","platform":[]}]}' % (b"0" * 64),
        b'{"schemaVersion":2,"layers":[{"urls":[]},1]}',
        b"\xff\xfe{\x00",
        b'{"schemaVersion":2,"mediaType":["a"],"config":{}}',
    ],
)
def test_documents_that_are_none(data: bytes) -> None:
    """Nested without end, numbers without end, of other shapes: they refer to nothing."""
    parsed = ManifestDocument.parse(data)
    assert parsed is None or parsed.blobs == ()


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7", "windows/amd64"])
def test_a_platform_is_parsed_as_it_was_written(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/arm v7"])
def test_malformed_platforms_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a platform"):
        Platform.parse(text)


def test_a_platform_without_variant_matches_any() -> None:
    """A platform without a variant matches any variant, and one with a variant only that one."""
    arm, v7, v8 = (Platform.parse(f"linux/arm{variant}") for variant in ("", "/v7", "/v8"))
    assert (arm.matches(v7), v7.matches(v7), v7.matches(v8), v7.matches(arm)) == (True, True, False, False)
    assert not arm.matches(Platform("windows", "arm"))
    assert not Platform("unknown", "unknown").is_real
