"""The store in memory that other tests use keeps the contract."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import IContentStore, IDocumentStore, ITagStore

from .contract import ContentsContract, DocumentsContract, TagsContract
from .memory import MemoryContents, MemoryDocuments, MemoryTags


class TestContents(ContentsContract):
    @pytest.fixture
    def contents(self) -> IContentStore:
        return MemoryContents()


class TestTags(TagsContract):
    @pytest.fixture
    def tags(self, clock: Clock) -> ITagStore:
        return MemoryTags(clock)


class TestDocuments(DocumentsContract):
    @pytest.fixture
    def documents(self) -> IDocumentStore:
        return MemoryDocuments()
