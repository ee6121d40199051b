"""Images as they lie in a store's directory."""

from __future__ import annotations

from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Tag
from dockmirror.store import layout
from dockmirror.store.held_images import HeldImages

from .stocked import ELSEWHERE, EPOCH, HERE, HOUR, Stocked


def test_image(store: Stocked) -> None:
    """An image lists what it needs and was used when any of its contents was."""
    config, layer = store.blob(b"config"), store.blob(b"layer", age=60)
    digest = store.image(config, layer, tag="latest")
    images = HeldImages(store.root)
    assert images.list_repositories() == [HERE]
    assert images.list_tags(HERE)[Tag("latest")].digest == digest
    image = images.read_image(HERE, digest)
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
    complete, incomplete = store.image(config), store.image(config, elsewhere, never)
    index = store.index(complete, incomplete, Digest.of(b"no manifest"))
    images = HeldImages(store.root)
    assert images.read_image(HERE, complete).find_missing() == []
    assert images.read_image(HERE, incomplete).find_missing() == [elsewhere, never]
    assert images.read_image(HERE, index).find_missing() == [Digest.of(b"no manifest"), elsewhere, never]
    assert images.read_image(ELSEWHERE, complete).data is None


def test_unreadable_manifests(store: Stocked) -> None:
    """A corrupt manifest counts as missing; a missing image was never used."""
    digest = store.image(store.blob(b"config"))
    images = HeldImages(store.root)
    assert images.read_image(HERE, digest).last_used() == EPOCH - HOUR
    (store.root / layout.data(digest)).write_bytes(b"{}")
    for each in (digest, Digest.of(b"?")):
        image = images.read_image(HERE, each)
        assert (image.data, image.last_used()) == (None, 0)


def test_a_digest_is_found_by_its_tag(store: Stocked) -> None:
    digest = store.image(store.blob(b"config"), tag="latest")
    images = HeldImages(store.root)
    assert images.find_digest(HERE, Tag("latest")) == digest
    assert images.find_digest(HERE, Digest.of(b"any")) == Digest.of(b"any")
    assert images.find_digest(HERE, Tag("gone")) is None
    assert images.find_digest(ELSEWHERE, Tag("latest")) is None
