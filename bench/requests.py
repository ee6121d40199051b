"""``python -m bench.requests``: the mirror's own processor time for a request."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from attrs import frozen

from demo.client import Client, token_path
from demo.image import image
from demo.mirror import Mirror, mirror
from demo.upstream import Upstream, upstream

from .command import run
from .process import processor_time
from .table import Row, at_most

LIMIT = 5
"""Milliseconds of processor time that a request may cost."""
CLIENTS = 8
REQUESTS = 1000


@frozen
class Case:
    """One kind of request, and its expected status."""

    name: str
    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 200


def rows(rounds: int) -> Iterator[Row]:
    """Measure each case once, as processor time hardly differs from run to run."""
    for how, options in (("without a cache", ["--cache-size=0"]), ("with the cache", [])):
        with upstream(image(1024)) as registry, mirror(registry.url, *options) as running:
            for case in cases(running, registry):
                cost = measure(running, case, REQUESTS) * 1e3
                yield Row(f"{case.name}, {how}", "processor ms a request", [cost], aim=at_most(LIMIT))


def cases(running: Mirror, registry: Upstream) -> list[Case]:
    """Return the requests of clients, on a virtual host with a token and on the mirror's own host without."""
    host = f"docker.localhost:{running.port}"
    named, bearer = {"Host": host}, {"Host": host, "Authorization": f"Bearer {_token(running, host)}"}
    blob = next(iter(registry.image.blobs))
    scope = "/v2/auth?scope=repository:hello:pull"
    return [
        Case("ping", "GET", "/v2/", named, 401),
        Case("token", "GET", scope, named),
        Case("manifest HEAD", "HEAD", "/v2/hello/manifests/latest", bearer),
        Case("manifest GET", "GET", "/v2/hello/manifests/latest", bearer),
        Case("redirected blob", "GET", f"/v2/hello/blobs/{blob}", bearer),
        Case("own host, manifest", "GET", "/v2/docker.io/library/hello/manifests/latest", {}),
        Case("own host, redirected blob", "GET", f"/v2/docker.io/library/hello/blobs/{blob}", {}),
    ]


def measure(running: Mirror, case: Case, count: int) -> float:
    """Return the mirror's processor time for one request, in seconds, as the mean of many."""
    ask = partial(_ask, running.port, case)
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, [count // CLIENTS // 10 + 1] * CLIENTS))
        used = processor_time(running.pid)
        asked = sum(pool.map(ask, [count // CLIENTS] * CLIENTS))
    return (processor_time(running.pid) - used) / asked


def _ask(port: int, case: Case, count: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(count):
        connection.request(case.method, case.path, headers=case.headers)
        response = connection.getresponse()
        response.read()
        if response.status != case.status:
            raise ValueError(f"{case.name}: status {response.status}")
    connection.close()
    return count


def _token(running: Mirror, host: str) -> str:
    client = Client(host, running.port)
    answer = client.ask(token_path(client.ask("/v2/"), "repository:hello:pull"))
    return str(json.loads(answer.body)["token"])


if __name__ == "__main__":
    run(rows)
