"""Each row of the table of what the bucket is asked has a test that counts."""

from __future__ import annotations

from .bucket_table import read_table, rows_of
from .integration import test_shared_store
from .pullthrough import test_bucket_requests


def test_documented() -> None:
    """The rows are those of the tests."""
    assert read_table() == {**rows_of(test_bucket_requests), **rows_of(test_shared_store)}
