"""The mirrors that a request has passed, as the header field ``CDN-Loop`` names them.

Source: RFC 8586.  ``Via`` serves less: reverse proxies write it anew, and some servers respond differently
to it.  A mirror sends its random identifier only to its upstreams and to the hosts that these name; clients
never see it, and so cannot have the requests of others refused.  The members of other software are not passed
on, as a mirror's request is its own: a CDN in front of both the mirror and a registry would take it for a
loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

CDN_LOOP = "CDN-Loop"
_MOST = 16
"""Mirrors of a chain that are passed on, the last ones: a loop through as many is still recognized."""
_MEMBER = re.compile(r"dockmirror-([0-9a-f]{32})(?:[ \t]*;[ \t]*pull=([0-9]{1,16}))?")


@frozen
class Hop:
    """A mirror that has sent a request to its upstream.

    :ivar mirror: its identifier, 32 hexadecimal digits.
    :ivar pull: the number of the pull there; empty if the request belongs to none.
    """

    mirror: str
    pull: str = ""

    def __str__(self) -> str:
        return f"dockmirror-{self.mirror}" + (f"; pull={self.pull}" if self.pull else "")


def parse_hops(lines: Iterable[str]) -> tuple[Hop, ...]:
    """Return the mirrors that the lines of ``CDN-Loop`` name, in the order in which they sent the request."""
    members = (member.strip(" \t") for line in lines for member in line.split(","))
    matches = (_MEMBER.fullmatch(member) for member in members)
    return tuple(Hop(match[1], match[2] or "") for match in matches if match)[-_MOST:]


def format_hops(hops: Iterable[Hop]) -> str:
    """Return the value of ``CDN-Loop``."""
    return ", ".join(map(str, hops))
