"""The ports on which the mirror of these settings listens."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from ..app.listeners import HttpsEndpoint, listen_endpoints
from ..config.settings import Settings

_SECURED = ("ssl", "tls")


@frozen
class Port:
    """One of TCP.

    :ivar interface: the only address at which it is; empty where it is at all of them.
    """

    scheme: str
    number: str
    interface: str = ""


def ports(settings: Settings) -> Iterator[Port]:
    """Those that are told, in the order of the settings: of a socket of systemd's nothing is."""
    for endpoint in listen_endpoints(settings):
        secured = HttpsEndpoint.parse(endpoint)
        kind, *parts = re.split(r"(?<!\\):", secured.transport if secured else endpoint)
        named = dict(part.split("=", 1) for part in parts if "=" in part)
        number = named.get("port") or next(filter(str.isdigit, parts), "")
        if kind in ("tcp", "tcp6", *_SECURED) and number:
            scheme = "https" if secured or kind in _SECURED else "http"
            yield Port(scheme, number, re.sub(r"\\(.)", r"\1", named.get("interface", "")))
