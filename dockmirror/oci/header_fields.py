"""Header fields: entity tags, which are digests, the ``Link`` to a next page, and ``CDN-Loop``.

Sources: RFC 9110, 8.8.3 and 13.1.2 (weak comparison); RFC 9111; RFC 8288; OCI distribution specification,
"Listing Tags"; RFC 8586.  The link of an upstream may be relative or absolute and names the path of the
upstream; the mirror only needs its query.

``CDN-Loop`` names the mirrors that a request has passed.  ``Via`` serves less: reverse proxies write it anew,
and some servers respond differently to it.  A mirror sends its random identifier only to its upstreams and to
the hosts that these name; clients never see it, and so cannot have the requests of others refused.  The
members of other software are not passed on, as a mirror's request is its own: a CDN in front of both the
mirror and a registry would take it for a loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen

from .digest import Digest

CDN_LOOP = "CDN-Loop"
_MOST_HOPS = 16
"""Mirrors of a chain that are passed on, the last ones: a loop through as many is still recognized."""
_HOP = re.compile(r"dockmirror-([0-9a-f]{32})(?:[ \t]*;[ \t]*pull=([0-9]{1,16}))?([ \t]*;[ \t]*peer)?")

_TAG = r'(?:W/)?"[!#-~]*"'
_TAGS = re.compile(rf"\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_UNQUOTED = re.compile(r"[!#-+\--~]+")
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"next"|next)\s*(?:[;,]|$)', re.IGNORECASE)


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


def demands_revalidation(lines: Iterable[str]) -> bool:
    """Return whether a request's ``Cache-Control`` lines say ``no-cache`` (RFC 9111, 5.2.1.4)."""
    directives = (directive.partition("=")[0].strip() for line in lines for directive in line.split(","))
    return any(directive.lower() == "no-cache" for directive in directives)


def parse_next_page(lines: Iterable[str]) -> tuple[tuple[str, str], ...] | None:
    """Return the query of the first ``rel="next"`` link, or None if there is no next page."""
    for target, parameters in (match for line in lines for match in _LINK.findall(line)):
        if _NEXT.search(parameters):
            try:
                return tuple(parse_qsl(urlsplit(target).query, keep_blank_values=True))
            except ValueError:
                return None
    return None


def format_next_page(path: str, query: tuple[tuple[str, str], ...]) -> str:
    """Return a ``Link`` to the next page of the list at that path."""
    return f'<{path}?{urlencode(query)}>; rel="next"'


@frozen
class Hop:
    """A mirror that has sent a request to its upstream, or to a peer.

    :ivar mirror: its identifier, 32 hexadecimal digits.
    :ivar pull: the number of the pull there; empty if the request belongs to none.
    :ivar is_peer: True if it has asked another mirror of its fleet.
    """

    mirror: str
    pull: str = ""
    is_peer: bool = False

    def __str__(self) -> str:
        pull = f"; pull={self.pull}" if self.pull else ""
        return f"dockmirror-{self.mirror}{pull}{'; peer' if self.is_peer else ''}"


def parse_hops(lines: Iterable[str]) -> tuple[Hop, ...]:
    """Return the mirrors that the lines of ``CDN-Loop`` name, in the order in which they sent the request."""
    members = (member.strip(" \t") for line in lines for member in line.split(","))
    matches = (_HOP.fullmatch(member) for member in members)
    return tuple(Hop(match[1], match[2] or "", bool(match[3])) for match in matches if match)[-_MOST_HOPS:]


def format_hops(hops: Iterable[Hop]) -> str:
    """Return the value of ``CDN-Loop``."""
    return ", ".join(map(str, hops))
