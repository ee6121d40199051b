"""The mirror, started as its operator starts it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

_STARTS_WITHIN = 30.0
_STOPS_WITHIN = 10.0

# What lies at a private address is not taken for everybody's without a word.
_SETTINGS = """
listen = ["tcp:{port}:interface=127.0.0.1"]
operations = ""
workers = 1
grace = 1
cache = "{directory}/cache"

[upstreams.docker]
url = "{url}"
public = true
{upstream}"""


@frozen
class Mirror:
    """A mirror that listens on a port of the loopback interface.

    :ivar log: what it has printed, its access log included.
    """

    port: int
    pid: int
    log: Path


@contextmanager
def mirror(url: str, *options: str, **upstream: str | int) -> Iterator[Mirror]:
    """A mirror with an empty cache, to which this registry is Docker Hub; stopped at the end.

    :param upstream: further settings of that upstream.
    :raises RuntimeError: when it does not answer, with what it printed.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        settings, log = directory / "dockmirror.toml", directory / "mirror.log"
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in upstream.items())
        settings.write_text(_SETTINGS.format(url=url, port=port, directory=directory, upstream=lines))
        command: list[str | Path] = [
            Path(sys.executable).with_name("twistd"),
            "-n",
            "--pidfile=",
            "dockmirror",
        ]
        command += [f"--config={settings}", *options]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKMIRROR_")}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)  # noqa: S603
        try:
            _wait(process, port, log)
            yield Mirror(port, process.pid, log)
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the mirror does not answer:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
