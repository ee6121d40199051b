"""Three real mirrors with a bucket, behind HAProxy with the example of the documents."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from attrs import Factory, define, evolve, frozen

from demo.image import MANIFEST, digest_of
from demo.mirror import Mirror, mirror
from demo.program import free_port

from ..peers import distribution, haproxy, nginx
from ..peers.seaweedfs import ENVIRONMENT, seaweedfs
from .model import PARALLEL
from .workload import Image, Layer, Pull

MIRRORS = 3
_LOG = "log_format asked '$request_method $status $body_bytes_sent $uri';"
_PROXY = """
  access_log {log} asked;
  client_max_body_size 0;
  location / {{
    proxy_pass {url};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_buffering off;
    proxy_request_buffering off;
    {more}
  }}
"""
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_BUCKET = {"GET": "bucket GET blob", "PUT": "bucket PUT content"}
_SETTLED = 5.0
"""Seconds after which mirrors have uploaded what they fetched in a phase."""


@define
class Measured:
    """The outcome of pulls by real mirrors.

    :ivar counts: as ``model.Result`` names them.
    :ivar sent: the bytes that each mirror has sent to the load balancer.
    :ivar pulls: the pulls of each phase, with the times at which they began.
    :ivar seconds: of each phase.
    :ivar killed: the mirror that was killed, and the time.
    """

    counts: Counter[str] = Factory(Counter)
    sent: list[int] = Factory(list)
    pulls: list[list[Pull]] = Factory(list)
    seconds: list[float] = Factory(list)
    killed: tuple[int, float] | None = None


@frozen
class Parts:
    """The running programs, and the logs of the requests that they got."""

    registry: str
    balancer: int
    mirrors: Sequence[Mirror]
    upstream_log: Path
    bucket_log: Path
    balancer_log: Path


@frozen
class Phase:
    """Pulls that begin when those before are done and uploaded.

    :ivar kill: the mirror that is killed before, from 0 on; it stays dead.
    """

    pulls: Sequence[Pull]
    kill: int | None = None


@frozen
class Setup:
    """The fleet to run.

    :ivar connection: the upstream's rate for each connection, in bytes a second.
    :ivar confirmed: the mirrors' ``tag_ttl``, in seconds.
    :ivar bounded: True for the example as it is, and False without its bound.
    :ivar peers: True if the mirrors list each other as peers.
    """

    connection: int
    confirmed: float
    bounded: bool
    peers: bool


def measure(phases: Sequence[Phase], setup: Setup) -> Measured:
    """Run the pulls of all phases."""
    measured = Measured()
    with _running(setup) as parts:
        began = time.monotonic()
        for phase in phases:
            for image in {pull.image for pull in phase.pulls}:
                _push(parts.registry, image)
            if phase.kill is not None:
                os.kill(parts.mirrors[phase.kill].pid, signal.SIGKILL)
                measured.killed = phase.kill, time.monotonic() - began
            started = time.monotonic()
            measured.pulls.append(_pull_all(parts.balancer, phase.pulls, began))
            measured.seconds.append(time.monotonic() - started)
            time.sleep(_SETTLED)
        _read_logs(parts, measured)
    return measured


@contextmanager
def _running(setup: Setup) -> Iterator[Parts]:
    os.environ.update(ENVIRONMENT)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = stack.enter_context(distribution.registry(directory)).url.partition("/v2/")[0]
        bucket = stack.enter_context(seaweedfs(directory))
        logs = [directory / "upstream.log", directory / "bucket.log"]
        urls = [registry, bucket.endpoint]
        more = [f"limit_rate {setup.connection};", ""]
        ports = [
            stack.enter_context(nginx.serving(directory, _PROXY.format(log=log, url=url, more=each), _LOG))[0]
            for log, url, each in zip(logs, urls, more, strict=True)
        ]
        upstream, endpoint = (f"http://127.0.0.1:{port}" for port in ports)
        settings = evolve(bucket, endpoint=endpoint).settings
        places = [free_port() for _ in range(MIRRORS)]
        peers = [f"http://127.0.0.1:{port}" for port in places if setup.peers]
        own = f'{settings}tag_ttl = {setup.confirmed}\ntrust_proxy = ["127.0.0.1"]\n'
        own += f"peers = {json.dumps(peers)}\n"
        mirrors = [
            stack.enter_context(mirror(upstream, own=own, port=port, refresh_ahead=False)) for port in places
        ]
        balancer, log = stack.enter_context(haproxy.balancing(directory, places, setup.bounded))
        yield Parts(registry, balancer, mirrors, logs[0], logs[1], log)


def _pull_all(port: int, phase: Sequence[Pull], began: float) -> list[Pull]:
    """Run the pulls of a phase, each machine's in a thread of its own, at their times in the phase."""
    nodes = {pull.node for pull in phase}
    first = min(pull.time for pull in phase)
    started = time.monotonic()

    def run(node: int) -> list[Pull]:
        done = []
        for pull in phase:
            if pull.node == node:
                time.sleep(max(0.0, started + pull.time - first - time.monotonic()))
                done.append(evolve(pull, time=time.monotonic() - began))
                _pull(port, pull)
        return done

    with ThreadPoolExecutor(len(nodes)) as pool:
        return [pull for pulls in pool.map(run, nodes) for pull in pulls]


