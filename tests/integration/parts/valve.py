"""Answers held back in the middle: a blob stays on its way in for as long as a test likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE = 64 * 1024


class Valve:
    """Open, it lets everything pass; shut at an offset, only what lies before that.

    Narrow, it lets so many bytes a second pass for each answer.
    """

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._opened.set()
        self._offset = 0
        self._rate: float | None = None

    @contextmanager
    def narrow(self, rate: float) -> Iterator[None]:
        """Narrow until the end of the block, also for what has begun."""
        self._rate = rate
        try:
            yield
        finally:
            self._rate = None

    @contextmanager
    def shut(self, offset: int) -> Iterator[None]:
        """Shut until the end of the block, or until it is opened."""
        self._offset = offset
        self._opened.clear()
        try:
            yield
        finally:
            self.open()

    def open(self) -> None:
        """Lets go what was held back."""
        self._opened.set()

    def pieces(self, part: range) -> Iterator[range]:
        """Yield the pieces of *part*, each when it may be sent."""
        held = part.stop if self._opened.is_set() else min(max(self._offset, part.start), part.stop)
        if part.start < held:
            yield from self._paced(range(part.start, held))
        if held < part.stop:
            self._opened.wait()
            yield from self._paced(range(held, part.stop))

    def _paced(self, part: range) -> Iterator[range]:
        while self._rate is not None and len(part) > _PIECE:
            time.sleep(_PIECE / self._rate)
            yield part[:_PIECE]
            part = part[_PIECE:]
        yield part
