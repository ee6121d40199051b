"""HAProxy in front of several mirrors, hashing as the example for operators does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from demo.program import free_port, listens, running

EXAMPLE = Path(__file__).parents[2] / "docs/examples/haproxy.cfg"
_DEFAULTS = """
global
    maxconn 4096
defaults
    mode http
    timeout connect 2s
    timeout client 300s
    timeout server 90s
"""


@contextmanager
def balancing(directory: Path, servers: Sequence[str]) -> Iterator[str]:
    """Run HAProxy with the hash of the example in front of servers, and yield its address."""
    port, file = free_port(), directory / "haproxy.cfg"
    hashing = [
        line
        for line in EXAMPLE.read_text("utf-8").splitlines()
        if line.strip().startswith(("http-request set-var", "balance", "hash-", "default-server"))
    ]
    listed = [f"    server mirror-{n} {each} id {n}" for n, each in enumerate(servers, 1)]
    frontend = ["frontend clients", f"    bind 127.0.0.1:{port}", "    default_backend mirrors"]
    file.write_text("\n".join([_DEFAULTS, *frontend, "backend mirrors", *hashing, *listed, ""]))
    command = ["haproxy", "-db", "-f", str(file)]
    with running(command, partial(listens, port), file.with_suffix(".log"), os.environ):
        yield f"127.0.0.1:{port}"
