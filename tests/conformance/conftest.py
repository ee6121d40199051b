"""The registries to which the cases are put."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPException

import pytest

from tests.integration.conftest import MakeDirectory, directory, open_registry
from tests.integration.parts.plain import PlainClient
from tests.integration.parts.registry import Registry

from .asked import Asked
from .complete import Complete

__all__ = ["MakeDirectory", "directory", "open_registry"]

FAILS = (AssertionError, HTTPException)


def pytest_configure(config: pytest.Config) -> None:
    """Adds the mark of cases that some registry fails by itself."""
    config.addinivalue_line("markers", "lacks(registry, what): the registry by itself fails the case")


@pytest.fixture(scope="session")
def complete() -> Iterator[Complete]:
    """The registry that lacks nothing."""
    with Complete() as server:
        yield server


@pytest.fixture(params=["distribution", "complete"])
def registry(request: pytest.FixtureRequest, open_registry: Registry, complete: Complete) -> Asked:
    """Debian's docker-registry, and the one that lacks nothing.

    A case that a registry fails by itself is marked with what it lacks, and has to fail then.
    """
    for lack in request.node.iter_markers("lacks"):
        if lack.args[0] == request.param:
            request.applymarker(pytest.mark.xfail(reason=lack.args[1], raises=FAILS, strict=True))
    url = open_registry.url if request.param == "distribution" else complete.url
    return Asked(PlainClient(url), re.sub("[^a-z]+", "-", request.node.name.removeprefix("test_")).strip("-"))
