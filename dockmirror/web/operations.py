"""What is told to whoever runs the mirror, on an endpoint of its own: a page, /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.web.resource import IResource, Resource

from ..oci.errors import Unsupported
from .before import Before, Refusal
from .exchange import Request
from .later import answered_by
from .readiness import State
from .status.named import Named
from .status.overview import Overview, Telling
from .status.page import tell_json, tell_page

T = TypeVar("T")


class Operated(Telling, Protocol):
    """What tells of the mirror, be it one process or several."""

    async def metrics(self) -> bytes:
        """All metrics, in the text format of Prometheus."""


class Operations(Resource):
    """The root of the endpoint; every client that reaches it may read it.

    Health says nothing that a refusal would not say as well, and is given by any name.

    :param names: by which metrics and status may be asked for, besides addresses.
    """

    def __init__(self, operated: Operated, overview: Overview, names: Callable[[], Collection[str]]) -> None:
        super().__init__()
        self.putChild(b"metrics", Named(_Later(operated.metrics, _tell_metrics), names))
        self.putChild(b"healthz", Health())
        self.putChild(b"readyz", _Later(operated.state, _tell_state))
        for path, tell in ((b"", tell_page), (b"status", tell_page), (b"status.json", tell_json)):
            self.putChild(path, Named(_Later(overview.status, tell), names))

    def getChild(self, path: bytes, request: Request) -> Resource:
        """There is nothing else."""
        return Refusal(
            Unsupported("there is nothing here: try /status, /metrics, /healthz or /readyz", status=404)
        )


class BesideHealth(Before):
    """Answers ``/healthz`` on every host and to everybody, and leaves the rest to another resource.

    A load balancer asks from an address that is nobody's and names no host of ours.  It is told no more than
    that somebody is there, which a refusal would tell as well: so no rule of access comes before it.
    """

    def __init__(self, resource: IResource) -> None:
        super().__init__(resource)
        self._health = Health()

    def admit(self, request: Request) -> IResource | None:
        """Health, or what lies behind."""
        return IResource(self._health) if request.path == b"/healthz" else None


class Health(Resource):
    """Says ``ok``, and nothing else, as long as anything can be said."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Two letters."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"ok"


class _Later(Resource, Generic[T]):
    """Asks when it is asked, and tells what comes of it."""

    isLeaf = True

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]], tell: Callable[[T, Request], None]) -> None:
        super().__init__()
        self._ask = ask
        self._tell = tell

    def render_GET(self, request: Request) -> int:
        return answered_by(request, self._answer(request))

    async def _answer(self, request: Request) -> None:
        self._tell(await self._ask(), request)


def _tell_metrics(exposition: bytes, request: Request) -> None:
    request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
    _write(exposition, request)


def _tell_state(state: State, request: Request) -> None:
    request.setResponseCode(200 if state.ready else 503)
    request.setHeader("Content-Type", "application/json")
    _write(json.dumps({"status": state.status, "store": state.store}).encode(), request)


def _write(body: bytes, request: Request) -> None:
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()
