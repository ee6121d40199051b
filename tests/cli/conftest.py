"""Fixtures for the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from .shop import Shop, stocked


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return a store with images."""
    return stocked(tmp_path / "cache")
