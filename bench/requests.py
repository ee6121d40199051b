"""``python -m bench.requests``: the mirror's own processor time for a request through it.

The upstream demands tokens and redirects to its blobs; the blob is small, so that its bytes weigh nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from attrs import frozen

from demo.client import Client, token_path
from demo.image import image
from demo.mirror import Mirror, mirror
from demo.upstream import Upstream, upstream

from .process import processor_time
from .results import record

LIMIT = 0.005
"""Seconds of processor time that a request may cost."""
CLIENTS = 8


@frozen
class Case:
    """One kind of request, and the status that is right."""

    name: str
    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 200


@frozen
class Cost:
    """What a case cost: seconds of the mirror's processor time for a request, and requests in a second."""

    case: Case
    seconds: float
    rate: float

    def __str__(self) -> str:
        return f"{self.case.name} {self.seconds * 1e3:.2f} ms"


def main() -> int:
    """Prints one line, and keeps the figures."""
    parser = argparse.ArgumentParser(description="Processor time for a request.")
    parser.add_argument("--requests", type=int, default=4000, help="how many of each kind")
    count = parser.parse_args().requests
    with upstream(image(1024)) as registry, mirror(f"--upstream=docker={registry.url}") as running:
        costs = [measure(running, case, count) for case in cases(running, registry)]
    print(f"The mirror's processor time for a request: {', '.join(map(str, costs))}.")
    record("Requests", f"{_table(costs)}\n\n{count} requests of each kind, from {CLIENTS} clients at a time.")
    return 0 if all(cost.seconds < LIMIT for cost in costs) else 1


def cases(running: Mirror, registry: Upstream) -> list[Case]:
    """What clients ask, on a virtual host with a token and on the mirror's own host without."""
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


def measure(running: Mirror, case: Case, count: int) -> Cost:
    """Asks so many times, from several clients that keep their connections; a tenth is for warming up."""
    ask = partial(_ask, running.port, case)
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, [count // CLIENTS // 10 + 1] * CLIENTS))
        used, started = processor_time(running.pid), time.monotonic()
        asked = sum(pool.map(ask, [count // CLIENTS] * CLIENTS))
        elapsed = time.monotonic() - started
    return Cost(case, (processor_time(running.pid) - used) / asked, asked / elapsed)


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


def _table(costs: list[Cost]) -> str:
    rows = [f"| {cost.case.name} | {cost.seconds * 1e3:.2f} | {cost.rate:.0f} |" for cost in costs]
    head = ["| request | processor time of the mirror, ms | requests in a second |", "| --- | --- | --- |"]
    return "\n".join(head + rows)


if __name__ == "__main__":
    sys.exit(main())
