"""Content from fallback registries: stored as usual, without effect on grants."""

from __future__ import annotations

from math import inf

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import TooManyRequests, Unauthorized, Unreachable
from dockmirror.oci.request import Repository

from ..answering import now
from .mirrors import Mirror, body, header
from .origin import Origin

CONFIG, LAYER, MORE = b"configuration", b"layer" * 100, b"more" * 100
NAME, SECRET = "library/busybox", "team/secret"
BLOB = f"{NAME}/blobs/{Digest.of(LAYER)}"
OUTAGES = [Unreachable("down"), TooManyRequests("enough", retry_after="3600")]
each_outage = pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)


@pytest.fixture
def other() -> Origin:
    """Another registry with an image of the same name and one more layer."""
    other = Origin()
    other.shelf(NAME).publish(CONFIG, LAYER, MORE)
    return other


@pytest.fixture
def mirror(origin: Origin, other: Origin) -> Mirror:
    origin.shelf(NAME).publish(CONFIG, LAYER)
    return Mirror(origin, others=[other])


@each_outage
def test_a_blob_of_a_fallback_is_stored(
    origin: Origin, other: Origin, mirror: Mirror, outage: Unreachable
) -> None:
    mirror.get(f"{NAME}/manifests/latest")
    origin.trouble = outage
    answers = [mirror.ask(BLOB) for _ in range(2)]
    assert [body(answer) for answer in answers] == [LAYER] * 2
    assert [header(answer, "Cache-Status") for answer in answers] == [
        "dockmirror; fwd=miss; stored",
        "dockmirror; hit",
    ]
    assert other.take() == [f"nobody: GET {BLOB}"]


@each_outage
def test_fallbacks_answer_during_an_outage_of_the_first(mirror: Mirror, outage: Unreachable) -> None:
    """Also after failures of a tag, and of a content that no fallback has."""
    mirror.origin.trouble = outage
    missing = f"{NAME}/blobs/{Digest.of(b'missing')}"
    for path in (f"{NAME}/manifests/latest", missing):
        with pytest.raises(type(outage)):
            mirror.ask(path)
    assert mirror.get(BLOB) == LAYER
    assert mirror.get(f"{NAME}/blobs/{Digest.of(MORE)}") == MORE


def test_while_all_are_down_nobody_waits(origin: Origin, other: Origin, mirror: Mirror) -> None:
    """Each is asked once; and it is an outage, which what is held stands in for."""
    mirror.docker(NAME)
    origin.trouble, other.trouble = Unreachable("down"), Unreachable("down, too")
    manifests = [f"{NAME}/manifests/{Digest.of(each)}" for each in (b"1", b"2")]
    for path in manifests * 2:
        with pytest.raises(Unreachable, match=r"down$"):
            mirror.ask(path)
    assert other.take() == [f"nobody: GET {manifests[0]}"]
    assert mirror.docker(NAME)[1:] == [CONFIG, LAYER]


def test_a_fallback_grants_nothing(origin: Origin, other: Origin, mirror: Mirror) -> None:
    """Private content stays private, although a fallback gives the same name to everybody."""
    alices = origin.shelf(SECRET, ["alice"]).publish(b"hers", LAYER)
    theirs = other.shelf(SECRET).publish(CONFIG, MORE)
    mirror.pull(SECRET, "alice")
    origin.trouble = Unreachable()
    assert mirror.get(f"{SECRET}/manifests/{Digest.of(theirs)}") == theirs
    assert now(mirror.public.age(Repository(SECRET))) == inf
    for path in (f"manifests/{Digest.of(alices)}", "manifests/latest", f"blobs/{Digest.of(b'hers')}"):
        with pytest.raises(Unreachable):
            mirror.ask(f"{SECRET}/{path}")
    mirror.clock.advance(3600)
    origin.trouble = None
    with pytest.raises(Unauthorized):
        mirror.ask(f"{SECRET}/manifests/{Digest.of(alices)}")


def test_content_of_a_fallback_is_served_during_the_outage(other: Origin, mirror: Mirror) -> None:
    """The fallback is asked for consent to stored content; later the registry itself decides."""
    theirs = other.shelf(SECRET).publish(CONFIG, MORE)
    mirror.origin.shelf(SECRET, ["alice"])
    mirror.origin.trouble = Unreachable()
    paths = [f"{SECRET}/manifests/{Digest.of(theirs)}", f"{SECRET}/blobs/{Digest.of(MORE)}"]
    for methods in (("GET", "GET"), ("HEAD", "CHECK")):
        assert [mirror.get(path) for path in paths] == [theirs, MORE]
        asked = zip(methods, paths, strict=True)
        assert other.take() == [f"nobody: {method} {path}" for method, path in asked]
    mirror.clock.advance(3600)
    mirror.origin.trouble = None
    for path in paths:
        with pytest.raises(Unauthorized):
            mirror.ask(path)


def test_credentials_are_sent_to_no_fallback(origin: Origin, other: Origin, mirror: Mirror) -> None:
    origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        mirror.ask(BLOB, "alice")
    assert other.take() == []
