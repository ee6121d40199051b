"""The ``Link`` to the next page of a list.

Source: OCI distribution specification, "Listing Tags"; RFC 8288.  An upstream's link may be relative or
absolute and names the upstream's path; the mirror only needs its query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"next"|next)\s*(?:[;,]|$)', re.IGNORECASE)


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
