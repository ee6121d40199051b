"""An interpreter that has imported the mirror, and forks its programs, which would spend their time on that.

The tests tell it by JSON over a socket which program to fork, and ask it whether a fork has ended.  It ends
when they close the socket.  The tests import this module for their end, and the interpreter runs it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any

PROGRAMS = {"twistd": "twisted.scripts.twistd", "dockmirror": "dockmirror.cli.main"}
"""The modules of the programs in the directory of this interpreter; each has a function ``run``."""
_CHECKOUT = Path(__file__).parents[3]
_NEW_MOUNTS, _BIND, _RECURSIVE_PRIVATE, _DIES_WITH_PARENT = 0x20000, 4096, 0x44000, 1


class Fork:
    """A program in a session of its own, with the methods of ``subprocess.Popen`` that are used of it."""

    def __init__(self, pid: int, ask: Callable[[int], int | None]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ask = ask

    def poll(self) -> int | None:
        """Return the status if it has ended, as ``subprocess.Popen`` does."""
        if self.returncode is None:
            self.returncode = self._ask(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the status once it has ended.

        :raises subprocess.TimeoutExpired: when it has not.
        """
        pause, deadline = 0.002, None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return status


class Interpreter:
    """The interpreter, as the tests use it.

    :param patch: code that it runs before it imports the mirror.
    """

    def __init__(self, environment: Mapping[str, str], patch: str = "") -> None:
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        with other:
            # The command line names the programs, by which `dockmirror` finds running mirrors.
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", __file__, str(other.fileno()), patch, *PROGRAMS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": str(_CHECKOUT)},
                pass_fds=[other.fileno()],
                start_new_session=True,
            ).returncode = 0  # it ends after this process, so that nobody waits for it

    def fork(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        files: Sequence[IO[Any]],
        root: Path | None = None,
    ) -> Fork:
        """Run one of the programs.

        :param files: its standard input, output and errors.
        :param root: the directory whose ``etc`` and ``run`` it has as ``/etc`` and ``/run``, and in whose
            ``home`` it starts.
        """
        request = {"command": list(command), "environment": dict(environment), "root": root and str(root)}
        return Fork(
            self._ask(request, [each.fileno() for each in files]), lambda pid: self._ask({"ended": pid})
        )

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        root: Path | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the programs to its end, successful or not; see ``fork``."""
        with open(os.devnull) as nothing, TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
            fork = self.fork(command, environment, [nothing, out, errors], root)
            try:
                status = fork.wait(timeout)
            except subprocess.TimeoutExpired:
                os.kill(fork.pid, signal.SIGKILL)
                raise
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(list(command), status, out.read(), errors.read())

    def _ask(self, request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
            return json.loads(self._channel.recv(1024))


def is_program(command: Sequence[str]) -> bool:
    """Return True if an interpreter can fork the command."""
    program = Path(command[0])
    return program.parent == Path(sys.executable).parent and program.name in PROGRAMS


def _next_program(channel: socket.socket) -> dict[str, Any]:
    """Answer until this process is a fork with a session of its own, and return what that is to run."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, 100_000, 3)
        if not data:
            os._exit(0)
        request: dict[str, Any] = json.loads(data)
        if pid := request.get("ended"):
            ended, status = os.waitpid(pid, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
            channel.send(json.dumps(answer).encode())
        elif os.fork():
            for each in descriptors:
                os.close(each)
        else:
            os.setsid()
            channel.send(json.dumps(os.getpid()).encode())  # now a signal to its group reaches it
            for number, each in enumerate(descriptors):
                os.dup2(each, number)
            channel.detach()
            os.closerange(3, 100)
            return request


def _enter(root: str, libc: ctypes.CDLL) -> None:
    libc.unshare(_NEW_MOUNTS)
    libc.mount(b"none", b"/", None, _RECURSIVE_PRIVATE, None)
    for each in ("etc", "run"):
        assert libc.mount(f"{root}/{each}".encode(), f"/{each}".encode(), None, _BIND, None) == 0, each
    os.chdir(f"{root}/home")


def _import_all() -> None:
    """Import what the programs import, and prepare what each of them would prepare at its start."""
    import dockmirror

    gc.disable()
    for each in (*PROGRAMS.values(), "twisted.scripts._twistd_unix", "twisted.plugins.dockmirror_plugin"):
        import_module(each)
    for module in pkgutil.walk_packages(dockmirror.__path__, "dockmirror."):
        import_module(module.name)
    import_module("dockmirror.config.load").load({}, {})  # so that pydantic makes its validators
    assert "twisted.internet.reactor" not in sys.modules, "a fork needs one of its own"
    gc.freeze()
    gc.enable()


def main() -> None:
    """Become one program after the other, each in a fork."""
    libc = ctypes.CDLL(None, use_errno=True)
    exec(sys.argv[2], {})  # noqa: S102
    _import_all()
    request = _next_program(socket.socket(fileno=int(sys.argv[1])))
    libc.prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["root"]:
        _enter(request["root"], libc)
    sys.argv = request["command"]
    sys.exit(import_module(PROGRAMS[Path(sys.argv[0]).name]).run())


if __name__ == "__main__":
    main()
