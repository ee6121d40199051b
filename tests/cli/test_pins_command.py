"""Tests of ``dockmirror pin``, ``unpin`` and ``pins``."""

from __future__ import annotations

import os

from dockmirror.oci.digest import Digest
from dockmirror.store import layout

from .shop import AMD, INDEX, USED, Shop


def test_an_image_is_pinned_until_it_is_unpinned(shop: Shop) -> None:
    """Any form of the name works, and the image need not be in the cache."""
    assert "no image is pinned" in shop.run("pins").stderr
    shop.run("pin", "nginx", "docker.io/library/debian:12", "--platform", "linux/amd64")
    shop.run("pin", f"nginx@{Digest.of(AMD)}")
    assert [(each["image"], each["platforms"]) for each in shop.json("pins")] == [
        ("docker.io/library/debian:12", ["linux/amd64"]),
        ("docker.io/library/nginx:latest", ["linux/amd64"]),
        (f"docker.io/library/nginx@{Digest.of(AMD)}", []),
    ]
    shop.run("unpin", "docker.io/nginx:latest", "debian:12")
    assert len(shop.json("pins")) == 1


def test_pins_show_when_each_was_refreshed(shop: Shop) -> None:
    """The time is that of the last refresh."""
    shop.run("pin", "nginx")
    assert shop.json("pins")[0]["refreshed"] is None
    assert "not yet" in shop.run("pins").output
    for path in (shop.root / layout.PINS).iterdir():
        os.utime(path, (USED, USED))
    assert shop.json("pins")[0]["refreshed"] == "2026-09-21T14:13:20Z"


def test_invalid_names_and_unknown_pins_are_refused(shop: Shop) -> None:
    """The other images of the same command are unpinned nevertheless."""
    shop.run("pin", "Nginx", code=2)
    shop.run("pin", "nginx", "--platform", "linux", code=2)
    shop.run("pin", "nginx")
    assert "debian:latest: not pinned" in shop.run("unpin", "debian", "nginx", code=1).output
    assert shop.json("pins") == []


def test_a_pinned_image_is_not_evicted(shop: Shop) -> None:
    """The garbage collection keeps it."""
    shop.run("pin", "nginx:1.27")
    shop.run("gc", environ={"DOCKMIRROR_CACHE_SIZE": "1B"})
    assert not shop.path(Digest.of(INDEX)).exists()
    assert shop.path(Digest.of(AMD)).exists()
