"""Images pushed through the mirror arrive as they were sent, and are there at once for everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .parts.accounts import PUBLISHER, Account
from .parts.authority import Authority
from .parts.images import Image, artifact, image, index
from .parts.machine import Machine
from .parts.media import DOCKER, OCI
from .parts.mirror import Mirror
from .parts.plain import PlainClient
from .parts.registry import Registry
from .parts.tokens import Tokens

pytestmark = pytest.mark.integration

MakeMachine = Callable[..., Machine]


@pytest.fixture(scope="module")
def pushed_through(
    directory: Callable[[str], Path],
    make_machine: MakeMachine,
    authority: Authority,
    tokens: Tokens,
    token_registry: Registry,
    basic_registry: Registry,
    open_registry: Registry,
) -> Iterator[Mirror]:
    """A mirror of two processes that lets clients write to registries of every kind."""
    upstreams: dict[str, dict[str, Any]] = {
        "direct": {"url": token_registry.url, "realms": [tokens.url], "writes": True},
        "basic": {"url": basic_registry.url, "writes": True},
        "open": {"url": open_registry.url, "writes": True},
        "closed": {"url": open_registry.url},
    }
    keys = {"keys": str(directory("state") / "keys")}
    with Mirror(directory("mirror"), make_machine(), upstreams, workers=2, access=keys) as process:
        yield process
    assert process.failures() == ""


@pytest.fixture(params=["direct", "basic", "open"])
def named(request: pytest.FixtureRequest) -> str:
    """The upstreams that may be written to."""
    return str(request.param)


def account(named: str) -> Account | None:
    """Who may push there."""
    return {"direct": PUBLISHER, "basic": Account("alice", "alice-secret"), "open": None}[named]


def registry(named: str, request: pytest.FixtureRequest) -> PlainClient:
    """The registry itself."""
    of = {"direct": "token_registry", "basic": "basic_registry", "open": "open_registry"}[named]
    return PlainClient(request.getfixturevalue(of).url, account(named))


def same(image: Image, client: PlainClient, repository: str, *tags: str) -> None:
    """All that belongs to it is to be had, byte for byte."""
    for reference in (*tags, image.digest):
        assert client.manifest(repository, reference).body == image.manifest.data
    for blob in image.blobs:
        assert client.blob(repository, blob.digest).body == blob.data
    for child in image.children:
        same(child, client, repository)


@pytest.mark.parametrize("kind", ["schema2", "oci", "index", "artifact"])
def test_every_kind_of_image(
    pushed_through: Mirror, named: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Arrives at every kind of registry, and is to be had through the mirror as from there."""
    subject = image(f"push {named}", OCI)
    pushed = {
        "schema2": image(f"push {kind}", DOCKER), "oci": subject, "index": index(f"push {named}"),
        "artifact": artifact(f"push {named}", subject),
    }[kind]  # fmt: skip
    client = pushed_through.client(named, account(named))
    client.push(f"pushed/{kind}", pushed, "latest")
    same(pushed, registry(named, request), f"pushed/{kind}", "latest")
    same(pushed, client, f"pushed/{kind}", "latest")
