"""A mirror whose upstream is another mirror."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.accounts import ALICE
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.images import index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .pulls import refused, skopeo_pulls

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def outer(chains: MakeChain) -> Iterator[Chain]:
    """The mirror that reaches the registry."""
    with chains() as chain:
        yield chain


@pytest.fixture(scope="module")
def inner(outer: Chain, directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """The mirror that reaches only the other one, by its virtual host, as the document's settings say."""
    docker: dict[str, Any] = {"url": f"http://{outer.mirror.host('docker')}"}
    with Mirror(directory("inner"), make_machine(), {"docker": docker}) as mirror:
        yield mirror
    assert mirror.failures() == ""


def test_public(outer: Chain, inner: Mirror, skopeo_machine: Machine) -> None:
    """A public image comes through both, is kept by both, and is served when the outer mirror is gone."""
    pushed = index("chained")
    outer.registry.push("library/chained", pushed, "latest")
    for reference in (
        f"{inner.host('docker')}/chained:latest",
        f"{inner.host()}/docker.io/library/chained:latest",
    ):
        skopeo_pulls(skopeo_machine, reference, pushed)
    asked = len(outer.asked())
    with outer.mirror.killed():
        skopeo_pulls(skopeo_machine, f"{inner.host('docker')}/chained:latest", pushed)
    assert len(outer.asked()) == asked


def test_private(outer: Chain, inner: Mirror, skopeo_machine: Machine) -> None:
    """A login passes through both; who has none is refused."""
    pushed = index("chained private")
    outer.registry.push("private/chained", pushed, "latest")
    reference = f"{inner.host('docker')}/private/chained:latest"
    skopeo_pulls(skopeo_machine, reference, pushed, ALICE)
    refused(
        skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{reference}"),
        "denied",
        "unauthorized",
    )
