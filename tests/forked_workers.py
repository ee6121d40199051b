"""Workers of pytest-xdist that are forks of one process, which has collected the tests for all of them.

The run starts this module with a socket: it collects the tests, and forks at each connection.  execnet starts
this file as the interpreter of a worker, with the name of the socket: it passes its standard files on, and
ends when the fork does.  Without a process to fork, it becomes an interpreter that collects the tests itself.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def fork_workers(arguments: Sequence[str], workers: Sequence[Any]) -> subprocess.Popen[bytes]:
    """Have the workers, specifications of execnet, forked; return the process, which ends with its input.

    :param arguments: those of the run, which say what to collect.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # the system gives it a name that is no file
        listener.listen()
        for each in workers:
            each.python = shlex.join([sys.executable, __file__, "", listener.getsockname()[1:].decode()])
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __name__, "collect", str(listener.fileno()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )


def _fork(listener: socket.socket) -> None:
    """Return in each fork, which has the standard files that came with its connection."""
    children = []
    while 0 not in select.select([0, listener.fileno()], [], [])[0]:
        connection, _ = listener.accept()
        descriptors = socket.recv_fds(connection, 1, 3)[1]
        child = os.fork()
        for number, each in enumerate(descriptors):
            if not child:
                os.dup2(each, number)
            os.close(each)
        if not child:
            connection.send(b"1")
            connection.detach()  # it is closed when the fork ends
            return
        children.append(child)
        connection.close()
    for child in children:  # execnet has waited for them
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os._exit(0)


def _collect(arguments: Sequence[str], listener: socket.socket) -> None:
    from tests.collected import Collected  # a program that only passes files on needs no pytest

    Collected(arguments)
    _fork(listener)
    reactor: Any = sys.modules["twisted.internet.reactor"]
    reactor.__init__()  # it shares no descriptor with that of another fork
    exec(eval(sys.stdin.readline()), {"__name__": "__main__"})  # noqa: S102, S307  # execnet has it done so


def _work(interpreter: Sequence[str], name: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"\0{name}")
            socket.send_fds(connection, [b"1"], [0, 1, 2])
            forked = connection.recv(1)
        except ConnectionError:
            forked = b""
        if forked:
            connection.recv(1)
        else:
            os.execv(sys.executable, [sys.executable, *interpreter])  # noqa: S606


if __name__ == "__main__":
    _role, _socket, *_arguments = sys.argv[1:]
    if _role:
        _collect(_arguments, socket.socket(fileno=int(_socket)))
    else:
        _work(_arguments, _socket)
