"""The operations endpoint of a running mirror, scraped as a monitoring system does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from tests.scraped import Samples, parsed

from .conftest import MakeChain, MakeMachine
from .parts.chain import Chain
from .parts.images import image
from .parts.kept import blob_file
from .parts.process import free_port, wait_until
from .parts.programs import require
from .parts.prometheus import Prometheus
from .parts.stream import begun, digest_of, fetched

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[2]
LAYER = 32_000_000
ABSENT = (
    "admissions",
    "bucket_",
    "certificate",
    "failures",
    "limited",
    "peer_",
    "pushed",
    "ratelimit",
    "status=~",
    "uploads",
    "workers",
    "writes",
)
"""In the names of metrics of parts that the mirror of these tests has not, and of what did not happen."""


@pytest.fixture(scope="module")
def port() -> int:
    """The port of the operations endpoint."""
    return free_port()


@pytest.fixture(scope="module")
def chain(chains: MakeChain, port: int) -> Iterator[Chain]:
    """A mirror that is watched."""
    listening = f"tcp:{port}:interface=127.0.0.1"
    with chains(operations=listening, operations_names=["dockmirror-metrics"]) as chain:
        yield chain


def told(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body."""
    request = Request(f"http://127.0.0.1:{port}{path}", headers={"Host": f"{host}:{port}"})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scraped(port: int) -> Samples:
    """The samples of all metrics."""
    return parsed(told(port, "/metrics")[1])


def test_a_pull_and_another(chain: Chain, port: int) -> None:
    """The first is a miss and comes from the upstream, the second is a hit and does not."""
    pushed = image("watched")
    chain.registry.push("library/watched", pushed, "latest")
    blob = pushed.layers[0]
    results, received = ("dockmirror_cache_results_total", ("blob", "miss", "docker")), []
    for _ in range(2):
        assert fetched(chain.mirror, "library/watched", blob.digest) == blob.digest
        received.append(scraped(port)["dockmirror_received_bytes_total", ("docker",)])
        wait_until(blob_file(chain.mirror.cache, blob.digest).exists, "it is held")
    seen = scraped(port)
    assert seen[results] == 1
    assert seen["dockmirror_cache_results_total", ("blob", "hit", "docker")] == 1
    assert received[0] >= len(blob.data)
    assert received[1] - received[0] < len(blob.data)
    assert seen["dockmirror_requests_total", ("blob", "mirror.test", "200")] == 2
    assert seen["dockmirror_sent_bytes_total", ("mirror.test",)] >= 2 * len(blob.data)
    assert seen["dockmirror_upstream_seconds_count", ("docker",)] > 0
    assert seen["dockmirror_fetches_total", ("kept",)] == 1
    assert seen["dockmirror_cache_sent_bytes_total", ("docker",)] >= len(blob.data)
    wait_until(lambda: scraped(port)["dockmirror_event_loop_lag_seconds_count", ()] > 0, "a beat")


@pytest.mark.parametrize(
    ("host", "status"),
    [("mirror.test", 200), ("localhost", 200), ("dockmirror-metrics", 200), ("rebound.example", 403)],
)
def test_host_names(chain: Chain, port: int, host: str, status: int) -> None:
    """Metrics and status are given by the mirror's names and those of ``operations_names`` alone."""
    assert {told(port, path, host)[0] for path in ("/metrics", "/status.json")} == {status}
    assert {told(port, path, host)[0] for path in ("/healthz", "/readyz")} == {200}


def test_dashboard(chain: Chain, port: int, tmp_path: Path, make_machine: MakeMachine) -> None:
    """Each query of the dashboard has a result in a real Prometheus."""
    require("prometheus")
    pushed = image("on the dashboard")
    chain.registry.push("library/dashboard", pushed, "latest")
    dashboard = json.loads((_ROOT / "docs/examples/grafana.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [target["expr"].replace("$instance", ".+") for target in targets]
    with Prometheus(tmp_path, make_machine(), port) as prometheus:
        for each in pushed.blobs:
            fetched(chain.mirror, "library/dashboard", each.digest)
        wait_until(lambda: prometheus.asked("rate(dockmirror_requests_total[5m])") != [], "a rate is known")
        for query in queries:
            answer = prometheus.asked(query)
            if not any(absent in query for absent in ABSENT):
                assert answer, query


def test_stopping(chain: Chain, port: int) -> None:
    """A stopping mirror is not ready while it still serves a client."""
    pushed = image("large", layers=(LAYER,))
    chain.registry.push("library/large", pushed, "latest")
    blob = pushed.layers[0]
    assert told(port, "/readyz") == (200, json.dumps({"status": "ready", "store": "writable"}))
    with begun(chain.mirror, f"/v2/docker.io/library/large/blobs/{blob.digest}") as response:
        assert response.status == 200
        os.killpg(chain.mirror.pid, signal.SIGTERM)
        wait_until(lambda: told(port, "/readyz")[0] == 503, "it is not ready")
        assert json.loads(told(port, "/readyz")[1])["status"] == "stopping"
        assert told(port, "/healthz") == (200, "ok")
        assert scraped(port)["dockmirror_running_requests", ()] == 1
        assert digest_of(response) == blob.digest
