"""The process of a worker, which a terminal's signals do not end at any time of its life."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.config.load import load, pack
from dockmirror.system.posix import blocked_signals
from dockmirror.web.shared_tables import create_shared_memory
from dockmirror.workers.worker_pool import TERMINAL_SIGNALS

PATIENCE = 120


class StartedWorker:
    """A worker that was started as the pool starts it, and whose imports take some time."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(PATIENCE)
        memory, listening = create_shared_memory(), socket.create_server(("127.0.0.1", 0))
        descriptors = [theirs.fileno(), memory, listening.fileno()]
        arguments = [*map(str, descriptors[:2]), f"{listening.fileno()}:{int(listening.family)}"]
        with theirs, listening, blocked_signals(TERMINAL_SIGNALS):
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "dockmirror.app.worker_main", *arguments],
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=descriptors,
                stderr=subprocess.PIPE,
                text=True,
            )
        os.close(memory)

    def receive_terminal_signals(self) -> None:
        for each in TERMINAL_SIGNALS:
            self.process.send_signal(each)

    def call(self, method: str, value: object = None) -> object:
        """Call a method, and return its answer."""
        self._channel.sendall(json.dumps({"call": method, "value": value, "id": 1}).encode() + b"\n")
        with self._channel.makefile() as lines:
            return json.loads(lines.readline() or "null")

    def signal_mask(self, name: str) -> set[signal.Signals]:
        """Return which of a terminal's signals the process blocks (SigBlk) or ignores (SigIgn)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith(name))
        return {each for each in TERMINAL_SIGNALS if mask >> (each - 1) & 1}

    def disconnect(self) -> str:
        """Close the channel, and return what the worker printed when it has exited."""
        self._channel.close()
        return self.process.communicate(timeout=PATIENCE)[1]

    def close(self) -> None:
        self._channel.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def worker() -> Iterator[StartedWorker]:
    worker = StartedWorker()
    yield worker
    worker.close()


def test_a_terminals_signals_do_not_end_a_worker_that_imports_or_serves(worker: StartedWorker) -> None:
    """It prints nothing about them."""
    worker.receive_terminal_signals()
    assert worker.call("transfers") == {"answer": 0, "id": 1}
    worker.receive_terminal_signals()
    assert worker.call("transfers") == {"answer": 0, "id": 1}
    assert (worker.disconnect(), worker.process.returncode) == ("", 0)


def test_a_worker_lets_its_own_programs_receive_signals(worker: StartedWorker) -> None:
    """Programs inherit blocked signals, and Twisted resets only ignored ones."""
    worker.call("transfers")
    assert worker.signal_mask("SigIgn:") == set(TERMINAL_SIGNALS)
    assert worker.signal_mask("SigBlk:") == set()


def test_a_worker_starts_with_what_was_read_of_files_that_are_gone_now(
    worker: StartedWorker, tmp_path: Path
) -> None:
    """A file that was not read either is an error in the words of the settings."""
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    docker = {"username": "alice", "password_file": str(file)}
    options = {"cache_size": "0", "history": False, "networks": ["private"], "upstreams": {"docker": docker}}
    settings = load({"listen": ["tcp:0"], **options}, {})
    unread, password = pack(settings), settings.upstreams["docker"].password_file
    assert password is not None
    password.read_once()
    file.unlink()
    missing = f"upstreams.docker.password_file: {file} cannot be read: No such file or directory"
    assert worker.call("start", {**unread, "processes": 2}) == {"error": missing, "id": 1}
    assert worker.call("start", {**pack(settings), "processes": 2}) == {"answer": None, "id": 1}
    assert worker.call("apply", unread) == {"error": missing, "id": 1}
