"""Entity tags: the tag of a content is its digest.

Source: RFC 9110, 8.8.3 and 13.1.2 (weak comparison).
"""

from __future__ import annotations

import re

from .digest import Digest

_TAG = r'(?:W/)?"[!#-~]*"'
_TAGS = re.compile(rf"\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_UNQUOTED = re.compile(r"[!#-+\--~]+")


def format_etag(digest: Digest) -> str:
    """Return the entity tag for a digest."""
    return f'"{digest}"'


def parse_if_none_match(text: str | None) -> str | None:
    """Return an ``If-None-Match`` that may be passed on, or None for one that is to be ignored.

    A single tag without quotes, as some clients send a digest, is quoted.
    """
    if text is None or _TAGS.fullmatch(text):
        return text
    return f'"{text}"' if _UNQUOTED.fullmatch(text) else None


def etag_matches(if_none_match: str | None, digest: Digest | None) -> bool:
    """Return whether a client that sent this ``If-None-Match`` already has the content."""
    if if_none_match is None or digest is None:
        return False
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(","))
    return any(tag in ("*", str(digest)) for tag in tags)
