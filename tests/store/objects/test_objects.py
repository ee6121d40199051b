"""Contents, tags and documents in a bucket keep the store's contract."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import IContents, IDocuments, ITags
from dockmirror.store.objects.contents import ObjectContents
from dockmirror.store.objects.documents import ObjectDocuments
from dockmirror.store.objects.tags import ObjectTags

from ..contract import ContentsContract, DocumentsContract, TagsContract
from .buckets import bucket


class TestContents(ContentsContract):
    """In memory."""

    @pytest.fixture
    def contents(self) -> IContents:
        """Empty."""
        clock = Clock()
        return ObjectContents(bucket(clock), clock)


class TestRedirected(ContentsContract):
    """Where clients are sent to the bucket nothing is read along."""

    @pytest.fixture
    def contents(self) -> IContents:
        """Empty."""
        clock = Clock()
        return ObjectContents(bucket(clock), clock, 60.0)


class TestTags(TagsContract):
    """In memory."""

    @pytest.fixture
    def tags(self, clock: Clock) -> ITags:
        """Empty."""
        return ObjectTags(bucket(clock), clock)


class TestDocuments(DocumentsContract):
    """In memory."""

    @pytest.fixture
    def documents(self) -> IDocuments:
        """Empty."""
        return ObjectDocuments(bucket(Clock()))
