"""Addresses that clients carry, and cannot change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.errors import BlobUploadUnknown
from dockmirror.oci.reference import Repository
from dockmirror.upstream.signed_locations import LocationSigner

KEY, OTHER = b"k" * 32, b"o" * 32
A, B = Repository("a"), Repository("b")
ADDRESS = "https://storage.example/upload?signature=a%2Fb&x=+"
SEALS = LocationSigner([KEY], "docker")


@given(st.lists(st.text()))
def test_what_was_sealed_is_opened(values: list[str]) -> None:
    """And is a segment of a path that nobody has to encode."""
    sealed = SEALS.sign(A, *values)
    assert SEALS.verify(A, sealed) == tuple(values)
    assert set(sealed) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert not sealed.startswith(".")


@pytest.mark.parametrize(
    ("seals", "repository"),
    [
        (LocationSigner([OTHER], "docker"), A),
        (LocationSigner([KEY], "quay"), A),
        (SEALS, B),
        (LocationSigner([], "docker"), A),
    ],
)
def test_what_was_sealed_for_something_else(seals: LocationSigner, repository: Repository) -> None:
    """By another mirror, for another upstream, for another repository: is as if it was not."""
    with pytest.raises(BlobUploadUnknown):
        seals.verify(repository, SEALS.sign(A, ADDRESS))


def test_whatever_is_changed() -> None:
    """Breaks the seal."""
    sealed = SEALS.sign(A, ADDRESS)
    body, code = sealed.split(".")
    for changed in (body, f"{body}.", f".{code}", f"{body}.{code}.", "", ".", "é.é", f"{body[:-2]}.{code}",
                    f"{SEALS.sign(A, 'https://evil.example/').split('.')[0]}.{code}"):  # fmt: skip
        with pytest.raises(BlobUploadUnknown):
            SEALS.verify(A, changed)


def test_a_new_key() -> None:
    """Takes the place of an old one without a break."""
    both = LocationSigner([OTHER, KEY], "docker")
    assert both.verify(A, SEALS.sign(A, ADDRESS)) == (ADDRESS,)
    assert LocationSigner([OTHER], "docker").verify(A, both.sign(A, ADDRESS)) == (ADDRESS,)
