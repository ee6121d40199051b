"""The descriptor of a content, known before its bytes.

Source: OCI image specification, descriptor.md.
"""

from __future__ import annotations

from attrs import frozen

from .digest import Digest


@frozen
class Descriptor:
    """Media type, digest and size in bytes, each None if the upstream did not state it."""

    media_type: str | None = None
    digest: Digest | None = None
    size: int | None = None
