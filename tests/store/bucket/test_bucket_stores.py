"""Contents, tags and documents in a bucket keep the store's contract."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import IContentStore, IDocumentStore, ITagStore
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore

from ..contract import ContentsContract, DocumentsContract, TagsContract
from .buckets import bucket


class TestContents(ContentsContract):
    """In memory."""

    @pytest.fixture
    def contents(self) -> IContentStore:
        """Empty."""
        clock = Clock()
        return BucketContentStore(bucket(clock), clock)


class TestRedirected(ContentsContract):
    """Where clients are sent to the bucket nothing is read along."""

    @pytest.fixture
    def contents(self) -> IContentStore:
        """Empty."""
        clock = Clock()
        return BucketContentStore(bucket(clock), clock, 60.0)


class TestTags(TagsContract):
    """In memory."""

    @pytest.fixture
    def tags(self, clock: Clock) -> ITagStore:
        """Empty."""
        return BucketTagStore(bucket(clock), clock)


class TestDocuments(DocumentsContract):
    """In memory."""

    @pytest.fixture
    def documents(self) -> IDocumentStore:
        """Empty."""
        return BucketDocumentStore(bucket(Clock()))
