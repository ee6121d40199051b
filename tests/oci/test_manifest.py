"""Manifests, indexes and platforms, and documents that clients may read in different ways."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import (
    ManifestDocument,
    ManifestReferences,
    Platform,
    load_manifest,
    parse_references,
    signed_payload,
)
from dockmirror.oci.media import DOCKER_LIST, DOCKER_MANIFEST, EVERYTHING, OCI_INDEX, OCI_MANIFEST

A, B, C = (Digest.of(bytes([n])) for n in range(3))
KEYS = st.sampled_from(
    [
        "mediaType",
        "schemaVersion",
        "config",
        "layers",
        "manifests",
        "digest",
        "urls",
        "signatures",
        "protected",
    ]
)
LEAVES = st.sampled_from([None, True, 2, "x", str(A), OCI_INDEX, OCI_MANIFEST])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
PLATFORM = {"architecture": "amd64", "os": "linux", "os.version": "1", "variant": "v1"}


def described(digest: Digest, **more: Any) -> dict[str, Any]:
    return {"mediaType": "a/b", "digest": str(digest), "size": 5, **more}


def manifest(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


def parsed(**fields: Any) -> ManifestDocument | None:
    return ManifestDocument.parse(manifest(**fields))


@pytest.mark.parametrize(
    ("body", "references"),
    [
        *(
            (
                manifest(mediaType=kind, config=described(A), layers=[described(each) for each in (B, C, B)]),
                ManifestReferences(kind, blobs=(A, B, C)),
            )
            for kind in (OCI_MANIFEST, DOCKER_MANIFEST)
        ),
        *(
            (
                manifest(mediaType=kind, manifests=[described(A), described(B)]),
                ManifestReferences(kind, manifests=(A, B)),
            )
            for kind in (OCI_INDEX, DOCKER_LIST)
        ),
        (manifest(manifests=[]), ManifestReferences(OCI_INDEX)),
        (manifest(config=described(A)), ManifestReferences(OCI_MANIFEST, blobs=(A,))),
        (
            manifest(config=described(A), layers=[described(B, urls=["https://go.example/l"])]),
            ManifestReferences(OCI_MANIFEST, blobs=(A,)),
        ),
    ],
)
def test_references_are_found(body: bytes, references: ManifestReferences) -> None:
    """Blobs or manifests, each once; OCI documents may omit their type, and foreign layers do not count."""
    assert parse_references(body) == references


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b'"x"', b"{}", b"<html>", b"\xff", b"[" * 50_000),
        *(b'{"schemaVersion":1,"fsLayers":[]}', manifest()),
        manifest(mediaType="x/y", config=described(A)),
        *(manifest(schemaVersion=1, config=described(A)), manifest(schemaVersion="2", manifests=[])),
        *(manifest(config={}), manifest(config={"digest": "sha256:0"}), manifest(manifests=[None])),
        *(manifest(manifests=None), manifest(manifests=["x"]), manifest(manifests=[{"digest": 5}])),
    ],
)
def test_other_documents_have_no_references(body: bytes) -> None:
    assert parse_references(body) is None


def test_an_image() -> None:
    """An image has a configuration and its layers in order, of which one may occur twice."""
    document = parsed(config=described(A), layers=[described(B), described(B)])
    assert document is not None
    assert document.media_type == OCI_MANIFEST
    assert [layer.digest for layer in document.layers] == [B, B]
    assert [blob.digest for blob in document.blobs] == [A, B]
    assert not document.foreign


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "\x1b]0;x\x07", "architecture": "<b>\n\0"}, "??0?x?/?b???"),
        ({"os": "x" * 1000, "architecture": "amd64"}, f"{'x' * 50}/amd64"),
    ],
)
def test_a_platform_is_stated_in_usual_characters(stated: dict[str, str], shown: str) -> None:
    """Its publisher may write anything, which commands and pages show."""
    assert str(Platform.from_fields(stated)) == shown


def test_foreign_layers() -> None:
    """They are in no registry, and left out."""
    document = parsed(config=described(A), layers=[described(B, urls=["https://a.example"])])
    assert document is not None
    assert document.layers == ()
    assert [each.digest for each in document.foreign] == [B]


def test_an_index() -> None:
    """An index states the platform of each image."""
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    document = parsed(manifests=[described(A, platform=platform), described(B)])
    assert document is not None
    assert document.media_type == OCI_INDEX
    assert [child.platform for child in document.children] == [Platform("linux", "arm", "v7"), None]


@settings(max_examples=30)
@given(
    JSON
    | st.recursive(
        st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_document_is_parsed_or_ignored(document: Any) -> None:
    """It is a manifest of a known kind, or nothing is known of it."""
    for fields in (
        document,
        {"schemaVersion": 2, "manifests": document},
        {"schemaVersion": 2, "layers": document},
    ):
        data = json.dumps(fields).encode()
        parts = parse_references(data)
        assert parts is None or parts.media_type in EVERYTHING
        assert (parts is None) <= (ManifestDocument.parse(data) is None)
        signed_payload(data)


def test_a_manifest_with_an_invalid_size_is_ignored() -> None:
    assert parsed(config={**described(A), "size": "many"}) is None
    assert parsed(config=described(A), layers=[{**described(B), "size": float("inf")}]) is None


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


def encoded(data: bytes) -> str:
    """Encode as a JWS does: base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@given(st.binary(max_size=5))
