"""Reads the lists of a registry, of tags and of repositories, page by page."""

from __future__ import annotations

import json

from attrs import evolve

from .body.in_memory import collect
from .interfaces import IRegistry
from .oci.errors import Unreadable
from .oci.request import RegistryRequest

LIST_LIMIT = 16 * 1024 * 1024
"""Bytes of a page of a list."""
MAX_PAGES = 10_000


async def read_names(
    registry: IRegistry, request: RegistryRequest, key: str, max_pages: int = MAX_PAGES
) -> list[str]:
    """Return the names on all pages of a list.

    :param key: the field of a page that has the names.
    :raises Unreadable: when a page is malformed, or there are too many of them.
    :raises RegistryError: when a page cannot be fetched.
    """
    names: dict[str, None] = {}
    for _ in range(max_pages):
        answer = await registry.fetch(request)
        page = _parse_names(await collect(answer.body, LIST_LIMIT), key)
        if page is None:
            raise Unreadable(f"the upstream's list of {key} cannot be read")
        is_new = any(name not in names for name in page)
        names.update(dict.fromkeys(page))
        if answer.next_page is None or not is_new:
            return list(names)
        following = tuple(pair for pair in answer.next_page if pair[0] != "ns")
        request = evolve(request, query=following)
    raise Unreadable(f"the upstream's list of {key} has more than {max_pages} pages")


def _parse_names(data: bytes, key: str) -> list[str] | None:
    try:
        names = json.loads(data)[key] or []
    except (ValueError, KeyError, TypeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
