"""Which proxy leads to which host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from attrs import frozen

from ..system.networks import Address, Network, parse_address
from .proxy import Proxy

_PORT = re.compile(r"(.+):([0-9]{1,5})")


@frozen
class _DomainEntry:
    """A name and all names below it; the empty one is above all."""

    name: str
    port: int | None

    def covers(self, host: str, address: Address | None, port: int) -> bool:
        if self.port not in (None, port):
            return False
        return not self.name or (address is None and f".{host}".endswith(f".{self.name}"))


@frozen
class _NetworkEntry:
    """Literal addresses; of names it is not asked what they resolve to."""

    network: Network
    port: int | None

    def covers(self, host: str, address: Address | None, port: int) -> bool:
        return self.port in (None, port) and address is not None and address in self.network


@frozen
class NoProxy:
    """Hosts that are reached without a proxy.

    Entries are separated by commas or blanks: a domain, which stands for all that is below it, too, with
    ``.`` or ``*.`` before it or not; an address; a network; each with a port or without; ``*`` for all.
    """

    entries: tuple[_DomainEntry | _NetworkEntry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> NoProxy:
        """The hosts that the text names; what means nothing stands for nothing."""
        return cls(tuple(map(_entry, filter(None, re.split(r"[\s,]+", text)))))

    def covers(self, host: str, port: int) -> bool:
        """Whether no proxy leads there."""
        name = host.strip("[]").removesuffix(".").lower()
        address = _literal(name)
        return any(entry.covers(name, address, port) for entry in self.entries)


@frozen
class ProxySettings:
    """The proxies that lead to the servers of an upstream; by default none does.

    :ivar http: the one for ``http`` addresses.
    :ivar https: the one for ``https`` addresses.
    :ivar bypassed: what they are not used for.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    bypassed: NoProxy = NoProxy()

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> ProxySettings:
        """What the environment says, as curl reads it.

        ``https_proxy``, ``http_proxy``, for either ``all_proxy``, and ``no_proxy``: each in lower case or,
        where that is not set or empty, in upper case, but for ``http_proxy``, whose upper case a CGI request
        could set (httpoxy).

        :raises ValueError: naming the variable whose proxy is none.
        """
        both = _proxy(environ, "all_proxy", "ALL_PROXY")
        bypassed = next(_values(environ, "no_proxy", "NO_PROXY"), ("", ""))[1]
        return cls(
            _proxy(environ, "http_proxy") or both,
            _proxy(environ, "https_proxy", "HTTPS_PROXY") or both,
            NoProxy.parse(bypassed),
        )

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy that leads there, if any does."""
        return None if self.bypassed.covers(host, port) else self.https if scheme == "https" else self.http


def _values(environ: Mapping[str, str], *names: str) -> Iterator[tuple[str, str]]:
    return ((name, environ[name]) for name in names if environ.get(name))


def _proxy(environ: Mapping[str, str], *names: str) -> Proxy | None:
    for name, value in _values(environ, *names):
        try:
            return Proxy.parse(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return None


def _entry(word: str) -> _DomainEntry | _NetworkEntry:
    port = None
    network = _network(word)
    if network is None and (match := _PORT.fullmatch(word)):
        word, port = match[1], int(match[2])
        network = _network(word)
    if network is not None:
        return _NetworkEntry(network, port)
    if word == "*":
        return _DomainEntry("", port)
    return _DomainEntry(word.lower().removeprefix("*.").lstrip(".").removesuffix(".") or ".", port)


def _network(word: str) -> Network | None:
    try:
        return ip_network(word.strip("[]"), strict=False)
    except ValueError:
        return None


def _literal(host: str) -> Address | None:
    try:
        return parse_address(host)
    except ValueError:
        return None
