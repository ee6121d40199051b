"""An emulated line: a proxy that delays, and limits the rate of each connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 64 * 1024


class _Line:
    """Forwards connections to a port on this machine.

    :param rate: bytes per second of each connection, towards the client.
    :param delay: seconds until the first byte of an answer, once for each direction change.
    """

    def __init__(self, port: int, rate: float, delay: float) -> None:
        self._port = port
        self._rate = rate
        self._delay = delay

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._delay)  # the handshake of TCP
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with suppress(ConnectionError):
            await asyncio.gather(
                self._copy(reader, upstream_writer, self._delay), self._copy(upstream_reader, writer, 0.0)
            )

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
        """Copy until the end; a pause of the source is followed by the delay of a round trip."""
        clock = asyncio.get_running_loop().time
        due = clock()
        try:
            while piece := await source.read(_PIECE):
                if delay:
                    await asyncio.sleep(delay)
                due = max(due, clock() - 0.01) + len(piece) / self._rate
                target.write(piece)
                await target.drain()
                await asyncio.sleep(max(0.0, due - clock()))
        finally:
            target.close()


@contextmanager
def line(port: int, rate: float, delay: float) -> Iterator[int]:
    """Run a line to that port, and give its own port."""
    loop = asyncio.new_event_loop()

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(_Line(port, rate, delay).forward, "127.0.0.1", 0, limit=4 * _PIECE)

    server = loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
