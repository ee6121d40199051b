"""Manifests that clients may read in different ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import ManifestDocument
from dockmirror.oci.manifest_json import load_manifest
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST, parse_references

PLATFORM = {"architecture": "amd64", "os": "linux", "os.version": "1", "variant": "v1"}


def content(text: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": "a/b", "digest": str(Digest.of(text.encode())), "size": 5, **more}


IMAGE = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": content("config"),
    "layers": [content("layer", urls=[])],
    "subject": content("subject"),
    "annotations": {"Size": "1", "size": "2"},
}
INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [content("image", platform=PLATFORM)]}


def written(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def is_read(data: bytes) -> bool:
    """The mirror follows the references of the document, and rules judge it by its contents."""
    parts = parse_references(data), ManifestDocument.parse(data)
    assert (parts[0] is None) <= (parts[1] is None)
    return parts[1] is not None


@pytest.mark.parametrize("fields", [IMAGE, INDEX])
def test_a_document_with_known_keys_is_read(fields: dict[str, Any]) -> None:
    """The keys of annotations are free."""
    assert load_manifest(written(fields)) == fields
    assert is_read(written(fields))
    assert is_read(written(fields | {"Unknown": 1, "x-layers": [], "annotations": {"Layers": "x"}}))


def list_objects(fields: Any) -> list[dict[str, Any]]:
    """Return the objects of a document that have known keys, from the outside to the inside."""
    if isinstance(fields, list):
        return [found for each in fields for found in list_objects(each)]
    if not isinstance(fields, dict):
        return []
    inner = (value for key, value in fields.items() if key != "annotations")
    return [fields, *(found for each in inner for found in list_objects(each))]


@given(st.data())
def test_a_document_with_a_known_key_in_another_case_is_not_read(data: st.DataObject) -> None:
    """Wherever the key is, and whether it is there in its own case, too."""
    fields = json.loads(written(data.draw(st.sampled_from([IMAGE, INDEX]))))
    chosen = data.draw(st.sampled_from(list_objects(fields)))
    key = data.draw(st.sampled_from(sorted(chosen)))
    spelling = "".join(data.draw(st.sampled_from([each.lower(), each.upper()])) for each in key)
    if spelling == key:
        spelling = key.upper()
    chosen[spelling] = data.draw(st.sampled_from([chosen[key], None, [], {}]))
    if data.draw(st.booleans()):
        del chosen[key]
    assert not is_read(written(fields))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"layers":', '"layers": [], "layers":'),
        ('"digest":', '"digest": "x", "digest":'),
        ('"size": 5', '"size": 1, "size": 5'),
        ('"layers":', '"layer\u017f": [], "layers":'),
        ('"layers":', '"\\u004cayers": [], "layers":'),
        ('"layers":', '"manifests": [], "layers":'),
        ('"layers":', '"fsLayers": [], "layers":'),
        ('"layers":', '"history": [], "layers":'),
        ('"size": 5', '"size": 5.0'),
        ('"size": 5', '"size": 1e1'),
        ('"size": 5', '"size": "5"'),
        ('"size": 5', '"size": true'),
        ('"size": 5', '"size": NaN'),
        ('"size": 5', '"size": Infinity'),
        ('"size": 5', '"size": 9223372036854775808'),
        ('"size": 5', f'"size": {"9" * 5000}'),
        ('"a/b"', '"a/b\\ud800"'),
        ('"Size": "1"', '"x": -Infinity'),
    ],
)
def test_other_documents_that_may_be_read_in_different_ways(old: str, new: str) -> None:
    """Keys that are there twice, two kinds at once, and numbers and texts that not all programs can read."""
    text = json.dumps(IMAGE)
    assert old in text
    assert not is_read(text.replace(old, new).encode())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_document_in_another_encoding_is_not_read(encoding: str) -> None:
    assert not is_read(json.dumps(IMAGE).encode(encoding))


@pytest.mark.parametrize("data", [b"[]", b"null", b"{} {}", b'{"a": "\xff"}', b"[" * 100_000])
def test_a_document_that_is_no_object(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_manifest(data)
