"""Media types: what a manifest refers to, and what a client admits."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EVERYTHING,
    OCI_INDEX,
    OCI_MANIFEST,
    ManifestReferences,
    accepts,
    accepts_everything,
    parse_accept,
    parse_media_type,
    parse_references,
    signed_payload,
)

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


def test_the_kinds_are_those_of_the_specifications() -> None:
    """OCI's two, and the two that Docker had before."""
    assert EVERYTHING == (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    )
    assert EVERYTHING[:4] == (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)


def described(*digests: Digest) -> list[dict[str, Any]]:
    return [{"mediaType": "a/b", "digest": str(digest), "size": 1} for digest in digests]


def manifest(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


@pytest.mark.parametrize(
    ("body", "references"),
    [
        *(
            (
                manifest(mediaType=kind, config=described(A)[0], layers=described(B, C, B)),
                ManifestReferences(kind, blobs=(A, B, C)),
            )
            for kind in (OCI_MANIFEST, DOCKER_MANIFEST)
        ),
        *(
            (manifest(mediaType=kind, manifests=described(A, B)), ManifestReferences(kind, manifests=(A, B)))
            for kind in (OCI_INDEX, DOCKER_LIST)
        ),
        (manifest(manifests=[]), ManifestReferences(OCI_INDEX)),
        (manifest(config=described(A)[0]), ManifestReferences(OCI_MANIFEST, blobs=(A,))),
        (
            manifest(config=described(A)[0], layers=[{**described(B)[0], "urls": ["https://go.example/l"]}]),
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
        manifest(mediaType="x/y", config=described(A)[0]),
        *(manifest(schemaVersion=1, config=described(A)[0]), manifest(schemaVersion="2", manifests=[])),
        *(manifest(config={}), manifest(config={"digest": "sha256:0"}), manifest(manifests=[None])),
        *(manifest(manifests=None), manifest(manifests=["x"]), manifest(manifests=[{"digest": 5}])),
    ],
)
def test_other_documents_have_no_references(body: bytes) -> None:
    assert parse_references(body) is None


@given(JSON)
def test_no_document_is_too_odd(document: object) -> None:
    """It is a manifest of a known kind, or nothing is known of it."""
    parts = parse_references(json.dumps(document).encode())
    assert parts is None or parts.media_type in EVERYTHING
    signed_payload(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("accept", "admitted"),
    [
        ((), True),
        (("",), True),
        ((OCI_INDEX,), True),
        ((DOCKER_LIST, f"{OCI_MANIFEST}, {OCI_INDEX}"), True),
        ((f"text/html, {OCI_INDEX.upper()} ;q=0.5",), True),
        (("*/*",), True),
        (("application/*",), True),
        ((OCI_MANIFEST, DOCKER_LIST), False),
        ((f"{OCI_INDEX};q=0",), False),
        ((f"{OCI_INDEX}; Q=0.000",), False),
        ((f"{OCI_INDEX};q=0.001",), True),
        (("text/*",), False),
    ],
)
def test_a_client_says_what_it_takes(accept: tuple[str, ...], admitted: bool) -> None:
    """``Accept`` may have one line or several; none accepts everything."""
    assert accepts(accept, OCI_INDEX) is admitted


def test_what_everybody_is_served_is_asked_for_in_full() -> None:
    """All four kinds, and whatever else there is."""
    for media_type in (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "x/y", None):
        assert accepts(EVERYTHING, media_type)
    assert accepts_everything(EVERYTHING)
    assert accepts_everything([])
    assert not accepts_everything([OCI_INDEX, DOCKER_MANIFEST])


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


@pytest.mark.parametrize(
    "body", [b"", b"{}", manifest(), manifest(signatures=[]), manifest(signatures=[{"protected": "e30"}])]
)
def test_a_manifest_without_a_signature_is_unchanged(body: bytes) -> None:
    assert signed_payload(body) == body


@pytest.mark.parametrize(
    "line",
    [
        "a/b", "*/*", "application/vnd.oci.image.index.v1+json, */*;q=0.1", 'a/b; c="d e, \\"f"',
        "a/b;,c/d", "a/b;q=0", "a/b ; c=d ;; e=f , c/d; ; q=1",
        ", ".join(EVERYTHING),
    ],
)  # fmt: skip
def test_media_ranges_are_passed_on(line: str) -> None:
    """RFC 9110, 12.5.1."""
    assert parse_accept([line]) == (line,)


@pytest.mark.parametrize(
    "line", ["", ",", "nonsense", "a/b,", "a/\ufffd", 'a/b;c="', "a/b\0", "a/b c/d", "/", "a/b\n"]
)
def test_other_accept_lines_are_ignored(line: str) -> None:
    assert parse_accept(["a/b", line, "c/d"]) == ("a/b", "c/d")


@pytest.mark.parametrize("gap", ["; ", " ;", " ; ", "\t;\t", ", ", "  "])
def test_a_long_malformed_line_is_rejected_quickly(gap: str) -> None:
    assert parse_accept([f"a/b{gap * 200}\0"]) == ()
    assert parse_media_type(f"a/b{gap * 200}\0") is None


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("application/octet-stream", True),
        ('a/b; c="d e"', True),
        ("a/b, c/d", False),
        ("a/\ufffd", False),
        ("", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_content_type(text: str | None, passed: bool) -> None:
    """One media type with its parameters (RFC 9110, 8.3), or nothing."""
    assert parse_media_type(text) == (text if passed else None)


@given(st.lists(st.text()))
def test_accepted_lines_are_printable(sent: list[str]) -> None:
    for line in parse_accept(sent):
        assert line.isascii()
        assert line.replace("\t", " ").isprintable()
