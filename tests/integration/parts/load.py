"""Clients that pull an image again and again, and count what fails."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from tests.long import LONG

from .images import Image
from .process import wait_until

CLIENTS = 8
ROUNDS = 20 if LONG else 3
"""How often each client pulls the image after each step of a test."""
_PAUSE = 0.1
"""Seconds after each request: the processor is for what happens to the mirror meanwhile."""
Connect = Callable[[], http.client.HTTPConnection]


class Load:
    """Eight clients.

    :ivar failures: the requests that were not answered as they should be.
    :ivar received: the bytes of bodies so far.
    """

    def __init__(
        self,
        connect: Connect,
        headers: Mapping[str, str],
        repository: str,
        pulled: Image,
    ) -> None:
        self.failures: list[object] = []
        self.received = 0
        self._connect = connect
        self._headers = dict(headers)
        self._wanted = [
            (f"/v2/{repository}/manifests/latest", pulled.manifest.data),
            *((f"/v2/{repository}/blobs/{each.digest}", each.data) for each in pulled.blobs),
        ]
        self._counts = [0] * CLIENTS
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for each in self._threads:
            each.join()

    def go_on(self) -> None:
        """Wait until each client has made some requests more."""
        wanted = [count + ROUNDS * len(self._wanted) for count in self._counts]
        wait_until(lambda: all(map(int.__ge__, self._counts, wanted)), "all clients go on")

    @property
    def count(self) -> int:
        """The number of requests so far."""
        return sum(self._counts)

    def _run(self, number: int) -> None:
        connection = self._connect()
        while not self._stopped.is_set():
            for path, data in self._wanted:
                if number % 2:  # a connection for each request
                    connection.close()
                body: bytes | Exception
                try:
                    body = self._get(connection, path)
                except (OSError, http.client.HTTPException) as error:
                    body = error
                    connection.close()
                if body != data:
                    self.failures.append((path, body))
                with self._lock:
                    self.received += len(data)
                self._counts[number] += 1
                self._stopped.wait(_PAUSE)
        connection.close()

    def _get(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        """Ask once, and again if a connection that was used before is closed, as clients do."""
        is_used = connection.sock is not None
        try:
            return self._ask(connection, path)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            connection.close()
            if not is_used:
                raise
            return self._ask(connection, path)

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        connection.request("GET", path, None, self._headers)
        response = connection.getresponse()
        body = response.read()
        return body if response.status == 200 else b"%d " % response.status + body