def _pull(port: int, pull: Pull) -> None:
    path = f"/v2/docker.io/{pull.image.repository}"
    _get(port, f"{path}/manifests/latest", MANIFEST)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in pool.map(lambda layer: _check(port, path, layer), pull.layers):
            pass


def _check(port: int, path: str, layer: Layer) -> None:
    digest = digest_of(data_of(layer))
    if digest_of(_get(port, f"{path}/blobs/{digest}")) != digest:
        raise ValueError(f"wrong bytes of {layer.name}")


def _get(port: int, path: str, accept: str = "*/*") -> bytes:
    """Return the body of a response; what is cut off is requested again, as clients do."""
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("GET", path, headers={"Accept": accept})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return body
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    raise ValueError(f"{path} was not answered")


@cache
def data_of(layer: Layer) -> bytes:
    """Return the bytes of a layer, which depend on its name only."""
    return random.Random(layer.name).randbytes(layer.size)


def manifest_of(image: Image) -> tuple[bytes, bytes]:
    """Return the manifest and the configuration of an image."""
    config = json.dumps({"image": image.repository, "version": image.version}).encode()
    layers = [_descriptor(_LAYER, data_of(layer)) for layer in image.layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(_CONFIG, config),
        "layers": layers,
    }
    return json.dumps(manifest).encode(), config


def _descriptor(media_type: str, data: bytes) -> Mapping[str, str | int]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _push(registry: str, image: Image) -> None:
    """Push an image with the tag ``latest``, directly to the registry."""
    parts = urlsplit(registry)
    connection = http.client.HTTPConnection(parts.netloc)
    manifest, config = manifest_of(image)
    for data in (config, *map(data_of, image.layers)):
        location = urlsplit(_send(connection, "POST", f"/v2/{image.repository}/blobs/uploads/", b"", ""))
        path = f"{location.path}?{location.query}&digest={digest_of(data)}"
        _send(connection, "PUT", path, data, "application/octet-stream")
    _send(connection, "PUT", f"/v2/{image.repository}/manifests/latest", manifest, MANIFEST)
    connection.close()


def _send(connection: http.client.HTTPConnection, method: str, path: str, data: bytes, kind: str) -> str:
    connection.request(method, path, data, {"Content-Type": kind, "Content-Length": str(len(data))})
    answer = connection.getresponse()
    answer.read()
    if answer.status not in (201, 202):
        raise ValueError(f"{method} {path} was answered with {answer.status}")
    return answer.headers["Location"] or ""


def _read_logs(parts: Parts, measured: Measured) -> None:
    counts = measured.counts
    for method, status, size, path in _lines(parts.upstream_log, 4):
        if "/manifests/" in path:
            name = "HEAD tag" if method == "HEAD" else "GET manifest"
            counts[f"upstream {name}"] += 1
        elif "/blobs/" in path and method == "GET" and status in ("200", "206"):
            counts["upstream GET blob"] += 1
            counts["upstream bytes"] += int(size)
    for method, status, _, path in _lines(parts.bucket_log, 4):
        if path.endswith("/data") and status.startswith("2") and method in _BUCKET:
            counts[_BUCKET[method]] += 1
    sent: Counter[str] = Counter()
    for _, server, size in (line for line in _lines(parts.balancer_log, 3) if line[0] == "asked"):
        sent[server] += int(size)
    measured.sent += [sent[f"mirror-{number}"] for number in range(1, MIRRORS + 1)]


def _lines(log: Path, words: int) -> Iterator[list[str]]:
    for line in log.read_text().splitlines():
        found = line.split()
        if len(found) == words:
            yield found
