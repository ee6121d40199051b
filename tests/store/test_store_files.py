"""Contents are added while no mirror needs to run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.store import layout, store_files

from ..answering import now
from .stocked import DATA, DIGEST, EPOCH, HERE, LATEST, Stocked


def test_added(store: Stocked) -> None:
    """An added content can be opened by its link and by its tag."""
    assert store_files.add_content(store.root, DIGEST, [DATA[:3], DATA[3:]]) == len(DATA)
    assert now(store.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    store_files.link_content(store.root, HERE, DIGEST, ContentKind.BLOB, EPOCH)
    store_files.set_tag(store.root, HERE, LATEST, DIGEST, EPOCH)
    assert now(store.contents.open(HERE, DIGEST, ContentKind.BLOB)) is not None
    assert now(store.contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    tagged = now(store.tags.get(HERE, LATEST))
    assert tagged is not None
    assert (tagged.digest, tagged.confirmed) == (DIGEST, EPOCH)
    assert store_files.add_content(store.root, DIGEST, [DATA]) == 0


def test_failing_source(store: Stocked) -> None:
    """A source that fails leaves nothing."""

    def breaking() -> Iterator[bytes]:
        yield DATA
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        store_files.add_content(store.root, Digest.of(b"x"), breaking())
    assert store.held(Digest.of(b"x")) == [False]
    assert list((store.root / layout.TEMPORARY).iterdir()) == []
