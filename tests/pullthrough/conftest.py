"""One upstream and one mirror of it."""

from __future__ import annotations

import pytest

from .mirrors import CONFIG, LAYER, Mirror
from .origin import Origin


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    return Mirror(origin)


@pytest.fixture
def manifest(origin: Origin) -> bytes:
    """Publish one image twice: for everybody, and privately for alice and bob."""
    origin.shelf("me/private", {"alice", "bob"}).publish(CONFIG, LAYER)
    return origin.shelf("library/busybox").publish(CONFIG, LAYER)


@pytest.fixture
def warm(origin: Origin, mirror: Mirror, manifest: bytes) -> Mirror:
    """A mirror that has served the public image anonymously and the private one to alice."""
    mirror.docker("library/busybox")
    mirror.pull("me/private", "alice")
    origin.take()
    return mirror
