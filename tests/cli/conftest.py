"""Fixtures for the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from .shop import Shop, stocked


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return a store with images."""
    return stocked(tmp_path / "cache")


@pytest.fixture
def archive(shop: Shop, tmp_path: Path) -> Path:
    """Return an archive of one image."""
    shop.run("export", "nginx:1.27", "-o", str(tmp_path / "nginx.tar"))
    return tmp_path / "nginx.tar"


@pytest.fixture
def empty(tmp_path: Path) -> Shop:
    """Return a store without images."""
    return Shop(tmp_path / "empty")
