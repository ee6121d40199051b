"""The client as the consumer of a response's body."""

from __future__ import annotations

import os

from twisted.internet.interfaces import IConsumer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from ..body.consumers import ForwardingConsumer
from ..interfaces import IFileConsumer
from .server_request import ServerRequest


def make_response_consumer(request: ServerRequest) -> IConsumer:
    """Return the consumer of a response's body; the response headers must be set."""
    transport = request.transport
    # Wrappers claim the interfaces of a socket, too; and without a length each chunk needs a head.
    if isinstance(transport, Connection) and not transport.TLS and _has_length(request):
        return _SocketConsumer(request, transport)
    return _ResponseConsumer(request)


def _has_length(request: ServerRequest) -> bool:
    return request.responseHeaders.hasHeader(b"Content-Length")


class _ResponseConsumer(ForwardingConsumer):
    """A consumer that tolerates a client that has left."""

    consumer: ServerRequest

    def unregisterProducer(self) -> None:
        if not self.consumer.is_cut_off:
            self.consumer.unregisterProducer()


@implementer(IFileConsumer)
class _SocketConsumer(_ResponseConsumer):
    """A client on a plain socket, to which files are sent by the kernel for as long as it accepts more.

    For Twisted the connection is one whose producer is paused whenever the socket is full.
    """

    def __init__(self, request: ServerRequest, transport: Connection) -> None:
        super().__init__(request)
        self._transport = transport
        self._has_buffered = False

    def write(self, data: bytes) -> None:
        self._has_buffered = True
        super().write(data)

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        if not self.consumer.startedWriting:
            self.write(b"")  # the head
        sent = None if self._has_buffered else self._send(file, offset, length)
        if sent != length:
            self._pause_producer()
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

    def _pause_producer(self) -> None:
        """Pause as the transport does with a full buffer; it resumes its producer once the socket is
        writable.
        """
        self._transport.producerPaused = True
        self.consumer.channel.pauseProducing()
        self._transport.startWriting()
        self._has_buffered = False
