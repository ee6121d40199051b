"""Verification of certificates: in memory, and with real servers."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from cryptography.hazmat.primitives import serialization
from treq import content
from twisted.internet.error import SSLError

from dockmirror.upstream.upstream_endpoints import make_tls_policy
from tests.connections import PUBLIC, Connections, connections, failure_of
from tests.listening import AUTHORITY, Authority, Listening, Server, real_agent, soon


@pytest.mark.parametrize("name", ["my_registry", "a" * 64])
def test_a_name_that_no_certificate_can_have_fails_as_tls(name: str) -> None:
    """HTTP without TLS needs no certificate."""
    here = Connections({name: [PUBLIC]})
    assert isinstance(failure_of(here.connect(f"https://{name}/".encode())), SSLError)
    if name == "my_registry":
        here.connect(f"http://{name}/".encode())
        assert here.dialled() == [PUBLIC]


def test_the_client_hello_names_host_and_protocols() -> None:
    """It offers HTTP/1.1 over TLS 1.3 or 1.2, nothing else."""
    here = connections(PUBLIC)
    here.connect(b"https://r.example/")
    hello = here.accept().value()
    assert b"\x00\x09r.example" in hello
    assert b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03" in hello
    assert b"\x00\x10\x00\x0b\x00\x09\x08http/1.1" in hello


@pytest.mark.parametrize("host", ["r.example", "r.example.", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_with_the_hosts_name_is_accepted(
    serve: Callable[..., Listening], ca_file: str, host: str
) -> None:
    """The socket is closed in the end."""
    server = serve(Server, AUTHORITY.issue("r.example", "127.0.0.1"))
    response = await real_agent(ca_file).request(b"GET", server.url(host))
    assert server.accepted[0].transport.negotiatedProtocol == b"http/1.1"
    assert await content(response) == b"hello"
    await server.accepted[0].lost
    assert server.clients() == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("other.example",), "is for another name"),
        (("127.0.0.1",), "is for another name"),
        ((), "names no host"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_with_another_name_is_refused(
    serve: Callable[..., Listening], ca_file: str, names: tuple[str, ...], told: str
) -> None:
    """So is one without a name, before any request is sent."""
    server = serve(Server, AUTHORITY.issue(*names))
    with pytest.raises(SSLError, match=f"TLS handshake with r.example: its certificate {told}"):
        await real_agent(ca_file).request(b"GET", server.url())
    await server.accepted[0].lost
    assert server.clients() == []


@pytest.mark.parametrize(
    ("authority", "days", "told"),
    [
        (Authority("stranger"), (-1, 1), "is signed by an untrusted authority"),
        (AUTHORITY, (-2, -1), "has expired"),
        (AUTHORITY, (1, 2), "is not valid yet"),
    ],
    ids=["stranger", "expired", "early"],
)
@pytest_twisted.ensureDeferred
async def test_an_untrusted_certificate_is_refused_with_a_reason(
    serve: Callable[..., Listening], ca_file: str, authority: Authority, days: tuple[int, int], told: str
) -> None:
    server = serve(Server, authority.issue("r.example", days=days))
    with pytest.raises(SSLError, match=f"TLS handshake with r.example: its certificate {told}"):
        await real_agent(ca_file).request(b"GET", server.url())
    assert await soon(lambda: server.clients() == [])


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities_are_trusted(
    serve: Callable[..., Listening], ca_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a CA file and without."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    server = serve(Server, AUTHORITY.issue("r.example"))
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().certificate.public_bytes(serialization.Encoding.PEM))
    for chosen in (None, str(other)):
        response = await real_agent(chosen).request(b"GET", server.url())
        assert await content(response) == b"hello"


def test_an_invalid_ca_file_is_an_error_at_once(tmp_path: Path) -> None:
    """It is missing, or holds no certificate."""
    with pytest.raises(OSError, match="missing"):
        make_tls_policy(str(tmp_path / "missing.pem"))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ValueError, match="PEM"):
        make_tls_policy(str(tmp_path / "empty.pem"))
