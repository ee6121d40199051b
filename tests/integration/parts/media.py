"""Bytes, their media types and their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Family:
    """The media types that one kind of image is described with."""

    name: str
    manifest: str
    index: str
    config: str
    layer: str


DOCKER = Family(
    "docker",
    manifest="application/vnd.docker.distribution.manifest.v2+json",
    index="application/vnd.docker.distribution.manifest.list.v2+json",
    config="application/vnd.docker.container.image.v1+json",
    layer="application/vnd.docker.image.rootfs.diff.tar.gzip",
)
OCI = Family(
    "oci",
    manifest="application/vnd.oci.image.manifest.v1+json",
    index="application/vnd.oci.image.index.v1+json",
    config="application/vnd.oci.image.config.v1+json",
    layer="application/vnd.oci.image.layer.v1.tar+gzip",
)
FAMILIES = (DOCKER, OCI)


@dataclass(frozen=True)
class Content:
    """Bytes with their media type."""

    media_type: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        """The digest by which a registry knows the bytes."""
        return sha256(self.data)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """The descriptor of these bytes in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **more}


def sha256(data: bytes) -> str:
    """The digest of *data*."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
