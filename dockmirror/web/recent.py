"""What clients have asked for of late: many go to the registry itself without a word when a mirror fails."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..networks import Address
from .access import Client
from .exchange import Request

_LONGEST = 300
_Who = tuple[Address, str | None]


@frozen
class Seen:
    """A request that has ended; without its query and its headers.

    :ivar time: when it ended, in seconds since the epoch.
    :ivar size: bytes of the response's body, as far as they were sent.
    :ivar upstream: what the upstream answered; None where it was not asked.
    """

    time: float
    method: str
    host: str
    path: str
    status: int
    size: int
    upstream: int | None
    cut_off: bool


class Recent:
    """The last requests for anything below ``/v2/``, by the address of the client and the name it has here.

    Each sees its own only.  All is in memory, and bounded: who has not been here for longest is forgotten.

    :param each: how many requests of a client are remembered.
    :param clients: of how many.
    :ivar processes: of how many this is one: each has seen what it has served itself.
    """

    def __init__(self, clock: IReactorTime, processes: int = 1, each: int = 20, clients: int = 500) -> None:
        self.processes = processes
        self._clock = clock
        self._each = each
        self._clients = clients
        self._seen: OrderedDict[_Who, deque[Seen]] = OrderedDict()

    def __call__(self, request: Request) -> None:
        """To be called once, when a request has ended; one that was not let in is nobody's."""
        who = _who(request.admitted)
        if who is None or b"v2" not in request.path.split(b"/")[1:3]:
            return
        kept = self._seen.setdefault(who, deque(maxlen=self._each))
        kept.appendleft(_seen(request, self._clock.seconds()))
        self._seen.move_to_end(who)
        if len(self._seen) > self._clients:
            self._seen.popitem(last=False)

    def of(self, client: Client) -> Sequence[Seen]:
        """What that client has asked for, the newest first; nothing where its address is not known."""
        who = _who(client)
        return () if who is None else tuple(self._seen.get(who, ()))


def _who(client: Client | None) -> _Who | None:
    return None if client is None or client.address is None else (client.address, client.user)


def _seen(request: Request, now: float) -> Seen:
    return Seen(
        now,
        request.method.decode("ascii", "replace"),
        request.admitted.host if request.admitted else "",
        request.path.decode("ascii", "replace")[:_LONGEST],
        request.code,
        request.sentLength,
        request.upstream_status,
        request.cut_off,
    )
