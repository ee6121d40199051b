"""One upstream and one mirror of it."""

from __future__ import annotations

import pytest

from .images import publish
from .mirrors import Mirror
from .origin import Origin


@pytest.fixture
def origin() -> Origin:
    """Has nothing yet."""
    return Origin()


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    """Holds nothing yet."""
    return Mirror(origin)


@pytest.fixture
def manifest(origin: Origin) -> bytes:
    """What a public tag names; another repository is one that alice and bob may pull from."""
    publish(origin.shelf("me/private", {"alice", "bob"}), b"configuration", b"layer" * 100)
    return publish(origin.shelf("library/busybox"), b"configuration", b"layer" * 100)


@pytest.fixture
def warm(origin: Origin, mirror: Mirror, manifest: bytes) -> Mirror:
    """A mirror through which everybody has pulled the one, and alice the other."""
    mirror.docker("library/busybox")
    mirror.pull("me/private", "alice")
    origin.take()
    return mirror
