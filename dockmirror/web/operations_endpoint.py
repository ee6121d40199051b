"""What is told to whoever runs the mirror, on an endpoint of its own: a page, /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.web.resource import IResource, Resource

from ..http.server_request import ServerRequest
from ..oci.errors import Unsupported
from .coroutine import render_coroutine
from .filter import RefusalResource, RequestFilter
from .readiness import ReadinessState
from .status.named_host import NamedHostOnly
from .status.overview import StatusOverview, StatusSource
from .status.status_response import tell_json, tell_page

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
        for path, tell in ((b"", tell_page), (b"status", tell_page), (b"status.json", tell_json)):
            self.putChild(path, NamedHostOnly(_DeferredResource(overview.status, tell), names))

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """There is nothing else."""
        return RefusalResource(
            Unsupported("there is nothing here: try /status, /metrics, /healthz or /readyz", status=404)
        )


class HealthRoute(RequestFilter):
    """Answers ``/healthz`` on every host and to everybody, and leaves the rest to another resource.

    A load balancer asks from an address that is nobody's and names no host of ours.  It is told no more than
    that somebody is there, which a refusal would tell as well: so no rule of access comes before it.
    """

    def __init__(self, resource: IResource) -> None:
        super().__init__(resource)
        self._health = HealthResource()

    def check(self, request: ServerRequest) -> IResource | None:
        """Health, or what lies behind."""
        return IResource(self._health) if request.path == b"/healthz" else None


class HealthResource(Resource):
    """Says ``ok``, and nothing else, as long as anything can be said."""

    isLeaf = True

    def render_GET(self, request: ServerRequest) -> bytes:
        """Two letters."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"ok"


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
