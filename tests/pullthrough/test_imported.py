"""Images that an operator has imported, for an upstream that may never have been reachable."""

from __future__ import annotations

import pytest

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError, Unreachable
from dockmirror.oci.request import Repository, Tag
from dockmirror.pullthrough.authorization import imported_document

from ..answering import now
from ..shelf import image
from .mirrors import CONFIG, DAY, LAYER, NAME, Mirror
from .origin import Origin

MANIFEST = image(CONFIG, LAYER)


def stock(mirror: Mirror, name: str = NAME) -> None:
    """Store an image without marking it as imported."""
    store, place = mirror.store, Repository(f"docker.io/{name}")
    for data in (CONFIG, LAYER):
        now(store.contents.add(place, Digest.of(data), ContentKind.BLOB, data))
    now(store.contents.add(place, Digest.of(MANIFEST), ContentKind.MANIFEST, MANIFEST))
    now(store.tags.put(place, Tag("latest"), Digest.of(MANIFEST)))


def say_imported(mirror: Mirror, name: str = NAME, *data: bytes) -> None:
    """Mark contents as imported, by default all."""
    for digest in (None, *map(Digest.of, data or (MANIFEST, CONFIG, LAYER))):
        now(mirror.store.documents.write(imported_document("docker", Repository(name), digest), b"1"))


@pytest.mark.parametrize("learns", [True, False])
def test_while_there_is_no_upstream(origin: Origin, mirror: Mirror, learns: bool) -> None:
    """All clients may pull them without a time limit."""
    stock(mirror)
    say_imported(mirror)
    origin.trouble = Unreachable()
    for _ in range(2):
        mirror.learns = learns
        assert mirror.docker(NAME) == [MANIFEST, CONFIG, LAYER]
        mirror.clock.advance(90 * DAY)
        mirror = mirror.restarted()


@pytest.mark.parametrize("name", ["library/another", NAME])
def test_stored_content_that_was_not_imported_is_refused(origin: Origin, mirror: Mirror, name: str) -> None:
    """By tag and by digest, also if other content of the repository was: it may be for one client only."""
    stock(mirror)
    private = b"private layer"
    say_imported(mirror, name, image(CONFIG, private), CONFIG, private)
    origin.trouble = Unreachable()
    for path in ("manifests/latest", f"manifests/{Digest.of(MANIFEST)}", f"blobs/{Digest.of(LAYER)}"):
        with pytest.raises(RegistryError):
            mirror.get(f"{NAME}/{path}")
    if name == NAME:
        assert mirror.get(f"{NAME}/blobs/{Digest.of(CONFIG)}") == CONFIG


def test_a_tag_that_has_moved(origin: Origin, mirror: Mirror) -> None:
    """Leads to what was imported only for as long as it names that."""
    stock(mirror)
    say_imported(mirror)
    place, other = Repository(f"docker.io/{NAME}"), image(CONFIG, b"private layer")
    now(mirror.store.contents.add(place, Digest.of(other), ContentKind.MANIFEST, other))
    now(mirror.store.tags.put(place, Tag("latest"), Digest.of(other)))
    origin.trouble = Unreachable()
    with pytest.raises(RegistryError):
        mirror.docker(NAME)
    assert mirror.get(f"{NAME}/manifests/{Digest.of(MANIFEST)}") == MANIFEST


def test_the_upstream_decides_while_it_answers(origin: Origin, mirror: Mirror) -> None:
    origin.shelf(NAME, {"alice"})
    stock(mirror)
    say_imported(mirror)
    with pytest.raises(RegistryError) as refused:
        mirror.docker(NAME)
    assert refused.value.status in (401, 403)
