"""Signatures, SBOMs and attestations are told by their media types and annotations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.media import Artifact, parse_artifact_tag

SUBJECT = Digest.of(b"subject")


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
