"""The operators' endpoint: the status page, ``/metrics``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource

from ..http.server_request import ServerRequest
from ..oci.errors import Denied, RegistryError, Unsupported
from ..system.networks import is_address, normalize_host
from .events import EventStream
from .pages.page import HTML, JSON, TEXT, language_for, negotiate_media_type, send, send_document
from .readiness import ReadinessState
from .respond import HealthResource, RefusalResource, refuse, render_coroutine
from .status.overview import Status, StatusOverview, StatusSource
from .status.status_page import ASSETS, StatusEvents, render_status
from .status.status_text import render_status_json, render_status_text

T = TypeVar("T")
_PATHS = {"images": "/images/", "api": "/api/v1/openapi.json"}
"""The paths at which resources below others begin."""
_MOST_VIEWERS = 16
"""Open status pages: each is rendered once a second."""


class WorkerTelemetry(StatusSource, Protocol):
    """Metrics and status of the mirror, from one process or several."""

    async def metrics(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""


class OperationsResource(Resource):
    """The root of the endpoint; open to every client that can reach it.

    Health answers to any host name, since it says no more than a refusal would.

    :param names: returns the host names, besides addresses, by which metrics and status may be requested.
    :param others: the API, and the pages of images and of the history, by the first segment of their path.
    """

    def __init__(
        self,
        telemetry: WorkerTelemetry,
        overview: StatusOverview,
        names: Callable[[], Collection[str]],
        clock: IReactorTime,
        others: Mapping[str, IResource] | None = None,
    ) -> None:
        super().__init__()
        paths = [
            "/status",
            "/metrics",
            "/healthz",
            "/readyz",
            *(_PATHS.get(each, f"/{each}") for each in others or ()),
        ]
        self._not_found = f"not found; try {', '.join(paths[:-1])} or {paths[-1]}"
        for segment, resource in (others or {}).items():
            self.putChild(segment.encode(), NamedHostOnly(resource, names))
        self.putChild(b"metrics", NamedHostOnly(_DeferredResource(telemetry.metrics, _send_metrics), names))
        self.putChild(b"healthz", HealthResource())
        self.putChild(b"readyz", _DeferredResource(telemetry.state, _send_readiness))
        for path, send_status in (
            (b"", send_status_page),
            (b"status", send_status_page),
            (b"status.json", send_status_json),
        ):
            self.putChild(path, NamedHostOnly(_DeferredResource(overview.status, send_status), names))
        events = EventStream(StatusEvents(overview).subscribe, clock, _MOST_VIEWERS, _MOST_VIEWERS)
        self.putChild(b"events", NamedHostOnly(events, names))

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        return RefusalResource(Unsupported(self._not_found, status=404))


class _DeferredResource(Resource, Generic[T]):
    """Fetches a value on each request and sends it."""

    isLeaf = True

    def __init__(
        self, fetch: Callable[[], Coroutine[Any, Any, T]], send: Callable[[T, ServerRequest], None]
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._send = send

    def render_GET(self, request: ServerRequest) -> int:
        return render_coroutine(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> None:
        value = await self._fetch()
        if not request.is_cut_off:  # calls to workers return what they have when they are cancelled
            self._send(value, request)


def _send_metrics(exposition: bytes, request: ServerRequest) -> None:
    request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
    _write(exposition, request)


def _send_readiness(state: ReadinessState, request: ServerRequest) -> None:
    request.setResponseCode(200 if state.ready else 503)
    request.setHeader("Content-Type", "application/json")
    _write(json.dumps({"status": state.status, "store": state.store}).encode(), request)


def _write(body: bytes, request: ServerRequest) -> None:
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()


class NamedHostOnly(Resource):
    """Rejects requests for host names that are not the mirror's own.

    Otherwise a web page from anywhere could make its own host name resolve to the operators' address and read
    the status through their browsers (DNS rebinding).

    :param names: returns the host names that are allowed now, besides any address.
    """

    isLeaf = True

    def __init__(self, resource: IResource, names: Callable[[], Collection[str]]) -> None:
        super().__init__()
        self._resource = resource
        self._names = names

    def render(self, request: ServerRequest) -> object:
        name = normalize_host(request.field("host") or "")
        if is_address(name) or name in self._names():
            return self._resource.render(request)
        return refuse(
            request,
            Denied(
                "this host name is not one of the mirror's own: use an address, or ask the operator to add"
                " the name to 'operations_names'"
            ),
        )


def send_status_page(status: Status, request: ServerRequest) -> None:
    """Send the status as HTML, text or JSON, in the client's language."""
    try:
        say = language_for(request)
    except RegistryError as error:
        refuse(request, error)
        return
    request.setHeader("Vary", "Accept, Accept-Language")
    host = request.field("host") or ""
    kind = negotiate_media_type(request.fields.get("accept", ()), TEXT, HTML, JSON)
    if kind == JSON:
        send_status_json(status, request)
    elif kind == TEXT:
        send(render_status_text(status, host, say).encode(), request)
    else:
        send_document(render_status(status, host, say), request, ASSETS.policy)


def send_status_json(status: Status, request: ServerRequest) -> None:
    send(render_status_json(status).encode(), request, JSON)
