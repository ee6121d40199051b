"""Platforms of images.

Source: OCI image specification, image-index.md, "platform".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

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
