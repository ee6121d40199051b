"""A mirror may be killed at any of its steps in a bucket."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from obstore.store import MemoryStore, ObjectStore

from .crashing import CrashContract


class TestInMemory(CrashContract):
    """In memory."""

    @pytest.fixture
    def new_store(self) -> Callable[[], ObjectStore]:
        """Makes an empty bucket."""
        return MemoryStore
