"""Media types of blobs, manifests and artifacts, and ``Accept``.

Artifacts that belong to an image, which are signatures, SBOMs and attestations, are told by their media
types.

Sources: RFC 9110, 12.5.1; of quality values only zero is respected.  OCI image specification, "Guidelines for
Artifact Usage"; cosign, "SIGNATURE_SPEC" and "SBOM_SPEC"; Notary Project, "OCI Signatures"; BuildKit, "Image
Attestation Storage"; in-toto, "ITE-6"; Sigstore, "Bundle".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from attrs import frozen

from .digest import Digest
from .errors import DigestInvalid

BLOB_TYPE = "application/octet-stream"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
EVERYTHING = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*")
"""The ``Accept`` for a document that serves all clients: a narrow list would get another document."""
IMAGE_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
"""Media types of the configuration of runnable images; artifacts have others."""
FOREIGN_LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
"""Media types of layers that may be in no registry."""
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
# A blank can be read in one way only: else what is no list costs twice as much for each blank in it.
_TYPE = rf"{_WORD}/{_WORD}(?:[ \t]*;(?:[ \t]*{_WORD}=(?:{_WORD}|{_QUOTED}))?)*"
_RANGES = re.compile(rf"{_TYPE}(?:[ \t]*,[ \t]*{_TYPE})*")
Kind = Literal["signature", "sbom", "attestation"]
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("sbom", re.compile(r"spdx|cyclonedx|syft", re.IGNORECASE)),
    ("attestation", re.compile(r"in-toto|dsse|slsa|predicate", re.IGNORECASE)),
    ("signature", re.compile(r"cosign.simplesigning|cncf.notary.signature|sigstore.bundle")),
)
_PREDICATES = ("in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType")
_ARTIFACT_TAG_SUFFIXES = (".sig", ".att", ".sbom")
_ARTIFACT_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64}(?:[0-9a-f]{64})?)(\.(?:sig|att|sbom))?")


def parse_media_type(text: str | None) -> str | None:
    """Return a ``Content-Type`` that may be passed on, or None: then the document states its type."""
    return text if text is not None and re.fullmatch(_TYPE, text) else None


def parse_accept(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the ``Accept`` lines that may be passed on; malformed ones are dropped."""
    return tuple(line for line in lines if _RANGES.fullmatch(line))


def accepts(accept: Iterable[str], media_type: str | None) -> bool:
    """Return whether a client with these ``Accept`` lines takes a document of that type."""
    accepted = _parse_ranges(tuple(accept))
    return accepted is None or not accepted.isdisjoint((media_type, "*/*", "application/*"))


@lru_cache(maxsize=64)
def _parse_ranges(accept: tuple[str, ...]) -> frozenset[str] | None:
    """Return the accepted types; None if the lines name none, which accepts everything."""
    ranges = [part.split(";") for line in accept for part in line.split(",") if part.strip()]
    accepted = (name.strip().lower() for name, *params in ranges if not any(map(_is_zero, params)))
    return frozenset(accepted) if ranges else None


def accepts_everything(accept: Iterable[str]) -> bool:
    """Return whether such a client takes any document; registries answer it with their oldest type."""
    return accepts(accept, None)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip().lower() == "q" and value.strip().strip("0.") == "" and value.strip() != ""


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
    return tuple(f"{subject.algorithm}-{subject.hex}{suffix}" for suffix in _ARTIFACT_TAG_SUFFIXES)


def parse_artifact_tag(tag: str) -> Digest | None:
    """Return the subject of a tag such as ``sha256-….sig``, by which clients find artifacts, or None."""
    found = _ARTIFACT_TAG.fullmatch(tag)
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
