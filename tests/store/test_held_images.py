"""Images as they lie in a store's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Tag
from dockmirror.store import layout
from dockmirror.store.held_images import HeldImages

from .contract import ELSEWHERE, HERE
from .stocked import EPOCH, HOUR, Stocked


@pytest.fixture
def store(tmp_path: Path) -> Stocked:
    return Stocked(tmp_path)


def test_image(store: Stocked) -> None:
    """An image lists what it needs and was used when any of its contents was."""
    config, layer = store.blob(b"config"), store.blob(b"layer", age=60)
    digest = store.image(config, layer, tag="latest")
    holdings = HeldImages(store.root)
    assert holdings.list_repositories() == [HERE]
    assert holdings.list_tags(HERE)[Tag("latest")].digest == digest
    image = holdings.read_image(HERE, digest)
    assert image.find_missing() == []
    assert image.last_used() == EPOCH - 60
    assert sum(image.content_sizes().values()) == len(b"config" + b"layer") + len(image.data or b"")


def test_missing_contents(store: Stocked) -> None:
    """Missing contents are listed; a content without a link is missing even if its bytes are stored."""
    config, elsewhere, never = (
        store.blob(b"config"),
        store.blob(b"layer", repository=ELSEWHERE),
        Digest.of(b"?"),
    )
    whole, torn = store.image(config), store.image(config, elsewhere, never)
    index = store.index(whole, torn, Digest.of(b"no manifest"))
    holdings = HeldImages(store.root)
    assert holdings.read_image(HERE, whole).find_missing() == []
    assert holdings.read_image(HERE, torn).find_missing() == [elsewhere, never]
    assert holdings.read_image(HERE, index).find_missing() == [Digest.of(b"no manifest"), elsewhere, never]
    assert holdings.read_image(ELSEWHERE, whole).data is None


def test_corrupt_manifest(store: Stocked) -> None:
    """A corrupt manifest counts as missing."""
    digest = store.image(store.blob(b"config"))
    (store.root / layout.data(digest)).write_bytes(b"{}")
    assert HeldImages(store.root).read_image(HERE, digest).data is None


def test_last_use_of_a_missing_image(store: Stocked) -> None:
    """A missing image was never used."""
    assert HeldImages(store.root).read_image(HERE, Digest.of(b"?")).last_used() == 0
    assert HeldImages(store.root).read_image(HERE, store.image(store.blob(b"c"))).last_used() == EPOCH - HOUR
