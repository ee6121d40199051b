"""Images forgotten because somebody says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Tag
from dockmirror.store.eviction.delete_image import delete_image, plan_manifest_deletion, plan_tag_deletion

from ..answering import now
from .contract import ELSEWHERE, HERE
from .stocked import Stocked


@pytest.fixture
def store(tmp_path: Path) -> Stocked:
    """Empty."""
    return Stocked(tmp_path)


def forget_tag(store: Stocked, tag: str) -> int:
    """What ``rm`` does with a tag."""
    going = plan_tag_deletion(store.root, HERE, Tag(tag))
    assert going is not None
    return delete_image(store.root, going)


def forget_manifest(store: Stocked, digest: Digest) -> int:
    """What it does with a digest."""
    going = plan_manifest_deletion(store.root, HERE, digest)
    assert going is not None
    return delete_image(store.root, going)


def test_a_tag(store: Stocked) -> None:
    """Goes with all that only it needs; what another manifest needs, or another repository has, stays."""
    own, shared, everywhere = store.blob(b"own"), store.blob(b"shared"), store.blob(b"everywhere")
    store.blob(b"everywhere", repository=ELSEWHERE)
    going, staying = store.image(own, shared, everywhere, tag="going"), store.image(shared, tag="staying")
    size = store.size()
    freed = forget_tag(store, "going")
    assert store.held(going, own, staying, shared, everywhere) == [False, False, True, True, True]
    assert freed == size - store.size()
    assert plan_tag_deletion(store.root, HERE, Tag("going")) is None
    assert now(store.tags.get(HERE, Tag("staying"))) is not None
    assert not any(own.hex in path or going.hex in path for path in store.tree())
    assert not any(everywhere.hex in path and HERE.name in path for path in store.tree())


def test_one_of_two_tags(store: Stocked) -> None:
    """Goes alone."""
    digest = store.image(store.blob(b"config"), tag="one")
    now(store.tags.put(HERE, Tag("two"), digest))
    assert forget_tag(store, "one") == 0
    assert store.held(digest) == [True]
    forget_tag(store, "two")
    assert store.tree() == ["docker/registry", "docker/registry/v2", *_empty(store)]


def test_a_manifest(store: Stocked) -> None:
    """Goes with all its tags."""
    digest = store.image(store.blob(b"config"), tag="one")
    now(store.tags.put(HERE, Tag("two"), digest))
    forget_manifest(store, digest)
    assert store.tree() == ["docker/registry", "docker/registry/v2", *_empty(store)]
    assert plan_manifest_deletion(store.root, HERE, digest) is None


def test_an_index(store: Stocked) -> None:
    """Goes with its images, but for one that a tag names."""
    layers = [store.blob(name) for name in (b"1", b"2")]
    one, two = (store.image(layer) for layer in layers)
    index = store.index(one, two, tag="latest")
    now(store.tags.put(HERE, Tag("two"), two))
    forget_tag(store, "latest")
    assert store.held(index, one, layers[0], two, layers[1]) == [False, False, False, True, True]


def test_an_image_of_an_index(store: Stocked) -> None:
    """Goes if its digest is given; its tag alone goes where the index needs it."""
    layer = store.blob(b"1")
    image = store.image(layer, tag="one")
    index = store.index(image, tag="latest")
    forget_tag(store, "one")
    assert store.held(index, image, layer) == [True, True, True]
    forget_manifest(store, image)
    assert store.held(index, image) == [True, False]


def _empty(store: Stocked) -> list[str]:
    tops = (store.root / "docker/registry/v2").iterdir()
    return sorted(str(path.relative_to(store.root)) for path in tops)
