"""Hands a listening socket to programs as systemd does, to several of them if the test says so."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from .process import free_port

_LAUNCHER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(sys.argv[1])
    (listening,) = socket.recv_fds(asking, 1, 1)[1]
if listening == 3:
    os.set_inheritable(3, True)
else:
    os.dup2(listening, 3)
    os.close(listening)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="dockmirror.socket", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class SocketUnit:
    """A socket that listens for as long as the test wants, whichever programs have it.

    :ivar port: of the loopback interface.
    """

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._path = directory / "socket-unit"
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self._asked = socket.socket(socket.AF_UNIX)
        self._asked.bind(str(self._path))
        self._asked.listen()

    @property
    def launcher(self) -> list[str]:
        """The command that becomes the program whose command follows, as a service of this socket."""
        return [sys.executable, "-c", _LAUNCHER, str(self._path)]

    def __enter__(self) -> Self:
        Thread(target=self._hand_over, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked.shutdown(socket.SHUT_RDWR)
        self._asked.close()
        self._listening.close()

    def _hand_over(self) -> None:
        with suppress(OSError):  # closed at the end
            while True:
                asking, _ = self._asked.accept()
                with asking:
                    socket.send_fds(asking, [b"0"], [self._listening.fileno()])
