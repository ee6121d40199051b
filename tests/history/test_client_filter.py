"""The client that a filter of pulls asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dockmirror.history.tracker import parse_client

if TYPE_CHECKING:
    from dockmirror.history.tracker import AddressDetail


@pytest.mark.parametrize(
    ("text", "addresses", "client"),
    [
        ("", "full", ""),
        ("10.1.0.9", "full", "10.1.0.9"),
        ("10.1.0.9", "network", "10.1.0.0/24"),
        ("10.1.0.9", "region", "10.1.0.9"),
        ("10.1.0.9/16", "full", "10.1.0.0/16"),
        ("2001:DB8::1", "full", "2001:db8::1"),
        ("office", "region", "office"),
    ],
)
def test_a_client_is_written_as_the_history_keeps_it(
    text: str, addresses: AddressDetail, client: str
) -> None:
    assert parse_client(text, addresses) == client


@pytest.mark.parametrize(
    ("text", "addresses"), [("office", "full"), ("10.1", "network"), ("office", "none"), ("a/b", "region")]
)
def test_other_texts_are_refused(text: str, addresses: AddressDetail) -> None:
    """They are names of regions only where the history keeps regions."""
    with pytest.raises(ValueError, match=f"{text} is neither an address nor a network"):
        parse_client(text, addresses)
