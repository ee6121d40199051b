"""What an operator has put into the store by hand, of an upstream that may never have been there."""

from __future__ import annotations

import pytest

from dockmirror.interfaces import Kind
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError, Unreachable
from dockmirror.oci.reference import Repository, Tag
from dockmirror.pullthrough.permission import imported_document

from ..registries import now
from .images import image
from .mirrors import DAY, Mirror
from .origin import Origin

CONFIG, LAYER = b"configuration", b"layer" * 100
MANIFEST = image(CONFIG, LAYER)
NAME = "library/busybox"


def stock(mirror: Mirror, name: str = NAME) -> None:
    """Puts an image there, without a word of whose it is."""
    store, place = mirror.store, Repository(f"docker.io/{name}")
    for data in (CONFIG, LAYER):
        now(store.contents.add(place, Digest.of(data), Kind.BLOB, data))
    now(store.contents.add(place, Digest.of(MANIFEST), Kind.MANIFEST, MANIFEST))
    now(store.tags.put(place, Tag("latest"), Digest.of(MANIFEST)))


def say_imported(mirror: Mirror, name: str = NAME) -> None:
    """Says that an operator has put it there."""
    now(mirror.store.documents.write(imported_document("docker", Repository(name)), b"1"))


@pytest.mark.parametrize("learns", [True, False])
def test_while_there_is_no_upstream(origin: Origin, mirror: Mirror, learns: bool) -> None:
    """It is everybody's, for as long as it is held, wherever the upstream lies."""
    stock(mirror)
    say_imported(mirror)
    origin.trouble = Unreachable()
    for _ in range(2):
        mirror.learns = learns
        assert mirror.docker(NAME) == [MANIFEST, CONFIG, LAYER]
        mirror.clock.advance(90 * DAY)
        mirror = mirror.restarted()


def test_what_was_not_imported(origin: Origin, mirror: Mirror) -> None:
    """Is nobody's, although it is held."""
    stock(mirror)
    say_imported(mirror, "library/another")
    origin.trouble = Unreachable()
    with pytest.raises(RegistryError):
        mirror.docker(NAME)


def test_while_the_upstream_answers(origin: Origin, mirror: Mirror) -> None:
    """It says who may have it."""
    origin.shelf(NAME, {"alice"})
    stock(mirror)
    say_imported(mirror)
    with pytest.raises(RegistryError) as refused:
        mirror.docker(NAME)
    assert refused.value.status in (401, 403)
