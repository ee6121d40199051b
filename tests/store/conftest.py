"""Fixtures of the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.store.store_directory import prepare_directory

from ..integration.parts.programs import require
from ..integration.parts.seaweed import WEED, SeaweedFS
from ..stacks import logged
from .stocked import Stocked


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    require(WEED)
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Stocked:
    prepare_directory(tmp_path)
    return Stocked(tmp_path)


@pytest.fixture
def log() -> Iterator[list[str]]:
    with logged() as texts:
        yield texts
