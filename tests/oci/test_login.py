"""What an account logs in with, and how it asks for tokens."""

from __future__ import annotations

from dockmirror.oci.credentials import Credentials
from dockmirror.oci.login import Login
from dockmirror.oci.scope import pull_scope
from dockmirror.oci.token import TokenRequest

SCOPE = pull_scope("team/app")
PASSWORD = Login(Credentials.basic("alice", "s3cret"))
IDENTITY = Login(None, "r3fresh")


def test_a_password() -> None:
    """Is sent in ``Authorization``."""
    assert PASSWORD.token_request(SCOPE) == TokenRequest((SCOPE,), credentials=PASSWORD.credentials)


def test_an_identity_token() -> None:
    """Is a refresh token, sent in a form; that is a secret."""
    request = IDENTITY.token_request(SCOPE)
    assert (request.form, request.credentials, request.is_anonymous) == (True, None, False)
    assert dict(request.pairs("registry")) == {
        "service": "registry",
        "scope": "repository:team/app:pull",
        "grant_type": "refresh_token",
        "client_id": "dockmirror",
        "refresh_token": "r3fresh",
    }


def test_nothing() -> None:
    """Is anybody's."""
    assert Login().token_request(SCOPE) == TokenRequest((SCOPE,))
    assert Login().token_request(SCOPE).is_anonymous


def test_it_does_not_show() -> None:
    """Neither of them."""
    shown = repr([PASSWORD, IDENTITY, IDENTITY.token_request(SCOPE)])
    assert "s3cret" not in shown
    assert "r3fresh" not in shown
