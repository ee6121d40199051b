"""Fixtures of the tests of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.store.downloads.context import LINGER

from ..downloads.upstream import Mirror, all_closed
from .parts import PartMirror, PartUpstream


@pytest.fixture
def upstream() -> PartUpstream:
    return PartUpstream()


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[tuple[PartMirror, PartMirror]]:
    """Two processes on one directory; some seconds after the last reader they have no file open."""
    opened: dict[int, Mirror] = {}
    both = PartMirror(tmp_path, opened=opened), PartMirror(tmp_path, opened=opened)
    with all_closed(tmp_path):
        yield both
        for mirror in both:
            mirror.turn(LINGER, 3)


@pytest.fixture
def mirror(mirrors: tuple[PartMirror, PartMirror]) -> PartMirror:
    return mirrors[0]


@pytest.fixture
def other(mirrors: tuple[PartMirror, PartMirror]) -> PartMirror:
    return mirrors[1]
