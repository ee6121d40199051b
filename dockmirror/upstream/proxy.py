"""Outbound proxies: their URLs, their errors, and the rules that choose one for a host."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from ipaddress import ip_network
from typing import Literal, cast
from urllib.parse import unquote

from attrs import field, frozen
from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import ConnectError

from ..system.networks import Address, Network, parse_address

Scheme = Literal["http", "https", "socks5", "socks5h"]
ProxyHandshake = Generator[bytes, bytes, bytes]
"""The conversation with a proxy until a connection through it is open.

The generator yields bytes to send, maybe none, and is sent the received ones; it returns the bytes behind the
proxy's last message, which belong to the connection.  It raises ``ProxyError``, and does no I/O.
"""
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_HOST = r"\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?"
_URL = re.compile(
    rf"(?:([^:/?#@]+)://)?(?:([^/?#\s]*)@)?({_HOST})(?::([0-9]{{1,5}}))?/?", re.ASCII | re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SOCKS_LIMIT = 255
_WITH_PORT = re.compile(r"(.+):([0-9]{1,5})")


@frozen
class Proxy:
    """An outbound proxy; ``str`` writes its URL without its credentials.

    :ivar scheme: ``http``, by CONNECT; ``https``, the same over TLS; ``socks5``, which is sent addresses
        only; ``socks5h``, which is sent names.
    :ivar host: a name, or a literal address without brackets.
    """

    scheme: Scheme
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Parse a URL; the default scheme is ``http``, the default port the scheme's (1080 for SOCKS).

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
        if scheme not in _DEFAULT_PORTS:
            raise ValueError(f"expected a proxy whose scheme is one of {', '.join(_DEFAULT_PORTS)}")
        username, password = _parse_login(scheme, match[2] or "")
        port = int(match[4] or _DEFAULT_PORTS[scheme])
        if not 0 < port < 2**16:
            raise ValueError("expected a proxy's port between 1 and 65535")
        return cls(cast(Scheme, scheme), match[3].lower().strip("[]"), port, username, password)

    def __str__(self) -> str:
        return f"{self.scheme}://{format_authority(self.host, self.port)}"

    @property
    def resolves_names(self) -> bool:
        """Tell whether the proxy looks names up, and not the mirror."""
        return self.scheme != "socks5"


class ProxyError(ConnectError):
    """A proxy does not connect; the message names it and the reason.

    :ivar status: of an HTTP proxy's response; None without one.
    """

    def __init__(self, proxy: Proxy, reason: str, status: int | None = None) -> None:
        super().__init__(string=f"the proxy {proxy} {reason}")
        self.proxy = proxy
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


def format_authority(host: str, port: int) -> str:
    """Format host and port as in a URL (RFC 3986, 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse_login(scheme: str, text: str) -> tuple[str | None, str]:
    """Return the name, if there is one, and the password, which may be empty."""
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
    """Tell whether the lengths suit RFC 1929, 2; an empty password breaks it, but servers accept one."""
    return 0 < len(username.encode()) <= _SOCKS_LIMIT and len(password.encode()) <= _SOCKS_LIMIT


@frozen
class _DomainEntry:
    """A name and all names below it; the empty name covers all."""

    name: str
    port: int | None

    def covers(self, host: str, address: Address | None, port: int) -> bool:
        if self.port not in (None, port):
            return False
        return not self.name or (address is None and f".{host}".endswith(f".{self.name}"))


@frozen
class _NetworkEntry:
    """Literal addresses; names are not resolved to match it."""

    network: Network
    port: int | None

    def covers(self, host: str, address: Address | None, port: int) -> bool:
        return self.port in (None, port) and address is not None and address in self.network


@frozen
class NoProxy:
    """Hosts that are reached without a proxy.

    Entries are separated by commas or blanks: a domain, which includes all names below it, with or without a
    leading ``.`` or ``*.``; an address; a network; each with an optional port; ``*`` for all hosts.
    """

    entries: tuple[_DomainEntry | _NetworkEntry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> NoProxy:
        """Parse the entries; an entry without a meaning matches nothing."""
        return cls(tuple(map(_parse_entry, filter(None, re.split(r"[\s,]+", text)))))

    def covers(self, host: str, port: int) -> bool:
        """Tell whether a host is reached without a proxy."""
        name = host.strip("[]").removesuffix(".").lower()
        address = _parse_address(name)
        return any(entry.covers(name, address, port) for entry in self.entries)


@frozen
class ProxySettings:
    """The proxies to the servers of an upstream; by default none.

    :ivar http: for ``http`` URLs.
    :ivar https: for ``https`` URLs.
    :ivar no_proxy: hosts that are reached without them.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    no_proxy: NoProxy = NoProxy()

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> ProxySettings:
        """Read the environment as curl does.

        ``https_proxy``, ``http_proxy``, for either ``all_proxy``, and ``no_proxy``: each in lower case or, if
        that is unset or empty, in upper case, except ``http_proxy``, whose upper case a CGI request could set
        (httpoxy).

        :raises ValueError: naming the variable that is not a proxy's URL.
        """
        default = _read_proxy(environ, "all_proxy", "ALL_PROXY")
        no_proxy = next(_read_variables(environ, "no_proxy", "NO_PROXY"), ("", ""))[1]
        return cls(
            _read_proxy(environ, "http_proxy") or default,
            _read_proxy(environ, "https_proxy", "HTTPS_PROXY") or default,
            NoProxy.parse(no_proxy),
        )

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy to use for a host, if any."""
        return None if self.no_proxy.covers(host, port) else self.https if scheme == "https" else self.http


def _read_variables(environ: Mapping[str, str], *names: str) -> Iterator[tuple[str, str]]:
    return ((name, environ[name]) for name in names if environ.get(name))


def _read_proxy(environ: Mapping[str, str], *names: str) -> Proxy | None:
    for name, value in _read_variables(environ, *names):
        try:
            return Proxy.parse(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return None


def _parse_entry(word: str) -> _DomainEntry | _NetworkEntry:
    port = None
    network = _parse_network(word)
    if network is None and (match := _WITH_PORT.fullmatch(word)):
        word, port = match[1], int(match[2])
        network = _parse_network(word)
    if network is not None:
        return _NetworkEntry(network, port)
    if word == "*":
        return _DomainEntry("", port)
    return _DomainEntry(word.lower().removeprefix("*.").lstrip(".").removesuffix(".") or ".", port)


def _parse_network(word: str) -> Network | None:
    try:
        return ip_network(word.strip("[]"), strict=False)
    except ValueError:
        return None


def _parse_address(host: str) -> Address | None:
    try:
        return parse_address(host)
    except ValueError:
        return None
