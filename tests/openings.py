"""What is said to a proxy, heard by a proxy that is the test itself."""

from __future__ import annotations

from dockmirror.upstream.proxy import ProxyHandshake


class Talk:
    """One side of a conversation; the other side is the test.

    :ivar said: all that was said to the proxy and not yet looked at.
    :ivar rest: what came after the proxy's last word, once the conversation is over.
    """

    def __init__(self, opening: ProxyHandshake) -> None:
        self._opening = opening
        self.rest: bytes | None = None
        self.said = next(opening)

    def heard(self) -> bytes:
        """What was said since the last time."""
        said, self.said = self.said, b""
        return said

    def answer(self, data: bytes) -> None:
        """The proxy says something."""
        assert self.rest is None, "it is over"
        try:
            self.said += self._opening.send(data)
        except StopIteration as end:
            self.rest = end.value

    def answer_slowly(self, data: bytes) -> None:
        """The proxy says something byte by byte."""
        for byte in data:
            self.answer(bytes([byte]))
