"""An observer of finished requests, which counts them for the metrics."""

from __future__ import annotations

from collections.abc import Mapping

from ..http.server_request import ServerRequest
from ..metrics import OTHER, Metrics
from ..oci.errors import RegistryError
from ..oci.request import parse_target
from ..oci.write import is_upload_path
from ..system.networks import is_address, normalize_host


class RequestCounter:
    """Counts finished requests.

    :param hosts: the metric label of each host name of the mirror.
    :param own: the metric label of the mirror's addresses.
    """

    def __init__(self, hosts: Mapping[str, str], own: str, metrics: Metrics) -> None:
        self._hosts = hosts
        self._own = own
        self._metrics = metrics

    def __call__(self, request: ServerRequest) -> None:
        """Count a finished request; call once for each."""
        host = self._host(normalize_host(request.peer.host if request.peer else ""))
        status = str(request.code) if 100 <= request.code < 600 else OTHER
        self._metrics.requests.labels(host, endpoint_name(request.path or b""), status).inc()
        self._metrics.sent_bytes.labels(host).inc(request.sentLength)

    def _host(self, name: str) -> str:
        return self._hosts.get(name) or (self._own if is_address(name) else OTHER)


def endpoint_name(path: bytes) -> str:
    """Return the name of the endpoint of a raw path, or ``OTHER``."""
    parts = path.split(b"/")
    segments = parts if parts[1:2] == [b"v2"] else [b"", *parts[2:]]
    if segments == [b"", b"v2", b"auth"]:
        return "token"
    if is_upload_path(b"/".join(segments)):
        return "upload"
    try:
        return type(parse_target(b"/".join(segments))).__name__.lower()
    except RegistryError:
        return OTHER
