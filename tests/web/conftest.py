"""The mirror in front of the well-known registries."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from tests.house import House
from tests.internet import Internet


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    return House(internet)
