"""Existence checks of pushes go upstream."""

from __future__ import annotations

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unauthorized, Unreachable, Unsupported
from dockmirror.pullthrough.upstream_gateway import PushProbeBypass

from .mirrors import Mirror, header
from .origin import Origin

NAME, LAYER = "library/busybox", b"layer"
TAG, BLOB = f"{NAME}/manifests/latest", f"{NAME}/blobs/{Digest.of(LAYER)}"


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    """A writable mirror that has pulled an image."""
    mirror = Mirror(origin, writable=True)
    origin.shelf(NAME).publish(b"c", LAYER)
    mirror.pull(NAME)
    mirror.pull(NAME, "alice")
    origin.take()
    return mirror


@pytest.fixture
def by_digest(origin: Origin) -> str:
    return f"{NAME}/manifests/{origin.shelf(NAME).tags['latest']}"


def test_a_push_gets_its_token(mirror: Mirror) -> None:
    assert isinstance(mirror.registry, PushProbeBypass)
    assert mirror.token("repository:a:pull,push")


def test_existence_checks_go_upstream(origin: Origin, mirror: Mirror, by_digest: str) -> None:
    """The cache does not answer, although it holds the content."""
    for path, who in ((BLOB, None), (by_digest, None), (TAG, "alice")):
        answer = mirror.ask(path, who, head=True)
        assert header(answer, "Cache-Status") == "dockmirror; fwd=bypass"
        assert len(origin.take()) == 1


def test_the_upstream_decides_what_exists(origin: Origin, mirror: Mirror, by_digest: str) -> None:
    """A push will not leave out content that was deleted there; a refusal is passed on."""
    origin.shelf(NAME).blobs.clear()
    origin.shelf(NAME).manifests.clear()
    for path in (BLOB, by_digest):
        (error,) = mirror.later(path, "alice", head=True)
        assert error.status == 404
    origin.shelf(NAME).readers = {"alice"}
    (error,) = mirror.later(BLOB, "bob", head=True)
    assert isinstance(error, Unauthorized)


def test_pulls_are_served_from_the_cache(origin: Origin, mirror: Mirror, by_digest: str) -> None:
    """A HEAD of a tag without credentials is a pull."""
    mirror.get(BLOB)
    mirror.get(by_digest)
    mirror.ask(TAG, head=True)
    assert origin.take() == []


@pytest.mark.parametrize("trouble", [Unreachable(), Unsupported(upstream_status=405)])
def test_the_cache_answers_during_an_outage(mirror: Mirror, by_digest: str, trouble: Unreachable) -> None:
    mirror.origin.trouble = trouble
    for path in (BLOB, by_digest):
        assert mirror.ask(path, head=True).status == 200
