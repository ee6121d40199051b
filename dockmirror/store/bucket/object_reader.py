"""The bytes of an object, as they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from ...oci.digest import Digest, Verifier

if TYPE_CHECKING:
    from obstore import GetResult

PIECE = 1024 * 1024
"""About how many bytes are taken from the bucket, and held, at a time."""
STALL = 10.0
"""Seconds after which a piece must have come."""

T = TypeVar("T")


class ReadStep(Protocol):
    """Goes on with what was opened, in a thread."""

    def __call__(self, call: Callable[[], T], patience: float, /) -> Awaitable[T]:
        """What the call returned."""


class ObjectReader:
    """Opened; read once, or closed."""

    def __init__(self, result: GetResult, step: ReadStep) -> None:
        self._result: GetResult | None = result
        self._step = step
        self._pieces: Iterator[object] | None = None
        self._verifier: Verifier | None = None

    def verify(self, digest: Digest) -> None:
        """Pieces are hashed as they come, in the thread that they come in."""
        self._verifier = digest.verifier()

    def verified(self) -> bool:
        """Whether those that have come are the content of that digest."""
        return self._verifier is not None and self._verifier.verified()

    def all(self) -> bytes:
        """Everything; this call blocks."""
        assert self._result is not None
        return bytes(self._result.bytes())

    async def whole(self) -> bytes:
        """Everything.

        :raises OSError: when it does not come.
        """
        return await self._step(self.all, STALL)

    async def piece(self) -> bytes:
        """The next bytes; none at the end.

        :raises OSError: when they do not come.
        """
        return await self._step(self._next, STALL)

    def close(self) -> None:
        """Nothing more is wanted."""
        self._result = self._pieces = None

    def _next(self) -> bytes:
        if self._pieces is None:
            if self._result is None:
                return b""
            self._pieces = iter(self._result.stream(PIECE))
        piece = next(self._pieces, None)
        if piece is None:
            return b""
        data = bytes(memoryview(piece))  # type: ignore[arg-type]
        if self._verifier is not None:
            self._verifier.update(data)
        return data
