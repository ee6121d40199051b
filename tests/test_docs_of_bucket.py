"""Each row of the table of what the bucket is asked has a test that counts."""

from __future__ import annotations

from .bucket_table import read_table, rows_of
from .integration import test_shared_store
from .pullthrough import test_bucket_requests
from .store import test_tag_history


def test_documented() -> None:
    """The rows are those of the tests."""
    modules = test_bucket_requests, test_shared_store, test_tag_history
    rows = [rows_of(module) for module in modules]
    assert read_table() == {what: requests for each in rows for what, requests in each.items()}
