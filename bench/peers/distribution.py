"""Debian's docker-registry: as a registry of its own, and as a pull-through cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from demo.program import free_port, listens, running

from .peer import Peer, repository

NAME = "distribution"

_SETTINGS = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {directory}/{port}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def registry(directory: Path) -> Iterator[Peer]:
    """An empty registry."""
    with _serving(directory, "docker-registry", "") as peer:
        yield peer


@contextmanager
def pull_through(directory: Path, upstream: str, trusted: Path | None = None) -> Iterator[Peer]:
    """A pull-through cache in front of this registry.

    :param trusted: the certificate that the upstream shows.
    """
    with _serving(directory, NAME, f'proxy: {{remoteurl: "{upstream}"}}\n', trusted) as peer:
        yield peer


@contextmanager
def _serving(directory: Path, name: str, more: str, trusted: Path | None = None) -> Iterator[Peer]:
    port = free_port()
    settings = directory / f"distribution-{port}.yml"
    settings.write_text(_SETTINGS.format(directory=directory, port=port) + more)
    command = ["docker-registry", "serve", str(settings)]
    # An empty bundle of AWS's keeps its storage drivers from reading one that is not there.
    environment = {**os.environ, "AWS_CA_BUNDLE": "", **({"SSL_CERT_FILE": str(trusted)} if trusted else {})}
    with running(command, partial(listens, port), settings.with_suffix(".log"), environment) as pid:
        yield Peer(name, f"http://127.0.0.1:{port}/v2/{repository(name)}", pid)
