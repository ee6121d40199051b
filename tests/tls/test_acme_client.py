"""An authority that is asked by ACME; ``tests/integration/test_acme.py`` has a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.tls.acme_client import AcmeClient
from dockmirror.tls.acme_renewal import AcmeStore, AuthorityUnavailable


def test_an_account_that_is_broken(tmp_path: Path) -> None:
    """A broken account key is reported and not replaced, since the authority knows it."""
    kept = AcmeStore(tmp_path)
    kept.account_key(lambda: b"nonsense")
    authority = AcmeClient("https://authority.example", "a@m.example", None, kept)
    with pytest.raises(AuthorityUnavailable, match=f"the account's key in {tmp_path}/acme cannot be read"):
        authority.issue("m.example")
    assert kept.account_key(lambda: b"another") == b"nonsense"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory that cannot be written is reported before the authority is asked."""
    (tmp_path / "file").write_bytes(b"")
    authority = AcmeClient("https://authority.example", "a@m.example", None, AcmeStore(tmp_path / "file"))
    with pytest.raises(AuthorityUnavailable, match="Not a directory"):
        authority.issue("m.example")
