"""What is there already, as who pushes is told."""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IRegistry
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unauthorized, Unreachable, Unsupported
from dockmirror.pullthrough.upstream_gateway import PushProbeBypass

from .images import publish
from .mirrors import Mirror, header
from .origin import Origin

NAME, LAYER = "library/busybox", b"layer"
TAG, BLOB = f"{NAME}/manifests/latest", f"{NAME}/blobs/{Digest.of(LAYER)}"


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    """One that may be written through, and has pulled an image."""
    mirror = Mirror(origin, writable=True)
    publish(origin.shelf(NAME), b"c", LAYER)
    mirror.pull(NAME)
    mirror.pull(NAME, "alice")
    origin.take()
    return mirror


@pytest.fixture
def by_digest(origin: Origin) -> str:
    """The manifest."""
    return f"{NAME}/manifests/{origin.shelf(NAME).tags['latest']}"


def test_it_is_a_registry(mirror: Mirror) -> None:
    """That is asked for tokens as before."""
    assert verifyObject(IRegistry, mirror.registry)
    assert isinstance(mirror.registry, PushProbeBypass)
    assert mirror.token("repository:a:pull,push")


def test_who_may_push(origin: Origin, mirror: Mirror, by_digest: str) -> None:
    """Is told what the upstream says, although it is held."""
    for path, who in ((BLOB, None), (by_digest, None), (TAG, "alice")):
        answer = mirror.ask(path, who, head=True)
        assert header(answer, "Cache-Status") == "dockmirror; fwd=bypass"
        assert len(origin.take()) == 1


def test_what_was_deleted_at_the_upstream(origin: Origin, mirror: Mirror, by_digest: str) -> None:
    """Is not there, although it is held."""
    origin.shelf(NAME).blobs.clear()
    origin.shelf(NAME).manifests.clear()
    for path in (BLOB, by_digest):
        (error,) = mirror.later(path, "alice", head=True)
        assert error.status == 404


def test_who_pulls(origin: Origin, mirror: Mirror, by_digest: str) -> None:
    """Is served from what is held."""
    mirror.get(BLOB)
    mirror.get(by_digest)
    mirror.ask(TAG, head=True)
    assert origin.take() == []


@pytest.mark.parametrize("trouble", [Unreachable(), Unsupported(upstream_status=405)])
def test_while_the_upstream_does_not_say(
    origin: Origin, mirror: Mirror, by_digest: str, trouble: Unreachable
) -> None:
    """What is held stands in."""
    origin.trouble = trouble
    for path in (BLOB, by_digest):
        assert mirror.ask(path, head=True).status == 200


def test_a_refusal(origin: Origin, mirror: Mirror) -> None:
    """Is one."""
    origin.shelf(NAME).readers = {"alice"}
    (error,) = mirror.later(BLOB, "bob", head=True)
    assert isinstance(error, Unauthorized)
