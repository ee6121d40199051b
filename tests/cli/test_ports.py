"""The ports on which the mirror of these settings listens."""

from __future__ import annotations

import pytest

from dockmirror.cli.ports import Port, ports
from dockmirror.config.load import load


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("tcp:5000", Port("http", "5000")),
        ("tcp6:port=5000:interface=\\:\\:1", Port("http", "5000", "::1")),
        ("tcp:interface=10.0.0.1:port=5000", Port("http", "5000", "10.0.0.1")),
        ("https:8443", Port("https", "8443")),
        ("https:tcp6:8443:interface=\\:\\:", Port("https", "8443", "::")),
        ("ssl:8443:privateKey=a", Port("https", "8443")),
        ("tls:/etc/pem:8443", Port("https", "8443")),
    ],
)
def test_one_that_is_told(listen: str, port: Port) -> None:
    """However its endpoint is written."""
    assert list(ports(load({"listen": ["unix:/run/m.sock", listen, "systemd:domain=INET:index=0"]}, {}))) == [
        port
    ]


def test_the_one_that_is_there_by_itself() -> None:
    """Where nothing is said."""
    assert [(port.scheme, port.number) for port in ports(load({}, {}))] == [("http", "8080")]
