"""One upstream and one mirror of it."""

from __future__ import annotations

import pytest

from .mirrors import Mirror
from .origin import Origin


@pytest.fixture
def origin() -> Origin:
    """Has nothing yet."""
    return Origin()


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    """Holds nothing yet."""
    return Mirror(origin)
