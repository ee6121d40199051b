"""A connection over which anything may be sent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable


def sent(port: int, pieces: Iterable[bytes], within: float, pause: float = 0) -> tuple[bytes, float]:
    """Send pieces to a port; return the answer until the server closes, and the seconds till then.

    :param pause: seconds between two pieces.
    :raises TimeoutError: it does not close in time.
    """
    began = time.monotonic()
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=within) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except ConnectionError:
                break
            if pause and _is_closed_after(connection, received, pause):
                return bytes(received), time.monotonic() - began
        if not _is_closed_after(connection, received, max(0.01, began + within - time.monotonic())):
            raise TimeoutError(f"not closed after {within:g} s")
    return bytes(received), time.monotonic() - began


def _is_closed_after(connection: socket.socket, received: bytearray, seconds: float) -> bool:
    """Reads for so long, or to the end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        received += piece
        if not piece:
            return True
    return False
