"""Debian's docker-registry: as a registry, and as a pull-through cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from demo.program import free_port, listens, running

from .peer import Peer, repository

NAME = "distribution"

_SETTINGS = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {storage}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def registry(directory: Path) -> Iterator[Peer]:
    """Run an empty registry."""
    with _serving(directory, "docker-registry", "") as peer:
        yield peer


@contextmanager
def pull_through(directory: Path, upstream: str, trusted: Path | None = None) -> Iterator[Peer]:
    """Run a pull-through cache in front of this registry."""
    with _serving(directory, NAME, f'proxy: {{remoteurl: "{upstream}"}}\n', trusted) as peer:
        yield peer


@contextmanager
def bucket(directory: Path, driver: str, mirror: str) -> Iterator[Peer]:
    """Run a registry that serves what mirrors have put into a bucket."""
    with _serving(directory, "distribution, s3", "", storage=driver) as peer:
        yield Peer(peer.name, peer.url.partition("/v2/")[0] + urlsplit(mirror).path, peer.pid)


@contextmanager
def _serving(
    directory: Path, name: str, more: str, trusted: Path | None = None, storage: str = ""
) -> Iterator[Peer]:
    port = free_port()
    storage = storage or (
        f"{{filesystem: {{rootdirectory: {directory}/{port}}},"
        " maintenance: {uploadpurging: {enabled: false}}}"
    )
    settings = directory / f"distribution-{port}.yml"
    settings.write_text(_SETTINGS.format(storage=storage, port=port) + more)
    command = ["docker-registry", "serve", str(settings)]
    # An empty bundle of AWS's keeps its storage drivers from reading one that is not there.
    environment = {**os.environ, "AWS_CA_BUNDLE": "", **({"SSL_CERT_FILE": str(trusted)} if trusted else {})}
    with running(command, partial(listens, port), settings.with_suffix(".log"), environment) as pid:
        yield Peer(name, f"http://127.0.0.1:{port}/v2/{repository(name)}", pid)
