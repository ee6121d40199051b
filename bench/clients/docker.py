"""Pulls of a whole image by a Docker daemon that has none."""

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


@contextmanager
def daemon() -> Iterator[Callable[[str], float]]:
    """Run a daemon, and give a function that pulls an image and returns the seconds it took; needs root.

    It unpacks the layers as well; registries on the loopback interface need no TLS.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        socket = f"unix://{directory}/docker.sock"
        command = [
            "dockerd", f"--host={socket}", f"--data-root={directory}/data", f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid", f"--config-file={directory}/none.json", "--iptables=false",
            "--ip6tables=false", "--bridge=none",
        ]  # fmt: skip
        (directory / "none.json").write_text("{}")
        docker = partial(_docker, socket)
        with running(command, partial(_answers, docker), directory / "log", dict(os.environ)):
            yield partial(_pull, docker)


def _pull(docker: Callable[..., None], image: str) -> float:
    started = time.monotonic()
    docker("pull", image)
    seconds = time.monotonic() - started
    docker("rmi", image)
    return seconds


def _docker(socket: str, *arguments: str) -> None:
    subprocess.run(  # noqa: S603
        ["docker", f"--host={socket}", *arguments], check=True, capture_output=True  # noqa: S607
    )  # fmt: skip


def _answers(docker: Callable[..., None]) -> bool:
    try:
        docker("version")
    except subprocess.CalledProcessError:
        return False
    return True
