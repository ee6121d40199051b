"""Media types of blobs and manifests: parse them, find the references of a manifest, and match ``Accept``.

Sources: OCI image specification, manifest.md and image-index.md; distribution's schema 1 and 2;
RFC 9110, 12.5.1 (``Accept``; of quality values only zero is respected).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from attrs import frozen

from .digest import Digest
from .errors import RegistryError
from .manifest_json import load_manifest

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


@frozen
class ManifestReferences:
    """The contents that a manifest needs: its blobs, or, for an index, one of its manifests.

    :ivar blobs: the configuration, then the layers.
    :ivar is_image: False for an artifact, whose configuration is none of a container image.
    """

    media_type: str
    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()
    is_image: bool = False


def parse_references(manifest: bytes) -> ManifestReferences | None:
    """Return what a manifest refers to, or None for an unknown type, schema 1 included.

    It is None, too, if clients may read the document in different ways; see ``manifest_json.py``.  Foreign
    layers, which have their own URLs and are in no registry, are left out.
    """
    try:
        fields = load_manifest(manifest)
        media_type = _media_type(fields)
        if media_type in (OCI_INDEX, DOCKER_LIST):
            return ManifestReferences(media_type, manifests=_digests(fields["manifests"]))
        if media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
            config = fields["config"]
            return ManifestReferences(
                media_type,
                blobs=_digests((config, *fields.get("layers", ()))),
                is_image=config.get("mediaType") in IMAGE_CONFIGS,
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RegistryError):
        pass
    return None


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


def signed_payload(manifest: bytes) -> bytes:
    """Return the bytes that the digest of a schema 1 manifest covers: without its signatures (JWS).

    Source: distribution, "Image Manifest V 2, Schema 1", "Signed Manifests".  Other documents are returned
    unchanged.
    """
    try:
        protected = json.loads(_decoded(json.loads(manifest)["signatures"][0]["protected"]))
        return manifest[: protected["formatLength"]] + _decoded(protected["formatTail"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return manifest


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _media_type(fields: Mapping[str, object]) -> str:
    """Return the stated media type; OCI documents may leave it out, and are told apart by their fields."""
    stated = fields.get("mediaType")
    if isinstance(stated, str):
        return stated
    if fields.get("schemaVersion") != 2:
        return ""
    return OCI_INDEX if "manifests" in fields else OCI_MANIFEST


def _digests(descriptors: Iterable[Mapping[str, str]]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(Digest.parse(d["digest"]) for d in descriptors if not d.get("urls")))


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip().lower() == "q" and value.strip().strip("0.") == "" and value.strip() != ""
