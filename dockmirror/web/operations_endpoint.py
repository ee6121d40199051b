"""What is told to whoever runs the mirror, on an endpoint of its own: a page, /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.web.resource import IResource, Resource

from ..headers import first, lines
from ..http.server_request import ServerRequest
from ..oci.errors import Denied, RegistryError, Unsupported
from .filter import HealthResource, RefusalResource
from .pages.send_page import HTML, JSON, TEXT, language_for, negotiate_media_type, send, send_document
from .readiness import ReadinessState
from .respond import refuse, render_coroutine
from .site import is_address, normalize_host
from .status.overview import Status, StatusOverview, StatusSource
from .status.status_page import ASSETS, render_status
from .status.status_text import render_status_json, render_status_text

T = TypeVar("T")


class WorkerTelemetry(StatusSource, Protocol):
    """What tells of the mirror, be it one process or several."""

    async def metrics(self) -> bytes:
        """All metrics, in the text format of Prometheus."""


class OperationsResource(Resource):
    """The root of the endpoint; every client that reaches it may read it.

    Health says nothing that a refusal would not say as well, and is given by any name.

    :param names: by which metrics and status may be asked for, besides addresses.
    """

    def __init__(
        self, operated: WorkerTelemetry, overview: StatusOverview, names: Callable[[], Collection[str]]
    ) -> None:
        super().__init__()
        self.putChild(b"metrics", NamedHostOnly(_DeferredResource(operated.metrics, _tell_metrics), names))
        self.putChild(b"healthz", HealthResource())
        self.putChild(b"readyz", _DeferredResource(operated.state, _tell_state))
        for path, tell in (
            (b"", send_status_page),
            (b"status", send_status_page),
            (b"status.json", send_status_json),
        ):
            self.putChild(path, NamedHostOnly(_DeferredResource(overview.status, tell), names))

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """There is nothing else."""
        return RefusalResource(
            Unsupported("there is nothing here: try /status, /metrics, /healthz or /readyz", status=404)
        )


class _DeferredResource(Resource, Generic[T]):
    """Asks when it is asked, and tells what comes of it."""

    isLeaf = True

    def __init__(
        self, ask: Callable[[], Coroutine[Any, Any, T]], tell: Callable[[T, ServerRequest], None]
    ) -> None:
        super().__init__()
        self._ask = ask
        self._tell = tell

    def render_GET(self, request: ServerRequest) -> int:
        return render_coroutine(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> None:
        self._tell(await self._ask(), request)


def _tell_metrics(exposition: bytes, request: ServerRequest) -> None:
    request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
    _write(exposition, request)


def _tell_state(state: ReadinessState, request: ServerRequest) -> None:
    request.setResponseCode(200 if state.ready else 503)
    request.setHeader("Content-Type", "application/json")
    _write(json.dumps({"status": state.status, "store": state.store}).encode(), request)


def _write(body: bytes, request: ServerRequest) -> None:
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()


class NamedHostOnly(Resource):
    """Refuses who has asked by another name.

    A page from anywhere may have its own name lead to the address at which operators reach the mirror; what
    their browsers then ask for comes with that name.

    :param names: gives the names by which it may be asked for at the moment, besides by any address.
    """

    isLeaf = True

    def __init__(self, resource: IResource, names: Callable[[], Collection[str]]) -> None:
        super().__init__()
        self._resource = resource
        self._names = names

    def render(self, request: ServerRequest) -> object:
        """What the resource has, or 403."""
        name = normalize_host(first(request.requestHeaders, "Host") or "")
        if is_address(name) or name in self._names():
            return self._resource.render(request)
        return refuse(
            request,
            Denied(
                "this host name is not one of the mirror's own: ask by an address, or have the operator add"
                " the name to 'operations_names'"
            ),
        )


def send_status_page(status: Status, request: ServerRequest) -> None:
    """As a browser, a program or a terminal has it, in the language of who asks."""
    try:
        say = language_for(request)
    except RegistryError as error:
        refuse(request, error)
        return
    request.setHeader("Vary", "Accept, Accept-Language")
    host = first(request.requestHeaders, "Host") or ""
    kind = negotiate_media_type(lines(request.requestHeaders, "Accept"), TEXT, HTML, JSON)
    if kind == JSON:
        send_status_json(status, request)
    elif kind == TEXT:
        send(render_status_text(status, host, say).encode(), request)
    else:
        send_document(render_status(status, host, say), request, ASSETS.policy)


def send_status_json(status: Status, request: ServerRequest) -> None:
    """For programs."""
    send(render_status_json(status).encode(), request, JSON)
