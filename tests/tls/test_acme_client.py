"""An authority that is asked by ACME; ``tests/integration/test_acme.py`` has a real one."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

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


class _OtherService(BaseHTTPRequestHandler):
    """Answers each request with JSON that is no ACME directory, or with an error that has no description."""

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/error" else 200)
        self.end_headers()
        self.wfile.write({"/object": b"{}", "/list": b"[]"}.get(self.path, b"unavailable"))

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("object", "the answer is no ACME directory"),
        ("list", "the answer is no ACME directory"),
        ("error", "503 Service Unavailable"),
    ],
)
def test_another_service_than_an_authority_is_reported(tmp_path: Path, path: str, reason: str) -> None:
    store = AcmeStore(tmp_path)
    with HTTPServer(("127.0.0.1", 0), _OtherService) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{path}"
        authority = AcmeClient(url, "a@m.example", None, store, store.publish_proofs)
        with pytest.raises(AuthorityUnavailable, match=f"{url}: {reason}"):
            authority.issue("m.example")
