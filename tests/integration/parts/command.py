"""The command beside the mirror."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

from .mirror import Mirror
from .process import BYTECODE, CLEAN_ENVIRONMENT, interpreter


def dockmirror(
    mirror: Mirror, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, with the mirror's own settings."""
    return interpreter().run(_command(mirror, *arguments), {**_ENVIRONMENT, **(environ or {})})


class AtTerminal:
    """The command where people run it: what it prints goes to a terminal of 80 columns."""

    def __init__(self, mirror: Mirror, *arguments: str) -> None:
        self._terminal, other = os.openpty()
        termios.tcsetwinsize(other, (24, 80))
        self._process = subprocess.Popen(  # noqa: S603
            # A terminal's programs hear Ctrl-C, even where the tests run in the background of a script.
            ["/usr/bin/env", "--default-signal=INT", *_command(mirror, *arguments)],
            env={**_ENVIRONMENT, "TERM": "xterm"},
            stdin=other, stdout=other, stderr=other,
            start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.printed = ""

    def read_until(self, words: str) -> None:
        """Waits until it has printed that.

        :raises AssertionError: when it ends before.
        """
        while words not in self.printed:
            assert self._read(), self.printed

    def interrupt(self) -> int:
        """Ctrl-C, and what it ends with."""
        self._process.send_signal(signal.SIGINT)
        while self._read():
            pass
        os.close(self._terminal)
        return self._process.wait()

    def _read(self) -> bool:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # nobody is at the other end
            return False
        self.printed += data.decode(errors="replace")
        return bool(data)


_ENVIRONMENT = {**CLEAN_ENVIRONMENT, **BYTECODE, "COLUMNS": "80"}


def _command(mirror: Mirror, *arguments: str) -> list[str]:
    command = str(Path(sys.executable).with_name("dockmirror"))
    return [command, "-c", str(mirror.configuration), *arguments]
