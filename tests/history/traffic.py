"""Workers of a mirror that record pulls, in front of a registry that answers as the test says."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.body.bodies import BytesBody, NoBody
from dockmirror.history.pull_table import PullTable
from dockmirror.history.recorder import PullRecorder
from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import Answer, IBody, IRegistry
from dockmirror.metrics import Metrics
from dockmirror.middleware.observers import PullObserver, RequestObserver
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import RegistryError, Unavailable
from dockmirror.oci.header_fields import CacheResult, CacheStatus
from dockmirror.oci.manifest import ManifestDocument
from dockmirror.oci.request import Blob, RegistryRequest
from dockmirror.system.networks import NetworkAccess
from dockmirror.web.access_log import AccessLog, RequestCounter
from dockmirror.web.respond import LoopFilter, NetworkFilter
from dockmirror.web.site import RegistryHost

from ..fake_registry import digest
from ..house import Connection
from ..shelf import image, index

HOST = "mirror.example"
LAYER, OTHER_LAYER, CONFIG = b"layer" * 200, b"other" * 100, b"config"
IMAGE = image(CONFIG, LAYER, OTHER_LAYER)
INDEX = index(amd64=IMAGE)
PATHS = {
    "tag": "manifests/latest",
    "index": f"manifests/{digest(INDEX)}",
    "image": f"manifests/{digest(IMAGE)}",
    "layer": f"blobs/{digest(LAYER)}",
    "other": f"blobs/{digest(OTHER_LAYER)}",
    "config": f"blobs/{digest(CONFIG)}",
}
_CONTENTS = {"latest": INDEX, **{digest(each): each for each in (INDEX, IMAGE, LAYER, OTHER_LAYER, CONFIG)}}


@implementer(IBody)
class BrokenBody:
    """Delivers the first half, and fails."""

    def __init__(self, body: BytesBody) -> None:
        self.descriptor = body.descriptor
        self._data = body.data

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data[: len(self._data) // 2])
        return fail(Unavailable("the upstream broke off"))

    def discard(self) -> None:
        pass


@implementer(IRegistry)
class ScriptedRegistry:
    """Has one image with an index under every name.

    :ivar result: the part of the cache in the next answers.
    :ivar error: raised instead of the next answers.
    :ivar breaks: whether bodies break off.
    :ivar waits_for: what requests that are made now wait for.
    """

    def __init__(self) -> None:
        self.result = CacheResult.STORED
        self.error: RegistryError | None = None
        self.breaks = False
        self.waits_for: Deferred[None] | None = None

    async def fetch(self, request: RegistryRequest) -> Answer:
        if self.waits_for is not None:
            await self.waits_for
        if self.error is not None:
            raise self.error
        target: Any = request.target
        reference = str(target.digest if isinstance(target, Blob) else target.reference)
        data = _CONTENTS[reference]
        document = ManifestDocument.parse(data)
        descriptor = Descriptor(
            document.media_type if document else "application/octet-stream",
            Digest.of(data),
            len(data),
        )
        content: IBody = BytesBody(data, descriptor)
        if request.head:
            content = NoBody(descriptor)
        elif self.breaks:
            content = BrokenBody(BytesBody(data, descriptor))
        asked = 200 if self.result is CacheResult.STORED else None
        return Answer(content, cache=CacheStatus(self.result), upstream_status=asked)


class Worker:
    """One process of a mirror."""

    def __init__(self, registry: ScriptedRegistry, memory: memoryview, clock: Clock) -> None:
        self.registry = registry
        self.metrics = Metrics(CollectorRegistry())
        self.recorder = PullRecorder(PullTable(memory), clock)
        self.lines: list[dict[str, Any]] = []
        self.pull_ids: list[str] = []
        self.is_limited = True
        observed = RequestObserver(registry, "docker", self.metrics)
        stack = PullObserver(observed, "docker.io", self.recorder, lambda: self.is_limited)
        resource = NetworkFilter(LoopFilter(RegistryHost(stack, {}), "f" * 32), NetworkAccess())
        count = RequestCounter({HOST: HOST}, HOST, self.metrics)
        log_line = AccessLog("json", clock, lambda line: self.lines.append(json.loads(line)))

        def log(request: ServerRequest) -> None:
            for each in (self.recorder.end, log_line, count):
                each(request)
            self.pull_ids.append(request.pull_id)

        self.site = HttpSite(resource, clock, log=log)
        self.world = SimpleNamespace(agent=SimpleNamespace(flush=lambda: None))

    def ask(
        self,
        method: str,
        name: str,
        client: str = "10.0.0.1",
        repository: str = "library/nginx",
        headers: Sequence[str] = (),
    ) -> str:
        """Send a request on a connection of its own, and return the id of its pull."""
        house: Any = self
        connection = Connection(house, client, secure=False)
        connection.ask(method, HOST, f"/v2/{repository}/{PATHS.get(name, name)}", *headers)
        if connection.aborted:
            connection.leave()
        return self.pull_ids[-1]

    def begin_slow(self, name: str) -> Deferred[None]:
        """Request a blob that waits for the result until the registry answers."""
        waiting: Deferred[None] = Deferred()
        self.registry.waits_for = waiting
        house: Any = self
        Connection(house, "10.0.0.1", secure=False).ask("GET", HOST, f"/v2/library/nginx/{PATHS[name]}")
        self.registry.waits_for = None
        return waiting
