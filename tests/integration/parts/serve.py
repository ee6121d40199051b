"""The mirror as ``dockmirror serve`` runs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import IO
from urllib.request import ProxyHandler, build_opener

from .interpreter import Fork
from .machine import Machine
from .mirror import Mirror
from .process import Process, wait_until

COMMAND = str(Path(sys.executable).with_name("dockmirror"))


class ServedMirror(Process):
    """A mirror of nothing that can be reached, with the settings of its command line and its machine.

    :param url: an address at which it answers.
    """

    def __init__(self, machine: Machine, url: str, *options: str) -> None:
        self.url = url
        self.cache = machine.directory / "cache"
        self._machine = machine
        super().__init__(
            [COMMAND, "serve", *options],
            log=machine.directory / "serve.log",
            ready=lambda: answers(url) and "try: " in self.log.read_text(),
            environment={
                **machine.environment,
                "CACHE_DIRECTORY": str(self.cache),
                "STATE_DIRECTORY": str(machine.directory / "state"),
            },
        )

    def _run(self, out: IO[bytes], errors: IO[bytes]) -> Fork:
        return self._machine.fork(self.command, self._environment, out, errors)


def answers(url: str) -> bool:
    """Return whether a mirror answers at the address."""
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/v2/", timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def use_serve(mirror: Mirror) -> None:
    """Let a mirror be started by ``dockmirror serve`` from now on, with the same settings."""
    mirror.stop()
    mirror.use(COMMAND, "serve", "--config", str(mirror.configuration))
    mirror.start()


def send_to_group(mirror: Process, number: signal.Signals, answer: str) -> None:
    """Send a signal as a terminal does, to the mirror and its workers, and wait for a line of its log."""
    os.killpg(mirror.pid, number)
    wait_until(lambda: answer in mirror.log.read_text(), f"it says {answer!r}")


def has_ended(mirror: Process) -> bool:
    """Return whether the process has exited; nobody has asked for its status yet."""
    stat = Path(f"/proc/{mirror.pid}/stat").read_text().rpartition(")")[2].split()
    return stat[0] == "Z"
