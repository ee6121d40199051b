"""Contents put into a store from beside its mirrors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.interfaces import Kind
from dockmirror.oci.digest import Digest
from dockmirror.store import adding, layout
from dockmirror.store.directory import prepare

from ..answering import now
from .contract import DATA, DIGEST, HERE, LATEST
from .stocked import EPOCH, Stocked


@pytest.fixture
def store(tmp_path: Path) -> Stocked:
    """Empty."""
    prepare(tmp_path)
    return Stocked(tmp_path)


def test_added(store: Stocked) -> None:
    """It can be opened as what it was linked as, and by its tag."""
    assert adding.add(store.root, DIGEST, [DATA[:3], DATA[3:]]) == len(DATA)
    assert now(store.contents.open(HERE, DIGEST, Kind.BLOB)) is None
    adding.link(store.root, HERE, DIGEST, Kind.BLOB, EPOCH)
    adding.tag(store.root, HERE, LATEST, DIGEST, EPOCH)
    assert now(store.contents.open(HERE, DIGEST, Kind.BLOB)) is not None
    assert now(store.contents.open(HERE, DIGEST, Kind.MANIFEST)) is None
    tagged = now(store.tags.get(HERE, LATEST))
    assert tagged is not None
    assert (tagged.digest, tagged.confirmed) == (DIGEST, EPOCH)
    assert adding.add(store.root, DIGEST, [DATA]) == 0


def test_what_cannot_be_read_to_its_end(store: Stocked) -> None:
    """Leaves nothing."""

    def breaking() -> Iterator[bytes]:
        yield DATA
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        adding.add(store.root, Digest.of(b"x"), breaking())
    assert store.held(Digest.of(b"x")) == [False]
    assert list((store.root / layout.WRITING).iterdir()) == []
