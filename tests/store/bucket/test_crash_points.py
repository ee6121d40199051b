"""A mirror may be killed at any of its requests to a bucket."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from obstore.store import MemoryStore, ObjectStore

from .crashing import CrashContract


class TestInMemory(CrashContract):
    @pytest.fixture
    def new_store(self) -> Callable[[], ObjectStore]:
        return MemoryStore
