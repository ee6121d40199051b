"""An outbound proxy, and how it fails."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Literal, cast
from urllib.parse import unquote

from attrs import field, frozen
from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import ConnectError

Scheme = Literal["http", "https", "socks5", "socks5h"]
ProxyHandshake = Generator[bytes, bytes, bytes]
"""What is said to a proxy until a connection through it is open.

It yields what to send, maybe nothing, and is sent what the proxy says; it returns what came after the
proxy's last word, which belongs to the connection.  It raises ``ProxyError``, and does no I/O.
"""

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_HOST = r"\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?"
_URL = re.compile(
    rf"(?:([^:/?#@]+)://)?(?:([^/?#\s]*)@)?({_HOST})(?::([0-9]{{1,5}}))?/?", re.ASCII | re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SOCKS_LIMIT = 255


@frozen
class Proxy:
    """An outbound proxy; ``str`` writes its address, and never its credentials.

    :ivar scheme: ``http``, by CONNECT; ``https``, the same over TLS; ``socks5``, which is told addresses
        only; ``socks5h``, which is told names.
    :ivar host: a name, or a literal address without brackets.
    """

    scheme: Scheme
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """What a URL says; without a scheme it is ``http``, and without a port the scheme's (1080 for SOCKS).

        Name and password are percent-encoded in it (RFC 3986, 3.2.1).

        :raises ValueError: in a line that repeats nothing of the text, which may hold a password.
        """
        match = _URL.fullmatch(text)
        if match is None:
            raise ValueError(
                "expected a proxy such as http://proxy.example:3128 or socks5h://name:password@proxy.example,"
                " name and password percent-encoded"
            )
        scheme = (match[1] or "http").lower()
        if match[3].startswith("[") and not isIPv6Address(match[3].strip("[]")):
            raise ValueError("expected a proxy's host to be a name or an address")
        if scheme not in _PORTS:
            raise ValueError(f"expected a proxy whose scheme is one of {', '.join(_PORTS)}")
        username, password = _login(scheme, match[2] or "")
        port = int(match[4] or _PORTS[scheme])
        if not 0 < port < 2**16:
            raise ValueError("expected a proxy's port between 1 and 65535")
        return cls(cast(Scheme, scheme), match[3].lower().strip("[]"), port, username, password)

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)}"

    @property
    def is_told_names(self) -> bool:
        """Whether the proxy looks names up, and not the mirror."""
        return self.scheme != "socks5"


class ProxyError(ConnectError):
    """A proxy does not connect; the message names it, and says why.

    :ivar status: of an HTTP proxy's answer; None where it gave none.
    """

    def __init__(self, proxy: Proxy, why: str, status: int | None = None) -> None:
        super().__init__(string=f"the proxy {proxy} {why}")
        self.proxy = proxy
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


def authority(host: str, port: int) -> str:
    """Host and port as a URL has them (RFC 3986, 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _login(scheme: str, text: str) -> tuple[str | None, str]:
    """The name, if there is one, and the password, which may be empty."""
    try:
        username, password = (unquote(part, errors="strict") for part in text.partition(":")[::2])
    except UnicodeDecodeError:
        raise ValueError("expected a proxy's name and password in UTF-8, percent-encoded") from None
    if _CONTROL.search(username + password):
        raise ValueError("expected a proxy's name and password without control characters")
    if scheme in ("http", "https") and ":" in username:  # RFC 7617, 2
        raise ValueError("expected an HTTP proxy's name without a colon in it")
    if scheme in ("socks5", "socks5h") and text and not _fits_socks(username, password):
        raise ValueError(f"expected a SOCKS proxy's name and password to have 1 to {_SOCKS_LIMIT} bytes each")
    return (username if text else None), password


def _fits_socks(username: str, password: str) -> bool:
    """RFC 1929, 2; an empty password is none that it knows, but which its servers take."""
    return 0 < len(username.encode()) <= _SOCKS_LIMIT and len(password.encode()) <= _SOCKS_LIMIT