def test_the_signature_of_an_old_manifest_is_cut_out(spaces: bytes) -> None:
    """Without its signatures, a schema 1 manifest matches its digest."""
    payload = b'{"schemaVersion":1' + b" " * len(spaces) + b"\n}"
    protected = {"formatLength": len(payload) - 2, "formatTail": encoded(b"\n}")}
    signatures = json.dumps([{"protected": encoded(json.dumps(protected).encode())}]).encode()
    signed = payload[:-2] + b',"signatures":' + signatures + b"\n}"
    assert signed_payload(signed) == payload


def sign(document: bytes, length: int, tail: bytes) -> bytes:
    """Add a signature of these parts of the document, or of another one, at its end."""
    protected = json.dumps({"formatLength": length, "formatTail": encoded(tail)}).encode()
    return document[:-1] + b',"signatures":[{"protected":"%b"}]}' % encoded(protected).encode()


SCHEMA_1 = b'{"schemaVersion":1,"name":"a","fsLayers":[{"blobSum":"x"}]}'


@pytest.mark.parametrize(
    ("document", "payload"),
    [
        (SCHEMA_1.replace(b"x", b"y"), SCHEMA_1),
        (SCHEMA_1.replace(b"{", b'{"architecture":"arm",', 1), SCHEMA_1),
        (SCHEMA_1.replace(b"{", b'{"name":"b",', 1), SCHEMA_1),
        (b'{"name":"a","schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}', SCHEMA_1),
        (SCHEMA_1.replace(b"1", b"true"), SCHEMA_1),
        (SCHEMA_1, manifest()),
        (manifest(), manifest()),
    ],
    ids=["value", "more", "twice", "order", "type", "another", "version-2"],
)
def test_a_document_does_not_choose_what_its_digest_covers(document: bytes, payload: bytes) -> None:
    """A payload that is not all of it may be that of a signed image; its signatures alone are not covered."""
    signed = sign(document, 0, payload)
    assert signed_payload(signed) == signed
    assert signed_payload(sign(SCHEMA_1, 0, SCHEMA_1)) == SCHEMA_1


@pytest.mark.parametrize(
    "body", [b"", b"{}", manifest(), manifest(signatures=[]), manifest(signatures=[{"protected": "e30"}])]
)
def test_a_manifest_without_a_signature_is_unchanged(body: bytes) -> None:
    assert signed_payload(body) == body


IMAGE = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": described(A),
    "layers": [described(B, urls=[])],
    "subject": described(C),
    "annotations": {"Size": "1", "size": "2"},
}
INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(A, platform=PLATFORM)]}


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


def test_an_index_of_thousands_of_images_is_read() -> None:
    children = [described(A, platform=PLATFORM, annotations={"a": "b", "c": "d"}) for _ in range(2500)]
    document = parsed(manifests=children)
    assert document is not None
    assert len(document.children) == 2500


@pytest.mark.parametrize("fields", [{"layers": [{}] * 20_000}, {"x": [[]] * 20_000}, {"x": [0] * 40_000}])
def test_a_document_of_too_many_values_is_not_read(fields: dict[str, Any]) -> None:
    """Each request for it would take as long as a hundred others."""
    with pytest.raises(ValueError, match="too many values"):
        load_manifest(manifest(**fields))
