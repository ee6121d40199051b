"""How many files and connections may be open."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from dockmirror.system.connection_limit import raise_connection_limit


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised() -> None:
    """As far as it may be; there is room for a third of it, less what the mirror itself has open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    room = raise_connection_limit()
    soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert after == hard
    assert soft == min(hard, 1_000_000)
    assert room == (soft - 64) // 3
