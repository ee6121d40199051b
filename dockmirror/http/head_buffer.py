"""What a client has sent and nobody has used yet."""

from __future__ import annotations

from .head_parser import end_of_head, origin_form


class HeadBuffer:
    """Bytes as they came on a connection: heads, and what lies between them.

    :param head_bytes: the most that a head may have.
    :ivar head_begun: whether some of a head has come, and not all of it.
    """

    def __init__(self, head_bytes: int) -> None:
        self.head_begun = False
        self._head_bytes = head_bytes
        self._bytes = bytearray()
        self._scanned = 0  # of a head that is not complete

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, data: bytes) -> None:
        """Some more has come."""
        self._bytes += data

    def put_back(self, data: bytes) -> None:
        """These came before all that is here."""
        self._bytes[:0] = data

    def take(self) -> bytes:
        """All that is here."""
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken

    def take_head(self) -> bytes | None:
        """The next head, as ``origin_form`` gives it; None where more must arrive.

        :raises RegistryError: where it is none, or too large.
        """
        while self._bytes.startswith(b"\r\n"):  # to be ignored, RFC 9112 section 2.2
            del self._bytes[:2]
            self._scanned = 0
        if not self._bytes:
            return None
        end = end_of_head(self._bytes, self._scanned, self._head_bytes)
        if end is None:
            self.head_begun, self._scanned = True, len(self._bytes)
            return None
        head = origin_form(bytes(self._bytes[:end]))
        del self._bytes[:end]
        self.head_begun, self._scanned = False, 0
        return head
