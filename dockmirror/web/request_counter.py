"""Requests counted, by what was asked for and what came of it."""

from __future__ import annotations

from collections.abc import Mapping

from ..http.server_request import ServerRequest
from ..metrics import OTHER, Metrics
from ..oci.errors import RegistryError
from ..oci.request import parse_target
from ..oci.write import is_upload_path
from .site import is_address, normalize_host


class RequestCounter:
    """Counts a request that has ended.

    :param hosts: the mirror's names, and for each what it is counted as.
    :param own: what an address of the mirror's is counted as.
    """

    def __init__(self, hosts: Mapping[str, str], own: str, metrics: Metrics) -> None:
        self._hosts = hosts
        self._own = own
        self._metrics = metrics

    def __call__(self, request: ServerRequest) -> None:
        """To be called once, when the request has ended."""
        host = self._host(normalize_host(request.peer.host if request.peer else ""))
        status = str(request.code) if 100 <= request.code < 600 else OTHER
        self._metrics.requests.labels(host, endpoint_name(request.path or b""), status).inc()
        self._metrics.sent_bytes.labels(host).inc(request.sentLength)

    def _host(self, name: str) -> str:
        return self._hosts.get(name) or (self._own if is_address(name) else OTHER)


def endpoint_name(path: bytes) -> str:
    """What a raw path asks for, in a word; what does not parse is nothing known."""
    below = path.split(b"/")
    segments = below if below[1:2] == [b"v2"] else [b"", *below[2:]]
    if segments == [b"", b"v2", b"auth"]:
        return "token"
    if is_upload_path(b"/".join(segments)):
        return "upload"
    try:
        return type(parse_target(b"/".join(segments))).__name__.lower()
    except RegistryError:
        return OTHER
