"""Stored contents are verified again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.eviction import removal

from ..answering import now
from .contract import ELSEWHERE, HERE
from .stocked import Stocked


@pytest.fixture
def store(tmp_path: Path) -> Stocked:
    return Stocked(tmp_path)


def test_corrupt_contents(store: Stocked) -> None:
    """Corrupt contents are found with their repositories and removed with their links; the rest stays."""
    right, wrong = store.blob(b"right"), store.blob(b"wrong")
    now(store.contents.link(ELSEWHERE, wrong, ContentKind.BLOB))
    read: list[int] = []
    assert removal.find_corrupt(store.root, [right, wrong], read.append) == []
    assert sum(read) == 10
    (store.root / layout.data(wrong)).write_bytes(b"wrung")
    [found] = removal.find_corrupt(store.root, [right, wrong], read.append)
    assert (found.digest, found.repositories) == (wrong, (HERE.name, ELSEWHERE.name))
    assert removal.remove_corrupt(store.root, [found]) == 1
    assert store.held(right, wrong) == [True, False]
    assert not any(wrong.hex in path for path in store.tree())


def test_changes_during_verification(store: Stocked) -> None:
    """Contents that are evicted or fetched again meanwhile are not corrupt."""
    digest = store.blob(b"content")
    path = store.root / layout.data(digest)
    path.write_bytes(b"another")
    [found] = removal.find_corrupt(store.root, [digest, Digest.of(b"gone")], lambda _: None)
    store.blob(b"content")
    assert removal.remove_corrupt(store.root, [found]) == 0
    path.unlink()
    assert removal.remove_corrupt(store.root, [found]) == 0
