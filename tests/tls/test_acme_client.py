"""An authority that is asked by ACME; ``tests/integration/test_acme.py`` has a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.tls.acme_client import AcmeClient
from dockmirror.tls.acme_renewal import AcmeStore, AuthorityUnavailable


def test_a_broken_account_key_is_reported_and_not_replaced(tmp_path: Path) -> None:
    """The authority knows it."""
    store = AcmeStore(tmp_path)
    store.account_key(lambda: b"nonsense")
    authority = AcmeClient("https://authority.example", "a@m.example", None, store, store.publish_proofs)
    with pytest.raises(AuthorityUnavailable, match=f"the account's key in {tmp_path}/acme cannot be read"):
        authority.issue("m.example")
    assert store.account_key(lambda: b"another") == b"nonsense"


def test_a_directory_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """Before the authority is asked."""
    (tmp_path / "file").write_bytes(b"")
    store = AcmeStore(tmp_path / "file")
    authority = AcmeClient("https://authority.example", "a@m.example", None, store, store.publish_proofs)
    with pytest.raises(AuthorityUnavailable, match="Not a directory"):
        authority.issue("m.example")
