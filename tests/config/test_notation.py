"""Tests of sizes, durations and short forms of endpoints."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from pydantic import TypeAdapter, ValidationError

from dockmirror.config.load import load
from dockmirror.config.notation import Amount, Size, expand_endpoint, is_short_endpoint

from .test_field_types import WRITTEN


@pytest.mark.parametrize("written", ["999999999999999TB", "999999TiB", "99999999999999999B", "100000TB"])
def test_a_size_that_would_lose_precision_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Size).validate_python(written)


@given(WRITTEN)
def test_negative_and_infinite_sizes_are_refused(written: object) -> None:
    adapter: TypeAdapter[Amount] = TypeAdapter(Size)
    try:
        amount = adapter.validate_python(written)
    except ValidationError:
        return
    assert amount.bytes >= 0
    assert 0 <= amount.share <= 1
    assert math.isfinite(amount.of(10**15))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("8080", "tcp:8080:interface=\\:\\:"),
        (":8080", "tcp:8080:interface=\\:\\:"),
        ("*:8080", "tcp:8080:interface=\\:\\:"),
        ("0", "tcp:0:interface=\\:\\:"),
        ("127.0.0.1:8080", "tcp:8080:interface=127.0.0.1"),
        ("0.0.0.0:8080", "tcp:8080:interface=0.0.0.0"),
        ("localhost:8080", "tcp:8080:interface=127.0.0.1"),
        ("[::]:8080", "tcp:8080:interface=\\:\\:"),
        ("[fe80::1]:8080", "tcp:8080:interface=fe80\\:\\:1"),
        ("https:443", "https:tcp:443:interface=\\:\\:"),
        ("https::443", "https:tcp:443:interface=\\:\\:"),
        ("https:127.0.0.1:443", "https:tcp:443:interface=127.0.0.1"),
        ("https:443:certificates=/a", "https:tcp:443:interface=\\:\\::certificates=/a"),
        ("https:443:interface=10.0.0.1", "https:tcp:443:interface=10.0.0.1"),
    ],
)
def test_a_short_form_is_expanded(text: str, endpoint: str) -> None:
    assert is_short_endpoint(text)
    assert expand_endpoint(text, "::") == endpoint


def test_without_ipv6_a_port_alone_is_that_of_all_ipv4_addresses() -> None:
    assert expand_endpoint("8080", "") == "tcp:8080"
    assert expand_endpoint("https:443", "") == "https:tcp:443"


@pytest.mark.parametrize(
    "text", ["tcp:8080", "unix:/run/a.sock:mode=660", "systemd:domain=INET6:index=0", "https:unix:/run/a", ""]
)
def test_an_endpoint_string_is_unchanged(text: str) -> None:
    assert not is_short_endpoint(text)
    assert expand_endpoint(text, "::") == text


@pytest.mark.parametrize("text", ["65536", "127.0.0.1:99999", "mirror.lan:80", "::1:80", "-1", "8080/tcp"])
def test_other_texts_are_no_short_forms(text: str) -> None:
    assert not is_short_endpoint(text)


@pytest.mark.parametrize(
    ("value", "listen"),
    [
        (8080, ("8080",)),
        ("8080 https:443", ("8080", "https:443")),
        ([8080, "[::1]:8081", "tcp:5000"], ("8080", "[::1]:8081", "tcp:5000")),
    ],
)
def test_the_settings_take_them_as_numbers_and_texts(value: object, listen: tuple[str, ...]) -> None:
    settings = load({"listen": value, "operations": 9464}, {})
    assert (settings.listen, settings.operations) == (listen, "9464")
