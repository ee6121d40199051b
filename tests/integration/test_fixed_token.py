"""Requests of clients that hard-code their registry and send a fixed token, as Homebrew does to ghcr.io."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import MakeChain
from .parts.clients import curl
from .parts.images import image
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.registry import Registry
from .pulls import succeeded

pytestmark = pytest.mark.integration


@pytest.fixture
def mirror(chains: MakeChain, open_registry: Registry) -> Iterator[Mirror]:
    """A mirror of a registry that stands for ghcr.io."""
    with chains(others={"ghcr": {"url": open_registry.url}}) as chain:
        yield chain.mirror


@pytest.mark.parametrize("token", [None, "QQ=="])
def test_a_bottle(
    mirror: Mirror, open_registry: Registry, skopeo_machine: Machine, token: str | None
) -> None:
    """The address that HOMEBREW_ARTIFACT_DOMAIN makes of a bottle's gives the bottle, whatever the token."""
    pushed = image(f"bottle {token}")
    open_registry.push("homebrew/core/jq", pushed, "latest")
    layer = pushed.layers[0]
    bottle = f"https://ghcr.io/v2/homebrew/core/jq/blobs/{layer.digest}"
    url = bottle.replace("https://ghcr.io/", f"http://{mirror.host()}/ghcr.io/")
    target = skopeo_machine.home / "bottle"
    header = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    succeeded(curl(skopeo_machine, "--fail", "--location", *header, "--output", str(target), url))
    assert target.read_bytes() == layer.data
