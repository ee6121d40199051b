"""The registries to which the cases are put, and the mirrors in front of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPException

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine, directory, make_machine, open_registry
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.plain import PlainClient
from tests.integration.parts.registry import Registry

from .asked import Answered, Asked
from .complete import Complete

__all__ = ["directory", "make_machine", "open_registry"]

FAILS = (AssertionError, HTTPException)
Transcripts = dict[str, list[Answered]]


def pytest_configure(config: pytest.Config) -> None:
    """Adds the mark of cases that some registry fails by itself."""
    config.addinivalue_line("markers", "lacks(registry, what, sometimes=False): the registry by itself fails")


@pytest.fixture(scope="session")
def complete() -> Iterator[Complete]:
    """The registry that lacks nothing."""
    with Complete() as server:
        yield server


Mirrors = dict[str, Mirror]


@pytest.fixture(scope="session")
def mirrors(
    directory: MakeDirectory, make_machine: MakeMachine, open_registry: Registry, complete: Complete
) -> Iterator[Mirrors]:
    """Mirrors of both through which one may push, by what is kept."""
    upstreams = {
        "distribution": {"url": open_registry.url, "writes": True},
        "complete": {"url": complete.url, "writes": True},
    }
    with ExitStack() as stack:
        mirrors = {
            name: stack.enter_context(Mirror(directory("mirror"), make_machine(), upstreams, cache_size=size))
            for name, size in (("through a relay", "0"), ("through a cache", "10GB"))
        }
        yield mirrors
    assert [each.failures() for each in mirrors.values()] == [""] * len(mirrors)


@pytest.fixture(scope="session")
def transcripts() -> Transcripts:
    """The registries' direct responses by case."""
    return {}


@pytest.fixture(params=["distribution", "complete"])
def upstream(request: pytest.FixtureRequest) -> str:
    """The registry behind: Debian's docker-registry, or the one that lacks nothing."""
    name: str = request.param
    return name


@pytest.fixture(params=["directly", "through a relay", "through a cache"])
def registry(
    request: pytest.FixtureRequest,
    upstream: str,
    open_registry: Registry,
    complete: Complete,
    mirrors: Mirrors,
    transcripts: Transcripts,
) -> Iterator[Asked]:
    """The registry itself, and mirrors of it, whose responses have to be the same.

    A case that it fails by itself is marked with what it lacks.  The mirror may do better, and not worse.
    """
    case, direct = request.node.name.replace(request.param, ""), request.param == "directly"
    name = re.sub("[^a-z]+", "-", case.removeprefix("test_")).strip("-")
    for lack in request.node.iter_markers("lacks"):
        if lack.args[0] == upstream:
            strict = direct and not lack.kwargs.get("sometimes")
            request.applymarker(pytest.mark.xfail(reason=lack.args[1], raises=FAILS, strict=strict))
    if direct:
        url = open_registry.url if upstream == "distribution" else complete.url
        asked = Asked(PlainClient(url), f"direct/{name}")
        yield asked
        transcripts[f"{request.node.module.__name__} {case}"] = asked.answers
    else:
        asked = Asked(mirrors[request.param].client(upstream), f"{request.param.split()[-1]}/{name}")
        yield asked
        answers = transcripts.get(f"{request.node.module.__name__} {case}", [])
        assert len(answers) <= len(asked.answers)
        for directly, mirrored in zip(answers, asked.answers, strict=False):
            assert directly.is_kept_by(mirrored)
