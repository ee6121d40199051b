"""Tests of ``dockmirror check`` without a network."""

from __future__ import annotations

from .shop import Shop


def test_an_unknown_upstream_is_refused(shop: Shop) -> None:
    """The message lists the upstreams that exist."""
    refused = shop.run("check", "docker", "nothing", code=2).output
    assert "there is no upstream nothing" in refused
    assert "quay" in refused
