"""Fixtures of the hardships, and the table of what came of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import (
    MakeDirectory,
    MakeMachine,
    authority,
    directory,
    make_machine,
    open_registry,
)
from tests.integration.parts.authority import Authority
from tests.integration.parts.chain import Chain, new_chain
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.programs import require
from tests.integration.parts.registry import Registry

from .load import REPOSITORY
from .rows import Record, name_of, write_table

MIB = 1024 * 1024

__all__ = ["authority", "directory", "make_machine", "open_registry"]


@pytest.fixture(scope="module")
def chain(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> Iterator[Chain]:
    """A mirror with short timeouts, of a registry whose every part can be made to fail."""
    require("docker-registry")
    upstream = {"timeout": 2, "connect_timeout": 2, "writes": True}
    with new_chain(directory("chain"), make_machine(), authority, upstream, tag_ttl=0) as parts:
        yield parts


@pytest.fixture(scope="session")
def images(open_registry: Registry) -> list[Image]:
    """Small and larger ones, 42 MiB in all, which lie in :data:`REPOSITORY`."""
    pushed = [artifact(f"machine {number}", size=(number % 4 * 4 + 1) * MIB // 2) for number in range(12)]
    for number, each in enumerate(pushed):
        open_registry.push(REPOSITORY, each, f"t{number}")
    return pushed


@pytest.fixture
def mirror(tmp_path: Path, make_machine: MakeMachine, open_registry: Registry) -> Mirror:
    """A mirror of two processes, which is not started yet; its cache is too small for what is pulled."""
    upstreams = {"open": {"url": open_registry.url}}
    return Mirror(tmp_path, make_machine(), upstreams, workers=2, grace=20, cache_size="20MB")


@pytest.fixture
def came(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Record:
    """Says what came of the test's row."""
    record_property("hardship", name_of(request.node))
    return lambda gets: record_property("gets", str(gets))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints a row for each hardship, and keeps it where ``HARDSHIP_TABLE`` is set."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.getreports(kind)]
    rows = [dict(each.user_properties) for each in reports if each.when == "call"]
    table = {str(each["hardship"]): str(each["gets"]) for each in rows if "gets" in each}
    if not table:
        return
    width = max(map(len, table))
    terminalreporter.section("hardships")
    for name, gets in table.items():
        terminalreporter.write_line(f"{name:<{width}}  {gets}")
    if os.environ.get("HARDSHIP_TABLE"):
        write_table(table)
