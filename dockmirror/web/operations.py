"""What is told to whoever runs the mirror, on an endpoint of its own: /metrics, /healthz, /readyz."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from ..oci.errors import Unsupported
from .before import Before, Refusal
from .exchange import Request
from .readiness import Readiness, State


class Operations(Resource):
    """The root of the endpoint; whoever reaches it may read it."""

    def __init__(self, registry: CollectorRegistry, readiness: Readiness) -> None:
        super().__init__()
        self.putChild(b"metrics", _Exposition(registry))
        self.putChild(b"healthz", Health())
        self.putChild(b"readyz", _Ready(readiness))

    def getChild(self, path: bytes, request: Request) -> Resource:
        """There is nothing else."""
        return Refusal(Unsupported("there is nothing here: try /metrics, /healthz or /readyz", status=404))


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


class _Exposition(Resource):
    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
        return generate_latest(self._registry)


class _Ready(Resource):
    isLeaf = True

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()
        self._readiness = readiness

    def render_GET(self, request: Request) -> int:
        looking = Deferred.fromCoroutine(self._readiness.state())
        request.notifyFinish().addErrback(lambda _: looking.cancel())
        looking.addCallback(_tell, request)
        looking.addErrback(lambda failure: failure.trap(CancelledError))
        looking.addErrback(request.processingFailed)
        looking.addErrback(lambda _: None)
        return NOT_DONE_YET


def _tell(state: State, request: Request) -> None:
    body = json.dumps({"status": state.status, "store": state.store}).encode()
    request.setResponseCode(200 if state.ready else 503)
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()
