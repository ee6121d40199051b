"""Media types, what a client admits, and artifacts that are told by media types and annotations."""

from __future__ import annotations

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
    Artifact,
    accepts,
    accepts_everything,
    parse_accept,
    parse_artifact_tag,
    parse_media_type,
)

SUBJECT = Digest.of(b"subject")


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


def layer(media_type: str, **annotations: str) -> dict[str, Any]:
    return {"mediaType": media_type, "annotations": annotations}


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"layers": [layer("application/vnd.oci.image.layer.v1.tar+gzip")]}, set()),
        ({"layers": [layer("application/vnd.dev.cosign.simplesigning.v1+json")]}, {"signature"}),
        ({"artifactType": "application/vnd.cncf.notary.signature"}, {"signature"}),
        ({"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}, {"signature"}),
        (
            {
                "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "annotations": {"dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1"},
            },
            {"attestation"},
        ),
        ({"layers": [layer("text/spdx+json")]}, {"sbom"}),
        ({"artifactType": "application/vnd.cyclonedx+json"}, {"sbom"}),
        (
            {
                "layers": [
                    layer(
                        "application/vnd.in-toto+json",
                        **{"in-toto.io/predicate-type": "https://spdx.dev/Document"},
                    ),
                    layer(
                        "application/vnd.in-toto+json", **{"in-toto.io/predicate-type": "https://slsa.dev/v1"}
                    ),
                ]
            },
            {"sbom", "attestation"},
        ),
        (
            {"layers": [layer("application/vnd.dsse.envelope.v1+json", predicateType="https://x/custom")]},
            {"attestation"},
        ),
    ],
)
def test_kinds(fields: dict[str, Any], kinds: set[str]) -> None:
    found = Artifact.parse(json.dumps({**fields, "subject": {"digest": str(SUBJECT)}}).encode())
    assert set(found.kinds) == kinds
    assert found.subject == SUBJECT


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"layers": 1}', b'{"subject": {}}', b'{"subject": {"digest": "x"}}']
)
def test_a_malformed_manifest_is_no_artifact(data: bytes) -> None:
    assert Artifact.parse(data) == Artifact(frozenset())


def test_tags_of_artifacts() -> None:
    for end in ("", ".sig", ".att", ".sbom"):
        assert parse_artifact_tag(f"sha256-{SUBJECT.hex}{end}") == SUBJECT
    for other in ("latest", f"sha256-{SUBJECT.hex}.txt", f"sha512-{SUBJECT.hex}", "sha256-ab"):
        assert parse_artifact_tag(other) is None
