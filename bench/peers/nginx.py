"""nginx as a file server, and as a caching proxy with the settings of docker-registry-proxy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from demo.program import free_port, listens, running

from .peer import Peer, repository

STATIC = "nginx static"
CACHE = "nginx proxy_cache"
_EXAMPLES = Path(__file__).parents[2] / "docs/examples"

_SETTINGS = """
daemon off;
worker_processes {workers};
pid {directory}/{port}.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  client_body_temp_path {directory}/{port}-body;
  proxy_temp_path {directory}/{port}-proxy;
  fastcgi_temp_path {directory}/{port}-fastcgi;
  uwsgi_temp_path {directory}/{port}-uwsgi;
  scgi_temp_path {directory}/{port}-scgi;
  {http}
  server {{ {server} }}
}}
"""

_FILES = """
  location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
  location ~ "/blobs/(sha256:[0-9a-f]+)$" {{ default_type application/octet-stream; alias {files}/$1; }}
"""

_CACHING = """
  proxy_set_header Host $proxy_host;
  proxy_ssl_name localhost;
  proxy_ssl_server_name on;
  {trust}
  location / {{ proxy_pass {upstream}; }}
  location ~ "/(blobs|manifests)/sha256:[0-9a-f]+$" {{
    proxy_pass {upstream};
    proxy_cache kept;
    proxy_cache_valid 200 60d;
    proxy_cache_key $uri;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 880s;
    proxy_cache_lock_age 880s;
  }}
"""


@contextmanager
def static(directory: Path, files: Path, workers: int = 1, certificate: Path | None = None) -> Iterator[Peer]:
    """Serve the blobs in a directory by their digests, through TLS if there is a certificate."""
    server, scheme = _FILES.format(files=files), "https" if certificate else "http"
    if certificate:
        server += tls(certificate)
    with serving(directory, server=server, workers=workers) as (port, pid):
        yield Peer(STATIC, f"{scheme}://127.0.0.1:{port}/v2/{repository(STATIC)}", pid)


@contextmanager
def in_front(
    directory: Path, example: str, mirror: Peer, certificate: Path, moved: Mapping[str, str]
) -> Iterator[Peer]:
    """Run an nginx in front of a mirror with an example of the documents.

    :param moved: further texts of the example to replace.
    """
    url = urlsplit(mirror.url)
    texts = {
        "127.0.0.1:8080": url.netloc,
        "/etc/ssl/mirror.example.com/fullchain.pem": str(certificate),
        "/etc/ssl/mirror.example.com/privkey.pem": str(certificate.with_suffix(".key")),
        **moved,
    }
    text = (_EXAMPLES / example).read_text("utf-8")
    for there, here in texts.items():
        text = text.replace(there, here)
    upstream, _, server = text.partition("\nserver {\n")
    lines = [line for line in server.rpartition("}")[0].splitlines() if "listen" not in line]
    with serving(directory, "\n".join(lines), http=upstream) as (port, pid):
        yield Peer(mirror.name, f"https://127.0.0.1:{port}{url.path}", pid)


@contextmanager
def proxy_cache(directory: Path, upstream: str, trusted: Path | None = None) -> Iterator[Peer]:
    """Run a caching proxy in front of this registry, which does not cache tags."""
    kept = f"proxy_cache_path {directory}/kept levels=1:2 keys_zone=kept:10m max_size=100g use_temp_path=off;"
    trust = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {trusted};" if trusted else ""
    server = _CACHING.format(upstream=upstream, trust=trust)
    with serving(directory, http=kept, server=server) as (port, pid):
        yield Peer(CACHE, f"http://127.0.0.1:{port}/v2/{repository(CACHE)}", pid)


@contextmanager
def serving(directory: Path, server: str, http: str = "", workers: int = 1) -> Iterator[tuple[int, int]]:
    """Run an nginx with these directives, and return its port and process."""
    port = free_port()
    settings = directory / f"nginx-{port}.conf"
    listen = f"listen 127.0.0.1:{port} reuseport {'ssl' if 'ssl_certificate ' in server else ''};"
    text = _SETTINGS.format(
        directory=directory, port=port, workers=workers, http=http, server=f"{listen}\n{server}"
    )
    settings.write_text(text)
    # The workers are nobody, and have to read what root has made.
    directory.chmod(0o755)
    command = ["nginx", "-c", str(settings), "-p", str(directory), "-e", "stderr"]
    with running(command, partial(listens, port), settings.with_suffix(".log"), os.environ) as pid:
        yield port, pid


def tls(certificate: Path) -> str:
    """Return the directives for TLS."""
    return f"ssl_certificate {certificate}; ssl_certificate_key {certificate.with_suffix('.key')};"


def files(directory: Path) -> str:
    """Return the directives that serve blobs from a directory, as a registry without tokens does."""
    return _FILES.format(files=directory)
