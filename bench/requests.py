"""``python -m bench.requests``: the mirror's own processor time for a request through it.

The upstream demands tokens and redirects to its blobs; the blob is small, so that its bytes weigh nothing.
Without the cache each request goes on to the upstream; with it, each but the first is answered from there.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
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
    """What a case cost: seconds of the mirror's processor time for a request."""

    case: Case
    seconds: float

    def __str__(self) -> str:
        return f"{self.case.name} {self.seconds * 1e3:.2f} ms"


def main() -> int:
    """Prints one line, and keeps the figures."""
    parser = argparse.ArgumentParser(description="Processor time for a request.")
    parser.add_argument("--requests", type=int, default=4000, help="how many of each kind")
    parser.add_argument("--relay", action="store_true", help="without the cache")
    given = parser.parse_args()
    count, options = given.requests, ["--cache-size=0"] if given.relay else []
    with upstream(image(1024)) as registry, mirror(registry.url, *options) as running:
        costs = [measure(running, case, count) for case in cases(running, registry)]
    how = f"{'without' if given.relay else 'with'} the cache"
    print(f"The mirror's processor time for a request, {how}: {', '.join(map(str, costs))}.")
    asked = f"{count} requests of each kind, from {CLIENTS} clients at a time."
    record(f"Requests, {how}", f"{_table(costs)}\n\n{asked}  The limit is {LIMIT * 1e3:.0f} ms.")
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
        used = processor_time(running.pid)
        asked = sum(pool.map(ask, [count // CLIENTS] * CLIENTS))
    return Cost(case, (processor_time(running.pid) - used) / asked)


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
    rows = [f"| {cost.case.name} | {cost.seconds * 1e3:.2f} |" for cost in costs]
    head = ["| request | processor time of the mirror, ms |", "| --- | --- |"]
    return "\n".join(head + rows)


if __name__ == "__main__":
    sys.exit(main())
