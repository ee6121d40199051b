"""Fixtures of the hardships, and the table of what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
from tests.integration.parts.programs import require

Record = Callable[[str, object], None]

__all__ = ["authority", "directory", "make_machine", "open_registry"]


@pytest.fixture(scope="module")
def chain(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> Iterator[Chain]:
    """A mirror that is not patient, of a registry whose every part can be meddled with."""
    require("docker-registry")
    upstream = {"timeout": 2, "connect_timeout": 2}
    with new_chain(directory("chain"), make_machine(), authority, upstream, tag_ttl=0) as parts:
        yield parts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints a row for each hardship, which its test has recorded."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.getreports(kind)]
    rows = [dict(each.user_properties) for each in reports if each.when == "call"]
    table = [(str(each["hardship"]), str(each["gets"])) for each in rows if "gets" in each]
    if table:
        width = max(len(name) for name, _ in table)
        terminalreporter.section("hardships")
        for name, gets in table:
            terminalreporter.write_line(f"{name:<{width}}  {gets}")
