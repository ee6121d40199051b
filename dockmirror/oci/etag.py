"""Entity tags: a content's is its digest.

Source: RFC 9110, 8.8.3 and 13.1.2 (weak comparison).
"""

from __future__ import annotations

import re

from .digest import Digest

_TAG = r'(?:W/)?"[!#-~]*"'
_TAGS = re.compile(rf"\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_BARE = re.compile(r"[!#-+\--~]+")


def format_etag(digest: Digest) -> str:
    """The entity tag of the content of that digest."""
    return f'"{digest}"'


def parse_if_none_match(text: str | None) -> str | None:
    """An ``If-None-Match`` that may be passed on; None where it is none, and to be ignored.

    One tag without its quotes, as some clients write a digest, gets them.
    """
    if text is None or _TAGS.fullmatch(text):
        return text
    return f'"{text}"' if _BARE.fullmatch(text) else None


def etag_matches(if_none_match: str | None, digest: Digest | None) -> bool:
    """Whether a client that sent this ``If-None-Match`` has the content already."""
    if if_none_match is None or digest is None:
        return False
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(","))
    return any(tag in ("*", str(digest)) for tag in tags)
