"""Artifacts that belong to an image: signatures, SBOMs and attestations, told by their media types.

Sources: OCI image specification, "Guidelines for Artifact Usage"; cosign, "SIGNATURE_SPEC" and "SBOM_SPEC";
Notary Project, "OCI Signatures"; BuildKit, "Image Attestation Storage"; in-toto, "ITE-6"; Sigstore, "Bundle".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from .digest import Digest
from .errors import DigestInvalid
from .media import OCI_MANIFEST

Kind = Literal["signature", "sbom", "attestation"]
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("sbom", re.compile(r"spdx|cyclonedx|syft", re.IGNORECASE)),
    ("attestation", re.compile(r"in-toto|dsse|slsa|predicate", re.IGNORECASE)),
    ("signature", re.compile(r"cosign.simplesigning|cncf.notary.signature|sigstore.bundle")),
)
_PREDICATES = ("in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType")
_TAG_SUFFIXES = (".sig", ".att", ".sbom")
_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64}(?:[0-9a-f]{64})?)(\.(?:sig|att|sbom))?")


@frozen
class Artifact:
    """The role of a manifest beside an image.

    :ivar subject: the manifest that it belongs to, if it states one.
    """

    kinds: frozenset[Kind]
    subject: Digest | None = None

    @classmethod
    def parse(cls, manifest: bytes) -> Artifact:
        """Parse a manifest; an image is of no kind."""
        try:
            fields = json.loads(manifest)
            subject = fields.get("subject")
            kinds = {kind for text in _descriptions(fields) if (kind := _kind_of(text))}
            return cls(frozenset(kinds), Digest.parse(subject["digest"]) if subject else None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
            return cls(frozenset())


@frozen
class Referrer:
    """A manifest that states a subject, as lists of referrers describe it.

    Source: OCI distribution specification, "Listing Referrers".
    """

    subject: Digest
    digest: Digest
    media_type: str
    size: int
    artifact_type: str
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, digest: Digest, manifest: bytes) -> Referrer | None:
        """Parse a manifest; None if it states no subject."""
        try:
            fields = json.loads(manifest)
            annotations = fields.get("annotations") or {}
            return cls(
                Digest.parse(fields["subject"]["digest"]),
                digest,
                str(fields.get("mediaType") or OCI_MANIFEST),
                len(manifest),
                str(fields.get("artifactType") or (fields.get("config") or {}).get("mediaType") or ""),
                {str(key): str(value) for key, value in annotations.items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
            return None

    def descriptor(self) -> dict[str, Any]:
        """Return the descriptor as JSON has it."""
        fields = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
            "artifactType": self.artifact_type,
            "annotations": dict(self.annotations),
        }
        return {key: value for key, value in fields.items() if value not in ("", {})}


def artifact_tags(subject: Digest) -> tuple[str, ...]:
    """Return the tags by which cosign finds the signatures, attestations and SBOMs of a manifest."""
    return tuple(f"{subject.algorithm}-{subject.hex}{suffix}" for suffix in _TAG_SUFFIXES)


def parse_artifact_tag(tag: str) -> Digest | None:
    """Return the subject of a tag such as ``sha256-….sig``, by which clients find artifacts, or None."""
    found = _TAG.fullmatch(tag)
    try:
        return Digest.parse(f"{found[1]}:{found[2]}") if found else None
    except DigestInvalid:
        return None


def _descriptions(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield a text for each part: what its annotations say of it, or else its media type."""
    annotations = fields.get("annotations") or {}
    yield _predicate(annotations) or str(fields.get("artifactType") or "")
    for layer in fields.get("layers") or ():
        yield _predicate(layer.get("annotations") or {}) or str(layer.get("mediaType") or "")


def _predicate(annotations: Mapping[str, Any]) -> str:
    value = next((str(annotations[key]) for key in _PREDICATES if annotations.get(key)), "")
    return f"predicate {value}" if value else ""


def _kind_of(text: str) -> Kind | None:
    return next((kind for kind, pattern in _KINDS if pattern.search(text)), None)
