"""The client as the consumer of a response's body."""

from __future__ import annotations

import os

from twisted.internet.interfaces import IConsumer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from ..body.forwarding import ForwardingConsumer
from ..interfaces import IFileConsumer
from .server_request import ServerRequest


def response_consumer(request: ServerRequest) -> IConsumer:
    """What takes the body; the head is decided on, and says whether its length is known."""
    transport = request.transport
    # Wrappers claim the interfaces of a socket, too; and pieces of unknown number each have a head.
    if isinstance(transport, Connection) and not transport.TLS and _has_length(request):
        return _SocketConsumer(request, transport)
    return _ResponseConsumer(request)


def _has_length(request: ServerRequest) -> bool:
    return request.responseHeaders.hasHeader(b"Content-Length")


class _ResponseConsumer(ForwardingConsumer):
    """Stays quiet when the client has left."""

    consumer: ServerRequest

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        if not self.consumer.cut_off:
            self.consumer.unregisterProducer()


@implementer(IFileConsumer)
class _SocketConsumer(_ResponseConsumer):
    """At the other end of a plain socket, which is given to the kernel for as long as it takes something.

    The connection stays what it is for Twisted: one whose producer is paused while nothing more goes.
    """

    def __init__(self, request: ServerRequest, transport: Connection) -> None:
        super().__init__(request)
        self._transport = transport
        self._buffered = False

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._buffered = True
        super().write(data)

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        """See ``IFileConsumer``."""
        if not self.consumer.startedWriting:
            self.write(b"")  # the head
        sent = None if self._buffered else self._send(file, offset, length)
        if sent != length:
            self._wait()
        return sent

    def _send(self, file: int, offset: int, length: int) -> int | None:
        try:
            sent = os.sendfile(self._transport.fileno(), file, offset, length)
        except BlockingIOError:
            return None
        except (ConnectionError, TimeoutError):
            self._transport.abortConnection()
            return None
        self.consumer.sentLength += sent
        return sent

    def _wait(self) -> None:
        """What the transport does when its buffer is full; when that is empty, it resumes its producer."""
        self._transport.producerPaused = True
        self.consumer.channel.pauseProducing()
        self._transport.startWriting()
        self._buffered = False
