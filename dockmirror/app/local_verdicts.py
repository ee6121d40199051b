"""Verdicts on images in the cache's directory, without a running mirror: signatures, the hook and limits.

Nothing is asked over the network: the cache must hold the signatures, or the verdicts of the running mirror.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from ..admission.admit import Facts, admit
from ..admission.fact_source import FactGatherer
from ..admission.policies import Policies
from ..admission.repository_reader import RepositoryReader
from ..admission.verdict import Refuse, Subject
from ..body.in_memory import BytesBody
from ..config.settings import Settings
from ..interfaces import Answer, IDocumentStore, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.reference import Reference, Repository, Tag
from ..oci.request import Blob, Manifest, RegistryRequest
from ..store import layout
from ..store.held_images import HeldImages, StoredImage
from .naming import ImageName, registry_names
from .verdict_sources import make_verdict_sources

T = TypeVar("T")


class LocalVerdicts:
    """Applies the rules about images to those in the cache's directory."""

    def __init__(self, settings: Settings, root: Path, now: float) -> None:
        self._settings = settings
        self._root = root
        self._documents = _LocalDocuments(root)
        self._clock = Clock()
        self._clock.advance(now)

    def check(self, name: ImageName, image: StoredImage) -> None:
        """:raises Denied: when the running mirror would refuse the manifest."""
        refusal = self.find_refusal(name, image)
        if refusal is not None:
            raise Denied(refusal.why)

    def find_refusal(self, name: ImageName, image: StoredImage) -> Refuse | None:
        """Return the reason for which the running mirror would refuse the manifest, or None."""
        registry, repository = name.repository.first, Repository(name.repository.rest)
        upstreams = self._settings.upstreams.items()
        upstream = next((each for each, its in upstreams if registry_names(its)[0] == registry), "")
        subject = Subject(upstream, repository, name.reference, image.digest)
        facts = _run(self._gather(registry, subject, image))
        verdict = admit(subject, facts.enforced())
        return verdict if isinstance(verdict, Refuse) else None

    async def _gather(self, registry: str, subject: Subject, image: StoredImage) -> Facts:
        sources = make_verdict_sources(
            registry, self._settings, self._documents, _at_once, self._clock, _no_network
        )
        gatherer = FactGatherer(sources, Policies.of(registry, self._settings.policy), self._clock)
        request = RegistryRequest(Manifest(subject.repository, image.digest))
        local = _LocalRegistry(HeldImages(self._root), registry)
        reader = RepositoryReader(local, subject.repository, request, _hold_nothing)
        applicable = gatherer.applicable(subject, is_replacement=False)
        return await gatherer.gather(subject, applicable, lambda: succeed(image.manifest), reader)


@implementer(IRegistry)
@frozen
class _LocalRegistry:
    """The contents of one registry in the cache's directory."""

    held: HeldImages
    registry: str

    async def fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Manifest() as target:
                data = self._manifest(Repository(f"{self.registry}/{target.repository}"), target.reference)
            case Blob() as target:
                data = _read(self.held.root / layout.data(target.digest))
            case _:
                data = None
        if data is None:
            raise request.target.unknown
        return Answer(BytesBody(data, Descriptor(size=len(data))))

    def _manifest(self, place: Repository, reference: Reference) -> bytes | None:
        if isinstance(reference, Tag):
            tagged = self.held.list_tags(place).get(reference)
            return None if tagged is None else self.held.read_image(place, tagged.digest).data
        return self.held.read_image(place, reference).data


@implementer(IDocumentStore)
@frozen
class _LocalDocuments:
    """The documents of the running mirror; a command only adds to them in memory."""

    root: Path
    added: dict[str, bytes] = field(factory=dict)

    async def read(self, name: str) -> bytes | None:
        return self.added.get(name) or _read(self.root / layout.document(name))

    async def write(self, name: str, data: bytes) -> None:
        self.added[name] = data


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@implementer(IAgent)
class _NoNetwork:
    """Fails each request: commands leave it to the running mirror to ask the policy server."""

    def request(self, *_: Any) -> Deferred[IResponse]:
        return fail(ConnectError(string="pull the image through the running mirror first"))


def _no_network(*_: object) -> IAgent:
    return _NoNetwork()


async def _hold_nothing(_: Digest, __: int) -> bytes | None:
    return None


def _at_once(call: Callable[[], T], /) -> Awaitable[T]:
    return succeed(call())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Return the outcome of work that waits for nothing."""
    outcomes: list[T | Failure] = []
    Deferred.fromCoroutine(work).addBoth(outcomes.append)
    (outcome,) = outcomes
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome
