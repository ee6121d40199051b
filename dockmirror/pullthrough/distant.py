"""Blobs that are held elsewhere, on their way here."""

from __future__ import annotations

from zope.interface import implementer

from ..interfaces import Answer, IDistant, ISource
from ..oci.consent import Held
from ..oci.errors import Unreachable
from .checks import Source
from .held import Headers, Told


@implementer(ISource)
class Nearest:
    """Where a blob is held, and its upstream while that does not give it.

    The reader's right to the blob is known.
    """

    def __init__(self, opened: IDistant, upstream: Source) -> None:
        self.target = upstream.target
        self._opened = opened
        self._upstream = upstream

    @property
    def status(self) -> int | None:
        """What the upstream has answered; None where it was not asked."""
        return self._upstream.status

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        try:
            return await self._opened.open(offset)
        except Unreachable:
            return await self._upstream.open(offset)

    async def completed(self) -> None:
        """The blob was delivered, whole and right."""
        await self._upstream.completed()

    async def check(self, held: Held) -> None:
        """See ``ISource``; nobody is asked."""


def sent_there() -> Headers:
    """What an answer says that sends its client to where a blob is held, at an address that ends soon."""
    told = Told("hit; detail=redirect").headers()
    return (*told, ("Cache-Control", "no-store"))
