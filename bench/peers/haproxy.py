"""HAProxy in front of several mirrors, by the example for operators."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from demo.program import free_port, listens, running

BOUND = 1.25
"""The bound on a mirror's share of the running requests in the example."""
_EXAMPLE = Path(__file__).parents[2] / "docs/examples/haproxy.cfg"
_SERVERS = re.compile(r"^ *server \S+ +10\.0\.0\.\d+:8080.*\n", re.MULTILINE)
_LOG = '    log stdout format raw daemon\n    log-format "asked %s %B"\n'


@contextmanager
def balancing(directory: Path, ports: Sequence[int], bounded: bool = True) -> Iterator[tuple[int, Path]]:
    """Run the example without TLS; yield its port, and its log of the mirror and the bytes of each request.

    :param ports: those of the mirrors.
    :param bounded: False for the example without its bound.
    """
    port = free_port()
    example = _EXAMPLE.read_text("utf-8")
    if not bounded:
        example = example.replace(f"hash-balance-factor {BOUND * 100:g}", "hash-balance-factor 0")
    example = re.sub(r"bind :443 .*", f"bind 127.0.0.1:{port}", example)
    example = example.replace("/run/haproxy/admin.sock", str(directory / "admin.sock"))
    example = example.replace("frontend clients\n", f"frontend clients\n{_LOG}")
    listed = (f"    server mirror-{n} 127.0.0.1:{each} id {n}\n" for n, each in enumerate(ports, 1))
    settings, log = directory / "haproxy.cfg", directory / "haproxy.log"
    settings.write_text(_SERVERS.sub("", example) + "".join(listed))
    with running(["haproxy", "-db", "-f", str(settings)], partial(listens, port), log, os.environ):
        yield port, log
