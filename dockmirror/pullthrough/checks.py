"""Whether a client may be given a blob that others were given."""

from __future__ import annotations

from functools import partial

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..content.held import collect
from ..interfaces import Answer, IContents, IRegistry, ISource
from ..oci.consent import SAMPLE, Held, Sample, sampled_part
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError
from ..oci.ranges import Range
from ..oci.request import Blob, Request
from ..work.joined import Joined
from ..work.notes import Notes
from .asking import Asking
from .changes import Unchanged
from .permission import GRANTED
from .rights import Rights, Unproven

_MOST = 10_000


class Checks:
    """Asks the upstream, unless it has said so already; the same question is asked once at a time.

    What it said before a change of the repository does not count.
    """

    def __init__(self, asking: Asking, clock: IReactorTime, changes: Unchanged, contents: IContents) -> None:
        self._asking = asking
        self._rights = Rights(asking)
        self._changes = changes
        self._contents = contents
        self._given: Notes[tuple[Blob, bytes], bool] = Notes(clock, _MOST)
        self._begun: Notes[tuple[Blob, bytes, str | None], bool] = Notes(clock, _MOST)
        self._joined: Joined[tuple[Request, bytes], bool] = Joined()

    async def check(
        self, request: Request, target: Blob, can_answer: bool = False, growing: Held | None = None
    ) -> bool:
        """Whether the upstream has proven that it gives the blob to this client.

        Where the client may pull from the repository, it is enough that anybody was given the blob there.
        What is given to everybody is given to this client, too; otherwise its own credentials decide.

        :param can_answer: whether the store can answer if the upstream does not.
        :param growing: the blob, where it is on its way in; then it is enough that the upstream has begun to
            give it there, or to the same credentials.
        :raises RegistryError: when the client may not have it, or the upstream does not say.
        """
        mark = await self.mark(target)
        if growing and self._begun.get((target, mark, _who(request))):
            return True
        given = self._given.get((target, mark)) or (growing and self._begun.get((target, mark, None)))
        if given and await self._rights.entitled(request):
            return True
        held = growing or await self._held(target)
        if request.credentials is not None and await self._for_everybody(request, target, held, can_answer):
            return True
        return await self._ask(request, target, held, can_answer)

    async def mark(self, target: Blob) -> bytes:
        """The mark of its repository; see ``Changes``."""
        return await self._changes.mark(self._changes.place(target.repository))

    def begun(self, request: Request, target: Blob, mark: bytes) -> None:
        """The upstream has begun to give it from this repository, which had that mark when it was asked."""
        for who in (_who(request), None):
            self._begun.put((target, mark, who), True, GRANTED)

    async def given(self, request: Request, target: Blob, mark: bytes, consents: bool) -> None:
        """The upstream gave it, whole and right, from this repository.

        :param consents: whether it was the upstream itself, and no other registry.
        """
        self._given.put((target, mark), True, GRANTED)
        if consents:
            await self._asking.consented(request)

    async def _for_everybody(
        self, request: Request, target: Blob, held: Held | None, can_answer: bool
    ) -> bool:
        """Whether the blob, too, of a public repository is given to everybody."""
        if not await self._rights.public(request):
            return False
        try:
            return await self._ask(evolve(request, credentials=None), target, held, can_answer)
        except RegistryError:
            return False

    async def _ask(self, request: Request, target: Blob, held: Held | None, can_answer: bool) -> bool:
        mark = await self.mark(target)
        asked = Request(target, credentials=request.credentials, held=held)
        given = await self._joined.get((asked, mark), lambda: self._asking.check(asked, can_answer))
        if given:
            self._given.put((target, mark), True, GRANTED)
        return given

    async def _held(self, target: Blob) -> Held | None:
        opened = await self._contents.peek(target.digest)
        if opened is None:
            return None
        opened.close()
        return Held(opened.size, partial(self._sample, target))

    async def _sample(self, target: Blob) -> Sample | None:
        opened = await self._contents.peek(target.digest)
        if opened is None:
            return None
        part = sampled_part(opened.size)
        try:
            return Sample(part, await collect(opened.content(Descriptor(size=part.length), (part,)), SAMPLE))
        except RegistryError:
            return None


def _who(request: Request) -> str:
    return request.credentials.fingerprint() if request.credentials else "anonymous"


@implementer(ISource)
class Source:
    """How one client's request would fetch the blob: with its path and its credentials."""

    def __init__(self, request: Request, target: Blob, registry: IRegistry, checks: Checks) -> None:
        self._request = evolve(request, range=None, if_none_match=None, head=False)
        self.target = target
        self._registry = registry
        self._checks = checks
        self.status: int | None = None
        self._opened: tuple[bytes, bool] | None = None

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        wanted = Range.since(offset) if offset else None
        mark = await self._checks.mark(self.target)
        answer = await self._registry.fetch(evolve(self._request, range=wanted))
        self.status = answer.upstream_status
        self._opened = mark, not answer.elsewhere
        self._checks.begun(self._request, self.target, mark)
        return answer

    async def check(self, held: Held) -> None:
        """See ``ISource``.

        :raises Unproven: when the upstream's answer proves nothing.
        """
        if not await self._checks.check(self._request, self.target, growing=held):
            raise Unproven

    async def completed(self) -> None:
        """The blob was delivered, whole and right; where this has fetched it, the upstream has consented."""
        if self._opened is not None:
            mark, consents = self._opened
            await self._checks.given(self._request, self.target, mark, consents)
