"""Programs that run beside the tests: started until they answer, stopped, and what they print kept."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .interpreter import Fork, Interpreter

#: Nothing of the caller's environment reaches a program: proxies and CA bundles set there would change it.
CLEAN_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
BYTECODE = (
    {"PYTHONPYCACHEPREFIX": sys.pycache_prefix} if sys.pycache_prefix else {"PYTHONDONTWRITEBYTECODE": "1"}
)
"""Compiling the mirror's modules takes a third of the time of a start, so it is done once for a run."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2
"""Seconds between two looks at a condition: what has not come soon is not worth the processor of many."""
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


@cache
def interpreter(patch: str = "") -> Interpreter:
    """The interpreter that this worker's mirrors and commands with a patch are forked from."""
    return Interpreter({**CLEAN_ENVIRONMENT, **BYTECODE}, patch)


def own_share(ports: range) -> range:
    """Return those of the ports that no other worker of pytest-xdist is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return ports[worker % workers :: workers]


@cache  # made when it is needed: this module is imported once for all workers
def _ports() -> Iterator[int]:
    """They lie below those from which systems give some to whoever asks for any; SeaweedFS has others."""
    own = own_share(range(24_000, 32_000))
    return cycle(random.sample(own, len(own)))


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nobody listens now, and which nobody else here is given for long.

    No port that the system gives to whoever connects: then it would not be sure to be free at a restart.
    """
    return next(port for port in _ports() if is_free(host, port))


def is_free(host: str, port: int) -> bool:
    """Return True if nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listens(host: str, port: int) -> bool:
    """Return True if a connection to *port* is accepted."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Look again and again, ever less often, until *condition* holds; a machine that is busy may need long.

    A look that takes long, because it starts a program, is followed by a pause as long, up to a second.

    :raises TimeoutError: *what* did not come about in time.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    deadline = began + seconds
    while not condition():
        ended = time.monotonic()
        if ended > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(max(pause, min(ended - began, 1.0)))
        began, pause = time.monotonic(), min(pause * 1.2, _LONGEST_PAUSE)


class Process:
    """A program in a session of its own, whose output is appended to a log file."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] = CLEAN_ENVIRONMENT,
        errors: Path | None = None,
    ) -> None:
        self.command = list(command)
        self.log = log
        self._errors = errors or log
        self._ready = ready
        self._environment = dict(environment)
        self._popen: subprocess.Popen[bytes] | Fork | None = None

    @property
    def pid(self) -> int:
        """The process id of the program while it runs."""
        assert self._popen is not None, "not started"
        return self._popen.pid

    def start(self) -> None:
        """Run the program and wait until it is ready."""
        with self.log.open("ab") as out, self._errors.open("ab") as errors:
            self._popen = self._run(out, errors)
        try:
            wait_until(self._alive_and_ready, f"{self.command[0]} answers; see {self._errors}")
        except BaseException:
            self.kill()
            raise

    def stop(self, seconds: float = 10) -> None:
        """Ask the program to end, and end it if it does not."""
        self._signal(signal.SIGTERM)
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End the program, and whatever it started in its session, at once."""
        self._signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()
            group, self._popen = self._popen.pid, None
            wait_until(lambda: not _has_members(group), f"all of {self.command[0]} has ended")

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill the program, and start it again at the end of the block."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, out: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes] | Fork:
        return subprocess.Popen(  # noqa: S603
            [*_DIES_WITH_US, *self.command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            env=self._environment,
            start_new_session=True,
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def _alive_and_ready(self) -> bool:
        if self._popen is not None and self._popen.poll() is not None:
            raise RuntimeError(
                f"{' '.join(self.command)} ended with {self._popen.returncode}:\n"
                + self._errors.read_text(errors="replace")[-4000:]
            )
        return self._ready()


def _has_members(group: int) -> bool:
    """Return True if a process of that group runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(_group_of(stat) == group for stat in Path("/proc").glob("[0-9]*/stat"))


def _group_of(stat: Path) -> int | None:
    """The process group, or None if the process has ended."""
    try:
        state, _, group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state in "ZX" else int(group)
