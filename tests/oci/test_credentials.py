"""Credentials: how they are written, and that they show nowhere."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import Unsupported
from dockmirror.oci.request import Ping, RegistryRequest

TEXT = st.text(st.characters(codec="utf-8"))


@given(TEXT, TEXT)
def test_a_name_and_a_password_are_basic(username: str, password: str) -> None:
    """RFC 7617: in UTF-8; a password may hold colons."""
    scheme, _, encoded = Credentials.basic(username, password).header.partition(" ")
    assert (scheme, base64.b64decode(encoded, validate=True).decode()) == ("Basic", f"{username}:{password}")


def test_a_token_is_known_again() -> None:
    """A token matches in any case of its scheme; another token, or a part of it, does not."""
    assert Credentials.bearer("anonymous") == Credentials("Bearer anonymous")
    assert Credentials.bearer("anonymous").is_bearer("anonymous")
    assert Credentials("bearer  anonymous ").is_bearer("anonymous")
    for header in ("Bearer anonymous2", "Bearer", "Basic anonymous", "anonymous", "Bearer Anonymous", ""):
        assert not Credentials(header).is_bearer("anonymous")


def test_credentials_are_not_shown() -> None:
    credentials = Credentials.bearer("s3cret")
    for shown in (repr(credentials), str(credentials), f"{RegistryRequest(Ping(), credentials=credentials)}"):
        assert "s3cret" not in shown


@given(st.text(), st.text())
def test_a_fingerprint_stands_for_them(header: str, other: str) -> None:
    """The same for the same, another for others, whatever bytes a client sent; and it gives nothing away."""
    fingerprint = Credentials(header).fingerprint()
    assert (fingerprint == Credentials(other).fingerprint()) is (header == other)
    assert len(fingerprint) == 64
    assert Credentials(f"{header}\udcff").fingerprint() != fingerprint


@pytest.mark.parametrize(
    "header",
    ["Bearer t0ken", "bearer a.b-c_d~e+f/g=", "Bearer  a", "Basic YTpi", "BASIC YTpiYw==", "Bearer a:b|c"],
)
def test_tokens_and_passwords_are_accepted_verbatim(header: str) -> None:
    assert Credentials.parse(header).header == header


@pytest.mark.parametrize(
    "header",
    [
        "Bearer", "Bearer ", "Bearer a b", "Bearer a\tb", "Bearer \ufffd", "Basic a:b", "Basic YTpi,",
        "Basic",
        "Digest username=s3cret", "s3cret", "Bearer a\r\nb", " Bearer a", "",
    ],
)  # fmt: skip
def test_nothing_else_is_passed_on(header: str) -> None:
    """The refusal does not repeat it."""
    with pytest.raises(Unsupported) as raised:
        Credentials.parse(header)
    assert raised.value.status == 400
    assert "s3cret" not in str(raised.value)


@given(st.text())
def test_accepted_credentials_are_printable(header: str) -> None:
    for sent in (header, f"Bearer {header}", f"Basic {header}"):
        try:
            brought = Credentials.parse(sent).header
        except Unsupported:
            continue
        assert brought.isascii()
        assert brought.isprintable()
