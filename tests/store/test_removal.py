"""Images are deleted on request, and corrupt contents when they are found."""

from __future__ import annotations

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Tag
from dockmirror.store import layout
from dockmirror.store.eviction import removal
from dockmirror.store.eviction.removal import delete_planned, plan_manifest_deletion, plan_tag_deletion

from ..answering import now
from .stocked import ELSEWHERE, HERE, Stocked


def delete_tag(store: Stocked, tag: str) -> int:
    """Delete a tag like ``rm``."""
    going = plan_tag_deletion(store.root, HERE, Tag(tag))
    assert going is not None
    return delete_planned(store.root, [going])


def delete_manifest(store: Stocked, digest: Digest) -> int:
    """Delete a manifest like ``rm``."""
    going = plan_manifest_deletion(store.root, HERE, digest)
    assert going is not None
    return delete_planned(store.root, [going])


def test_tag(store: Stocked) -> None:
    """A deleted tag takes with it what only its image needs; other images keep their contents."""
    own, shared, everywhere = store.blob(b"own"), store.blob(b"shared"), store.blob(b"everywhere")
    store.blob(b"everywhere", repository=ELSEWHERE)
    going, staying = store.image(own, shared, everywhere, tag="going"), store.image(shared, tag="staying")
    size = store.size()
    freed = delete_tag(store, "going")
    assert store.held(going, own, staying, shared, everywhere) == [False, False, True, True, True]
    assert freed == size - store.size()
    assert plan_tag_deletion(store.root, HERE, Tag("going")) is None
    assert now(store.tags.get(HERE, Tag("staying"))) is not None
    assert not any(own.hex in path or going.hex in path for path in store.tree())
    assert not any(everywhere.hex in path and HERE.name in path for path in store.tree())


def test_one_of_two_tags(store: Stocked) -> None:
    """Deleting one of two tags of an image keeps the image and the other tag."""
    digest = store.image(store.blob(b"config"), tag="one")
    now(store.tags.put(HERE, Tag("two"), digest))
    assert delete_tag(store, "one") == 0
    assert store.held(digest) == [True]
    delete_tag(store, "two")
    assert store.is_empty()


def test_manifest(store: Stocked) -> None:
    """A deleted manifest takes all its tags with it."""
    digest = store.image(store.blob(b"config"), tag="one")
    now(store.tags.put(HERE, Tag("two"), digest))
    delete_manifest(store, digest)
    assert store.is_empty()
    assert plan_manifest_deletion(store.root, HERE, digest) is None


def test_index(store: Stocked) -> None:
    """A deleted index takes its images with it, except one that a tag names."""
    layers = [store.blob(name) for name in (b"1", b"2")]
    one, two = (store.image(layer) for layer in layers)
    index = store.index(one, two, tag="latest")
    now(store.tags.put(HERE, Tag("two"), two))
    delete_tag(store, "latest")
    assert store.held(index, one, layers[0], two, layers[1]) == [False, False, False, True, True]


def test_image_of_an_index(store: Stocked) -> None:
    """An index's image is deleted by digest; deleting its tag keeps it for the index."""
    layer = store.blob(b"1")
    image = store.image(layer, tag="one")
    index = store.index(image, tag="latest")
    delete_tag(store, "one")
    assert store.held(index, image, layer) == [True, True, True]
    delete_manifest(store, image)
    assert store.held(index, image) == [True, False]


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
