"""Whether a client may be given a blob that others were given."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..interfaces import Answer, IRegistry, ISource
from ..oci.errors import RegistryError
from ..oci.ranges import Range
from ..oci.request import Blob, Request
from ..work.joined import Joined
from ..work.notes import Notes
from .asking import Asking
from .changes import Unchanged
from .permission import GRANTED
from .rights import Rights

_MOST = 10_000


class Checks:
    """Asks the upstream, unless it has said so already; the same question is asked once at a time.

    What it said before a change of the repository does not count.
    """

    def __init__(self, asking: Asking, clock: IReactorTime, changes: Unchanged) -> None:
        self._asking = asking
        self._rights = Rights(asking)
        self._changes = changes
        self._given: Notes[tuple[Blob, bytes], bool] = Notes(clock, _MOST)
        self._joined: Joined[tuple[Request, bytes], None] = Joined()

    async def check(self, request: Request, target: Blob, can_answer: bool = False) -> None:
        """Where the client may pull from the repository, it is enough that anybody was given the blob there.

        What is given to everybody is given to this client, too; otherwise its own credentials decide.

        :param can_answer: whether the store can answer if the upstream does not.
        :raises RegistryError: when the client may not have it, or the upstream does not say.
        """
        mark = await self.mark(target)
        if await self._rights.entitled(request) and self._given.get((target, mark)):
            return
        if request.credentials is None or not await self._for_everybody(request, target, mark, can_answer):
            await self._ask(request, target, mark, can_answer)

    async def mark(self, target: Blob) -> bytes:
        """The mark of its repository; see ``Changes``."""
        return await self._changes.mark(self._changes.place(target.repository))

    def given(self, target: Blob, mark: bytes) -> None:
        """The upstream gives it from this repository, which had that mark when it was asked."""
        self._given.put((target, mark), True, GRANTED)

    async def _for_everybody(self, request: Request, target: Blob, mark: bytes, can_answer: bool) -> bool:
        """Whether the blob, too, of a public repository is given to everybody."""
        if not await self._rights.public(request):
            return False
        try:
            await self._ask(evolve(request, credentials=None), target, mark, can_answer)
        except RegistryError:
            return False
        return True

    async def _ask(self, request: Request, target: Blob, mark: bytes, can_answer: bool) -> None:
        asked = Request(target, credentials=request.credentials)
        await self._joined.get((asked, mark), lambda: self._asking.check(asked, can_answer))
        self.given(target, mark)


@implementer(ISource)
class Source:
    """How one client's request would fetch the blob: with its path and its credentials."""

    def __init__(self, request: Request, target: Blob, registry: IRegistry, checks: Checks) -> None:
        self._request = evolve(request, range=None, if_none_match=None, head=False)
        self._target = target
        self._registry = registry
        self._checks = checks
        self.status: int | None = None

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        wanted = Range.since(offset) if offset else None
        mark = await self._checks.mark(self._target)
        answer = await self._registry.fetch(evolve(self._request, range=wanted))
        self.status = answer.upstream_status
        self._checks.given(self._target, mark)
        return answer

    async def check(self) -> None:
        """See ``ISource``."""
        await self._checks.check(self._request, self._target)
