"""Downloads of a whole image by containerd, without unpacking it."""

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
    """Run a containerd, and give a function that downloads an image and returns the seconds; needs root."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "config.toml").write_text(_SETTINGS.format(directory=directory))
        socket, command = directory / "socket", ["containerd", f"--config={directory}/config.toml"]
        with running(command, socket.exists, directory / "log", dict(os.environ)):
            yield partial(_fetch, str(socket))


def _fetch(socket: str, image: str) -> float:
    ctr = ["ctr", f"--address={socket}"]
    started = time.monotonic()
    _run(*ctr, "content", "fetch", "--plain-http", image)
    seconds = time.monotonic() - started
    _run(*ctr, "images", "rm", "--sync", image)
    return seconds


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
