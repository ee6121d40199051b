"""A mirror as a process, started in the same way as by its operator."""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from .program import free_port, running

# The settings name the port of the registry, and not those of its token service and blobs, so the network is
# allowed.  Content from a private address counts as public only if the operator says so.
_SETTINGS = """
listen = ["tcp:{port}:interface=127.0.0.1"]
operations = ""
workers = 1
grace = 1
cache = "{directory}/cache"
min_free = "0B"
{own}
[upstreams.docker]
url = "{url}"
public = true
allow_networks = ["127.0.0.0/8"]
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
def mirror(
    url: str, *options: str, own: str = "", port: int | None = None, **upstream: str | int
) -> Iterator[Mirror]:
    """Run a mirror with an empty cache whose Docker Hub is this registry.

    :param own: lines of further settings of its own.
    :param port: where it listens, instead of on any free port.
    :param upstream: further settings of that upstream.
    :raises RuntimeError: when it does not answer, with its output.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        settings, log = directory / "dockmirror.toml", directory / "mirror.log"
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in upstream.items())
        if "history =" not in own:
            own += f'\nhistory = "{directory}/history"'
        text = _SETTINGS.format(url=url, port=port, directory=directory, own=own, upstream=lines)
        settings.write_text(text)
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "-n", "--pidfile=", "dockmirror", f"--config={settings}", *options]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKMIRROR_")}
        with running(command, partial(_answers, port), log, environment) as pid:
            yield Mirror(port, pid, log)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
