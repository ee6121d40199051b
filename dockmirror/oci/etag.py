"""Entity tags: a content's is its digest.

Source: RFC 9110, 8.8.3 and 13.1.2 (weak comparison).
"""

from __future__ import annotations

from .digest import Digest


def etag(digest: Digest) -> str:
    """The entity tag of the content of that digest."""
    return f'"{digest}"'


def matches(if_none_match: str | None, digest: Digest | None) -> bool:
    """Whether a client that sent this ``If-None-Match`` has the content already."""
    if if_none_match is None or digest is None:
        return False
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(","))
    return any(tag in ("*", str(digest)) for tag in tags)
