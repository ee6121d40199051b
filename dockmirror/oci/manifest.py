"""Manifests and indexes, parsed with everything that they refer to, and the platforms of images.

Clients in Go match keys without regard to case, and the last of several keys wins.  They pass over keys that
they do not know.  So one document can be a harmless image to one program and another image to the next.  A
document that clients may read in different ways is parsed as none, and so is one of so many values that
parsing it would keep other clients waiting.

Sources: OCI image specification, manifest.md and image-index.md; distribution's schema 1 and 2; Go,
``encoding/json``, "Unmarshal"; CVE-2021-41190 (documents that are manifest and index at once).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from attrs import frozen

from .digest import Descriptor, Digest
from .errors import RegistryError
from .media import DOCKER_LIST, DOCKER_MANIFEST, IMAGE_CONFIGS, OCI_INDEX, OCI_MANIFEST, accepts

_INDEXES = (OCI_INDEX, DOCKER_LIST)
_PART = re.compile(r"[A-Za-z0-9_.-]+")
_INVALID = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, RegistryError)
"""Raised by parsing what is no valid manifest."""
_PLATFORM_KEYS = frozenset({"architecture", "os", "os.version", "os.features", "variant", "features"})
_DESCRIPTOR_KEYS = frozenset(
    {"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"}
)
_IMAGE_KEYS = frozenset({"config", "layers"})
_INDEX_KEYS = frozenset({"manifests"})
_SCHEMA_1_KEYS = frozenset({"fsLayers", "history"})
_KINDS = (_IMAGE_KEYS, _INDEX_KEYS, _SCHEMA_1_KEYS)
_MANIFEST_KEYS = frozenset.union(
    *_KINDS, {"schemaVersion", "mediaType", "artifactType", "subject", "annotations", "blobs"}
)
MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes of a manifest or an index; registries and clients accept no larger ones."""
_MAX_VALUES = 32 * 1024
"""Enough for an index of three thousand manifests with platforms and annotations, or an image of 8000 layers;
clients pull none of more than 127."""
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]")
_PART_LENGTH = 50


