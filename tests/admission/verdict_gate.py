"""A registry in memory with the gate in front of it, as the settings build it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.admission.admission_registry import AdmissionContext, AdmissionRegistry
from dockmirror.admission.policies import FactGatherer, Policies
from dockmirror.app.admission import make_verdict_sources
from dockmirror.config.load import load
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import EVERYTHING
from dockmirror.oci.request import (
    Manifest,
    Reference,
    RegistryRequest,
    Repository,
    Requester,
    parse_reference,
)

from ..answering import Received
from ..fakes import World
from ..shelf import PLACE, Shelf
from ..stacks import Outcome, bytes_of
from ..store.memory import MemoryDocuments

T = TypeVar("T")


def at_once(call: Callable[[], T], /) -> Awaitable[T]:
    return succeed(call())


ALICE = Received(Requester("192.0.2.1", "alice"))


@implementer(IRegistry)
class GatedShelf:
    """A shelf behind the gate.

    :ivar shelf: the registry below; its repository is Docker Hub's ``library/nginx``.
    :ivar documents: what the gate remembers across restarts.
    :ivar failing: how reading a signature fails.
    :ivar counted: the rules that refused or would have refused, with the outcome.
    """

    def __init__(self, *policies: dict[str, Any], world: World | None = None, **gate: Any) -> None:
        self.shelf, self.clock, self.documents = Shelf(), Clock(), MemoryDocuments()
        self.world = world or World()
        self.failing: Exception | None = None
        self.counted: list[tuple[str, str]] = []
        self._options = {"policy": [{"images": "**"} | each for each in policies], "gate": gate}
        self.restart()

    def restart(self) -> None:
        """Begin anew, with what the documents remember."""
        settings = load(self._options, {})
        sources = make_verdict_sources(
            "docker.io", settings, self.documents, at_once, self.clock, lambda *_: self.world.agent
        )
        gatherer = FactGatherer(sources, Policies.of("docker.io", settings.policy), self.clock)
        context = AdmissionContext(
            "docker", gatherer, lambda: 0, _never, _given, _nothing, _nothing, self._count, self.clock
        )
        self.registry = AdmissionRegistry(self, context)

    def pull(self, reference: str | Reference = "latest", head: bool = False) -> Outcome:
        """Ask for a manifest as a client does."""
        if isinstance(reference, str):
            reference = parse_reference(reference)
        request = RegistryRequest(Manifest(PLACE, reference), head, accept=EVERYTHING, received=ALICE)
        return Outcome(self.registry.fetch(request))

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Answer the gate, as the registry below it."""
        if self.failing is not None and str(request.target).endswith(".sig"):
            raise self.failing
        return await self.shelf.fetch(request)

    def reads(self) -> Sequence[str]:
        """Return the requests to the registry since this was last called."""
        asked, self.shelf.asked = self.shelf.asked, []
        return asked

    def _count(self, rule: str, outcome: str) -> None:
        self.counted.append((rule, outcome))


async def _never(repository: Repository, digest: Digest) -> bool:
    return False


async def _given(_: RegistryRequest) -> bool:
    return True


async def _nothing(*_: object) -> bytes | None:
    return None


def served(outcome: Outcome) -> bytes:
    """The manifest's bytes."""
    answer: Answer = outcome.get()
    return bytes_of(answer.body)
