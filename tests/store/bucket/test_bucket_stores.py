"""The stores in a bucket keep the contract."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import IContentStore, IDocumentStore, ITagStore
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore

from ..contract import ContentsContract, DocumentsContract, TagsContract
from .buckets import bucket


class TestContents(ContentsContract):
    @pytest.fixture
    def contents(self) -> IContentStore:
        clock = Clock()
        return BucketContentStore(bucket(clock), clock)


class TestRedirected(ContentsContract):
    """Contents of a mirror that redirects clients to the bucket."""

    @pytest.fixture
    def contents(self) -> IContentStore:
        clock = Clock()
        return BucketContentStore(bucket(clock), clock, 60.0)


class TestTags(TagsContract):
    @pytest.fixture
    def tags(self, clock: Clock) -> ITagStore:
        return BucketTagStore(bucket(clock), clock)


class TestDocuments(DocumentsContract):
    @pytest.fixture
    def documents(self) -> IDocumentStore:
        return BucketDocumentStore(bucket(Clock()))
