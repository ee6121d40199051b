"""Which token services may be given credentials."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from dockmirror.config.known_registries import KNOWN, KnownRegistry
from dockmirror.oci.challenge import Challenge
from dockmirror.oci.errors import Denied, RegistryError
from dockmirror.upstream.identity_encoding import http_client, parse_url
from dockmirror.upstream.token_relay import parse_realm
from dockmirror.upstream.trusted_realms import TrustedRealms, origin

HUB = TrustedRealms("https://registry-1.docker.io", ("https://auth.docker.io",))


@pytest.mark.parametrize(
    ("realms", "realm"),
    [
        (HUB, "https://auth.docker.io/token"),
        (HUB, "https://AUTH.docker.io.:443/token?x=y"),
        (HUB, "https://registry-1.docker.io/token"),
        (HUB, "https://registry-1.docker.io:5001/token"),
        (TrustedRealms("https://quay.io"), "https://quay.io/v2/auth"),
        (TrustedRealms("http://127.0.0.1:5000"), "http://127.0.0.1:5001/auth"),
        (TrustedRealms("http://127.0.0.1:5000"), "https://127.0.0.1:5001/auth"),
        (TrustedRealms("http://[::1]:5000"), "http://[::1]:5001/auth"),
        (TrustedRealms("http://lan", ("http://auth.lan:81",)), "http://auth.lan:81/token"),
    ],
)
def test_trusted(realms: TrustedRealms, realm: str) -> None:
    """The upstream's own host, on any port, and origins that were named."""
    realms.check(realm)


@pytest.mark.parametrize(
    ("realms", "realm"),
    [
        (HUB, "https://auth.docker.io.evil.example/token"),
        (HUB, "https://evil.example/token"),
        (HUB, "https://docker.io/token"),
        (HUB, "https://sub.registry-1.docker.io/token"),
        (HUB, "https://auth.docker.io@evil.example/token"),
        (HUB, "https://auth.docker.io:444/token"),
        (TrustedRealms("http://lan", ("https://auth.lan",)), "http://auth.lan/token"),
    ],
)
def test_foreign(realms: TrustedRealms, realm: str) -> None:
    """Whatever else; the error says how an operator may allow it."""
    with pytest.raises(Denied, match=r"credentials are not sent to .*'realms'"):
        realms.check(realm)


@pytest.mark.parametrize("realm", ["http://registry-1.docker.io/token", "http://auth.docker.io/token"])
def test_plain(realm: str) -> None:
    """Nothing is sent in the clear where the upstream itself is encrypted, whoever it is."""
    with pytest.raises(Denied, match="it is not https as the upstream is"):
        HUB.check(realm)


def test_an_upstream_in_the_clear_may_name_others_with_https() -> None:
    """The realm may be better than the upstream."""
    TrustedRealms("http://lan", ("https://auth.lan",)).check("https://auth.lan/token")


def test_the_error_repeats_no_password() -> None:
    """Of an address that holds one, only the host is named."""
    with pytest.raises(Denied) as raised:
        HUB.check("https://name:s3cret@evil.example/token")
    assert "s3cret" not in str(raised.value)
    assert "https://evil.example" in str(raised.value)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_the_table(known: KnownRegistry) -> None:
    """No well-known registry trusts a host that is not in the table for it."""
    with pytest.raises(Denied):
        TrustedRealms(known.url, known.realms).check("https://evil.example/token")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://A.example/x", ("https", "a.example", 443)),
        ("http://a.example", ("http", "a.example", 80)),
        ("https://a.example.:443/", ("https", "a.example", 443)),
        ("https://a.example:444", ("https", "a.example", 444)),
        ("http://[::1]:5000/v2/", ("http", "::1", 5000)),
    ],
)
def test_origins(url: str, expected: tuple[str, str, int]) -> None:
    """Scheme, host and port, in one spelling."""
    assert origin(url) == expected


PIECES = st.sampled_from(
    [
        "http:", "https:", "//", "/", "\\", "@", ":", "#", "?", "%2f", "%40", "[", "]", "::1", "443",
        "80", ".", "registry.example", "evil.example", "user", " ", "\t", "\x00", "\u3002", "\uff0f",
        "e\u0301", "HTTPS:",
    ]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=8).map("".join)
    | st.lists(PIECES, max_size=6).map("".join).map("https://".__add__)
)
@example("https://registry.example/token")
@example("https://registry.example./")
@example("https://registry.example\\@evil.example/")
@example("https://evil.example\\.registry.example/")
@example("https://registry.example:80@evil.example/")
def test_who_is_judged_is_who_is_asked(text: str) -> None:
    """However a realm is written: the host that credentials may go to is the one that is connected to."""
    asked: list[bytes] = []
    try:
        realm = parse_realm(Challenge("Bearer", {"realm": text}))
        TrustedRealms("https://registry.example").check(realm)
        http_client(_Noting(asked)).request("GET", parse_url(realm))
    except (RegistryError, ValueError):
        return
    assert [URI.fromBytes(uri).host.rstrip(b".") for uri in asked] == [b"registry.example"]


@implementer(IAgent)
class _Noting:
    def __init__(self, asked: list[bytes]) -> None:
        self._asked = asked

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        """Notes whom it is asked to ask, and never answers."""
        self._asked.append(uri)
        return Deferred()
