"""Fixtures of the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..page_cache import cold_pages
from .upstream import DATA, Mirror, Upstream, all_closed


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(DATA)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """A process with an empty store; in the end it has no file open."""
    with all_closed(tmp_path):
        yield Mirror(tmp_path, DATA)


@pytest.fixture
def cold() -> Iterator[None]:
    """No page of a file is in memory."""
    with cold_pages():
        yield


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[tuple[Mirror, Mirror]]:
    """Two processes on one directory, as far as files can tell."""
    with all_closed(tmp_path):
        opened: dict[int, Mirror] = {}
        yield Mirror(tmp_path, DATA, opened=opened), Mirror(tmp_path, DATA, opened=opened)


@pytest.fixture
def owner(mirrors: tuple[Mirror, Mirror]) -> Mirror:
    return mirrors[0]


@pytest.fixture
def other(mirrors: tuple[Mirror, Mirror]) -> Mirror:
    return mirrors[1]