@frozen(order=True)
class Platform:
    """An operating system, an architecture, and optionally its variant."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """:raises ValueError: when the text is neither ``os/arch`` nor ``os/arch/variant``."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(map(_PART.fullmatch, parts)):
            raise ValueError("expected a platform such as linux/amd64 or linux/arm/v7")
        return cls(*parts)

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Platform:
        """Return the platform that an index states, or a configuration.

        What its publisher wrote is shown on terminals and kept in the history, so that unusual characters are
        replaced, and long parts cut.
        """
        stated = (str(fields.get(name) or "") for name in ("os", "architecture", "variant"))
        return cls(*(_UNUSUAL.sub("?", each[:_PART_LENGTH]) for each in stated))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def is_real(self) -> bool:
        """True for an image's platform; attestations have ``unknown/unknown``."""
        return "unknown" not in (self.os, self.architecture)

    @property
    def is_plain(self) -> bool:
        """True if ``parse`` reads it as it is written; an index may state a platform without a name."""
        return all(map(_PART.fullmatch, (self.os, self.architecture, self.variant or "any")))

    def matches(self, other: Platform) -> bool:
        """Return whether the other platform satisfies this one; without a variant, any variant does."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and self.variant in ("", other.variant)


LINUX_AMD64 = Platform("linux", "amd64")


@frozen
class IndexEntry:
    """A manifest that an index refers to."""

    descriptor: Descriptor
    platform: Platform | None = None


@frozen
class ManifestDocument:
    """The descriptors in a manifest or index, in its order.

    :ivar foreign: the contents with addresses outside of registries; ``layers`` and ``children`` leave them
        out.
    """

    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[IndexEntry, ...] = ()
    foreign: tuple[Descriptor, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> ManifestDocument | None:
        """Parse a manifest or index; None if ``parse_references`` is None, or a descriptor is invalid."""
        try:
            fields = load_manifest(data)
            parts = _find_references(fields)
            if parts is None:
                return None
            config, layers = fields.get("config"), fields.get("layers", ())
            contents = (config or {}, *layers, *fields.get("manifests", ()))
            return cls(
                parts.media_type,
                _descriptor(config) if config and parts.blobs else None,
                tuple(_descriptor(each) for each in layers if not each.get("urls")),
                tuple(_child(each) for each in fields.get("manifests", ()) if not each.get("urls")),
                tuple(_descriptor(each) for each in contents if each.get("urls")),
            )
        except _INVALID:
            return None

    @property
    def is_index(self) -> bool:
        return self.media_type in _INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration and the layers, without duplicates."""
        everything = (*((self.config,) if self.config else ()), *self.layers)
        return tuple({each.digest: each for each in reversed(everything)}.values())[::-1]

    def choose_accepted(self, accept: Iterable[str]) -> Digest | None:
        """Return the image for a client that accepts no index, or None.

        Registries choose the one for linux/amd64.
        """
        accepted = (each for each in self.children if accepts(accept, each.descriptor.media_type))
        chosen = (each.descriptor.digest for each in accepted if each.platform == LINUX_AMD64)
        return next(chosen, None)


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

    Foreign layers, which have their own URLs and are in no registry, are left out.
    """
    try:
        return _find_references(load_manifest(manifest))
    except _INVALID:
        return None


def is_accepted_kind(accept: Iterable[str], media_type: str | None) -> bool:
    """Return whether a client takes an index of this type; True for everything that is none."""
    return media_type not in _INDEXES or accepts(accept, media_type)


def signed_payload(manifest: bytes) -> bytes:
    """Return the bytes that the digest of a schema 1 manifest covers: without its signatures (JWS).

    The document says itself which bytes these are, so it has to be the same without its signatures.  Other
    documents are returned unchanged.

    Source: distribution, "Image Manifest V 2, Schema 1", "Signed Manifests".
    """
    try:
        fields = load_manifest(manifest)
        protected = json.loads(_decoded(fields.pop("signatures")[0]["protected"]))
        payload = manifest[: protected["formatLength"]] + _decoded(protected["formatTail"])
        is_covered = json.dumps(fields) == json.dumps(load_manifest(payload))  # the order of keys counts
        return payload if is_covered and fields["schemaVersion"] == 1 else manifest
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return manifest


def load_manifest(data: bytes) -> dict[str, Any]:
    """Return the fields of a manifest or an index.

    :raises ValueError: when the document is no object in UTF-8, has too many values, or clients may read it
        in different ways.
    """
    if sum(map(data.count, (b",", b"{", b"["))) > _MAX_VALUES:  # each value but a key's follows one of them
        raise ValueError("the document has too many values")
    try:
        fields = json.loads(data.decode(), object_pairs_hook=_read_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("expected an object")
    _check_keys(fields, _MANIFEST_KEYS)
    if sum(not kind.isdisjoint(fields) for kind in _KINDS) > 1:
        raise ValueError("the document is of several kinds at once")
    for key in ("config", "subject"):
        _check_descriptors([fields.get(key)])
    for key in ("layers", "manifests", "blobs"):
        _check_descriptors(fields.get(key))
    return fields


def _find_references(fields: Mapping[str, Any]) -> ManifestReferences | None:
    media_type = _media_type(fields)
    if media_type in _INDEXES:
        return ManifestReferences(media_type, manifests=_digests(fields["manifests"]))
    if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
        return None
    config = fields["config"]
    blobs = _digests((config, *fields.get("layers", ())))
    return ManifestReferences(media_type, blobs, is_image=config.get("mediaType") in IMAGE_CONFIGS)


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


def _child(fields: Mapping[str, Any]) -> IndexEntry:
    platform = fields.get("platform")
    return IndexEntry(_descriptor(fields), Platform.from_fields(platform) if platform else None)


def _descriptor(fields: Mapping[str, Any]) -> Descriptor:
    return Descriptor(
        str(fields.get("mediaType") or ""), Digest.parse(fields["digest"]), _parse_size(fields.get("size"))
    )


def _parse_size(value: object) -> int | None:
    """Return a size, or None if it is not stated.

    :raises ValueError: when it is no integer of 64 bits.
    """
    if value is None:
        return None
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError("expected an integer of 64 bits")
    return value


def _check_descriptors(values: object) -> None:
    """Check the keys of descriptors; other values cannot be read as any."""
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict):
            _check_keys(value, _DESCRIPTOR_KEYS)
            if isinstance(platform := value.get("platform"), dict):
                _check_keys(platform, _PLATFORM_KEYS)


def _check_keys(keys: Iterable[str], known: frozenset[str]) -> None:
    """:raises ValueError: when a key is a known one in another case."""
    unknown = [key for key in keys if key not in known]
    folded = {each.casefold() for each in known} if unknown else ()
    for key in unknown:
        if key.casefold() in folded:
            raise ValueError(f"{key!a} is a known key in another case")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("the document has a key twice")
    for key, value in pairs:
        key.encode()  # half of a surrogate pair is an error here, and another character in other programs
        if isinstance(value, str):
            value.encode()
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
