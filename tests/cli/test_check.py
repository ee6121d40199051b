"""``dockmirror check``, as far as it asks nobody."""

from __future__ import annotations

from .shop import Shop


def test_unknown(shop: Shop) -> None:
    """What is no upstream is refused, with what there is."""
    refused = shop.run("check", "docker", "nothing", code=2).output
    assert "nothing is no upstream" in refused
    assert "quay" in refused
