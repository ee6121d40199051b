"""Pulls of a whole image by containerd, as a node of Kubernetes makes them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from demo.program import running

_AT_ONCE = 3
"""The downloads at once that containerd makes by default for the kubelet (``max_concurrent_downloads``)."""
_SETTINGS = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{directory}/socket"
"""


@contextmanager
def daemon() -> Iterator[Callable[[str], float]]:
    """Run a containerd, and give a function that pulls an image and returns the seconds; needs root."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "config.toml").write_text(_SETTINGS.format(directory=directory))
        socket, command = directory / "socket", ["containerd", f"--config={directory}/config.toml"]
        with running(command, socket.exists, directory / "log", dict(os.environ)):
            yield partial(_pull, str(socket))


def _pull(socket: str, image: str) -> float:
    ctr = ["ctr", f"--address={socket}"]
    started = time.monotonic()
    _run(*ctr, "images", "pull", "--plain-http", f"--max-concurrent-downloads={_AT_ONCE}", image)
    seconds = time.monotonic() - started
    _run(*ctr, "images", "rm", "--sync", image)
    return seconds


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
