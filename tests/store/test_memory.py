"""The store in memory, which other tests use, keeps the contract."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import IContentStore, IDocumentStore, ITagStore

from .contract import ContentsContract, DocumentsContract, TagsContract
from .memory import MemoryContents, MemoryDocuments, MemoryTags


class TestContents(ContentsContract):
    """In a dictionary."""

    @pytest.fixture
    def contents(self) -> IContentStore:
        """Empty."""
        return MemoryContents()


class TestTags(TagsContract):
    """In a dictionary."""

    @pytest.fixture
    def tags(self, clock: Clock) -> ITagStore:
        """Empty."""
        return MemoryTags(clock)


class TestDocuments(DocumentsContract):
    """In a dictionary."""

    @pytest.fixture
    def documents(self) -> IDocumentStore:
        """Empty."""
        return MemoryDocuments()
