"""Answers of upstreams as bytes, right and wrong."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable

from tests.integration.parts.server import Exchange

Answer = Callable[[Exchange, bytes], None]
"""Answers in the place of a server, given the bytes that would be right."""

RESET = struct.pack("ii", 1, 0)


def head(status: str, *fields: str, version: str = "HTTP/1.1") -> bytes:
    """A response up to its body."""
    return "\r\n".join([f"{version} {status}", *fields, "", ""]).encode()


def whole(data: bytes) -> bytes:
    """A right response."""
    return head("200 OK", f"Content-Length: {len(data)}") + data


def sends(make: Callable[[bytes], bytes]) -> Answer:
    """Send bytes made of the right ones, and close the connection."""

    def answer(exchange: Exchange, data: bytes) -> None:
        exchange.wfile.write(make(data))
        exchange.close_connection = True

    return answer


def resets_at(count: int) -> Answer:
    """Resets the connection after so many bytes of the body; where that is negative, in the headers."""

    def answer(exchange: Exchange, data: bytes) -> None:
        beginning = head("200 OK", f"Content-Length: {len(data)}")
        _reset(exchange, beginning + data[:count] if count >= 0 else beginning[:count])

    return answer


def breaks_anywhere(step: int) -> Answer:
    """Resets after so many bytes of what it was asked for, whether that is the whole or the rest."""

    def answer(exchange: Exchange, data: bytes) -> None:
        asked = exchange.headers.get("Range", "bytes=0-")
        first = int(asked.removeprefix("bytes=").partition("-")[0])
        part = f"Content-Range: bytes {first}-{len(data) - 1}/{len(data)}"
        fields = [f"Content-Length: {len(data) - first}", *([part] if first else [])]
        beginning = head("206 Partial Content" if first else "200 OK", *fields)
        _reset(exchange, beginning + data[first : first + step])

    return answer


def _reset(exchange: Exchange, data: bytes) -> None:
    exchange.wfile.write(data)
    time.sleep(0.1)  # a reset overtakes what was not read yet
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    exchange.connection.close()
    exchange.close_connection = True


def refuses(status: int, body: bytes = b'{"errors": []}', **headers: str) -> Answer:
    """Answers with that status; an underscore in a header's name stands for a hyphen."""
    return lambda exchange, _: exchange.answer(status, body, **headers)


def endless(beginning: bytes, piece: bytes) -> Answer:
    """Send a piece again and again until the other end has left."""

    def answer(exchange: Exchange, _: bytes) -> None:
        exchange.wfile.write(beginning)
        while True:
            exchange.wfile.write(piece)

    return answer


def drips(count: int) -> Answer:
    """Send the right bytes, the first of them one in a second."""

    def answer(exchange: Exchange, data: bytes) -> None:
        exchange.wfile.write(head("200 OK", f"Content-Length: {len(data)}"))
        for index in range(count):
            exchange.wfile.write(data[index : index + 1])
            time.sleep(1)
        exchange.wfile.write(data[count:])

    return answer


def is_silent(exchange: Exchange, data: bytes) -> None:
    """Says nothing until the other end leaves."""
    exchange.rfile.read(1)
    exchange.close_connection = True


def resets_after(count: int) -> Callable[[Exchange], None]:
    """Resets the connection when so many bytes of the request's body have come."""

    def answer(exchange: Exchange) -> None:
        exchange.rfile.read(count)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        exchange.connection.close()
        exchange.close_connection = True

    return answer


def answers(
    status: int, *, early: bool = False, body: bytes = b"", **headers: str
) -> Callable[[Exchange], None]:
    """Answers with that status; *early* without having read the request's body."""

    def answer(exchange: Exchange) -> None:
        if early:
            exchange.close_connection = True
        else:
            exchange.body()
        exchange.answer(status, body, **headers)

    return answer


def stops_taking(count: int) -> Callable[[Exchange], None]:
    """Takes so many bytes of the request's body, and no more, until the other end leaves."""

    def answer(exchange: Exchange) -> None:
        exchange.rfile.read(count)
        poll = select.poll()
        poll.register(exchange.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        poll.poll(60_000)
        exchange.close_connection = True

    return answer
