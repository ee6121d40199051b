"""Answers held back in the middle: a blob stays on its way in for as long as a test likes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Valve:
    """Open, it lets everything pass; shut at an offset, only what lies before that."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._opened.set()
        self._offset = 0

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
        """What may be sent of *part*, each piece when it may be."""
        held = part.stop if self._opened.is_set() else min(max(self._offset, part.start), part.stop)
        if part.start < held:
            yield range(part.start, held)
        if held < part.stop:
            self._opened.wait()
            yield range(held, part.stop)
