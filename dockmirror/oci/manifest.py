"""Manifests and indexes, parsed with everything that they refer to, and the platforms of images.

Source: OCI image specification, manifest.md and image-index.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from .digest import Descriptor, Digest
from .errors import DigestInvalid
from .manifest_json import load_manifest, parse_size
from .media import DOCKER_LIST, OCI_INDEX, accepts, parse_references

_INDEXES = (OCI_INDEX, DOCKER_LIST)
_PART = re.compile(r"[A-Za-z0-9_.-]+")


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
        """Return the platform that an index states."""
        return cls(*(str(fields.get(name) or "") for name in ("os", "architecture", "variant")))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def is_real(self) -> bool:
        """True for an image's platform; attestations have ``unknown/unknown``."""
        return "unknown" not in (self.os, self.architecture)

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
        parts = parse_references(data)
        if parts is None:
            return None
        fields = load_manifest(data)
        try:
            config, layers = fields.get("config"), fields.get("layers", ())
            contents = (config or {}, *layers, *fields.get("manifests", ()))
            return cls(
                parts.media_type,
                _descriptor(config) if config and parts.blobs else None,
                tuple(_descriptor(each) for each in layers if not each.get("urls")),
                tuple(_child(each) for each in fields.get("manifests", ()) if not each.get("urls")),
                tuple(_descriptor(each) for each in contents if each.get("urls")),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, DigestInvalid):
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


def is_accepted_kind(accept: Iterable[str], media_type: str | None) -> bool:
    """Return whether a client takes an index of this type; True for everything that is none."""
    return media_type not in _INDEXES or accepts(accept, media_type)


def _child(fields: Mapping[str, Any]) -> IndexEntry:
    platform = fields.get("platform")
    return IndexEntry(_descriptor(fields), Platform.from_fields(platform) if platform else None)


def _descriptor(fields: Mapping[str, Any]) -> Descriptor:
    return Descriptor(
        str(fields.get("mediaType") or ""), Digest.parse(fields["digest"]), parse_size(fields.get("size"))
    )
