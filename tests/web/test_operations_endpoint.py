"""The operators' endpoint."""

# mypy: allow-untyped-calls

from __future__ import annotations

import errno
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.defer import Deferred

from dockmirror.app.telemetry import ProcessTelemetry, read_worker_state
from dockmirror.http.server import HttpSite
from dockmirror.web.operations_endpoint import OperationsResource
from dockmirror.web.status.overview import STORE_TIMEOUT, ReadinessCheck, StatusOverview, StoreCheck
from tests.house import Answer, Connection, House
from tests.internet import Internet
from tests.scraped import parsed


class Desk:
    """The operators' endpoint of a mirror."""

    def __init__(self, checks: Sequence[StoreCheck] = (), listening: bool = True) -> None:
        self.house = House(Internet())
        self.house.site.numPorts = int(listening)
        self.names = ["mirror.example"]
        settings, upstreams = self.house.serving.settings, self.house.watched.upstreams
        told = ProcessTelemetry(
            self.house.metrics,
            ReadinessCheck(self.house.site, self.house.clock, checks),
            lambda: read_worker_state(settings, upstreams, None),
        )
        self.site = HttpSite(
            OperationsResource(
                told, StatusOverview(told, self.house.memory, self.house.clock), lambda: self.names
            ),
            self.house.clock,
        )
        self._door = House(Internet())
        self._door.site = self.site

    def connect(self) -> Connection:
        """An operator's connection."""
        return self._door.connect()

    def get(self, path: str, host: str = "127.0.0.1:9464") -> Answer:
        """The answer to a GET."""
        return self.connect().ask("GET", host, path).answer


def failing(words: str, error: Exception) -> StoreCheck:
    """A part of the store that does not work."""

    async def fail() -> None:
        raise error

    return StoreCheck(words, fail)


async def _work() -> None:
    """Raise nothing."""


WORKING = StoreCheck("the disk cannot be written", _work)
FULL = failing("the disk cannot be written", OSError(errno.ENOSPC, "No space left on device"))
SILENT = failing("the bucket fails", OSError(errno.EIO, "s3://b: no answer within 3 s"))


def test_metrics() -> None:
    """Metrics have Prometheus' text format and are those of the served mirror."""
    desk = Desk()
    desk.house.get("k8s.mirror.example", "/v2/")
    answer = desk.get("/metrics")
    assert (answer.status, answer["Content-Type"]) == (200, CONTENT_TYPE_LATEST)
    samples = parsed(answer.body.decode())
    assert samples["dockmirror_requests_total", ("ping", "k8s.mirror.example", "200")] == 1


def test_health() -> None:
    """Health answers ``ok``, also to HEAD."""
    desk = Desk(listening=False)
    assert (desk.get("/healthz").status, desk.get("/healthz").body) == (200, b"ok")
    assert desk.connect().ask("HEAD", "x", "/healthz").answer.status == 200
    assert desk.connect().ask("POST", "x", "/healthz").answer.error == (405, "UNSUPPORTED")


@pytest.mark.parametrize(
    ("checks", "status", "store"),
    [
        ([], "ready", "none"),
        ([WORKING], "ready", "writable"),
        ([FULL, SILENT], "degraded", "the disk cannot be written: No space left on device"),
        ([WORKING, SILENT], "degraded", "the bucket fails: s3://b: no answer within 3 s"),
    ],
)
def test_ready(checks: Sequence[StoreCheck], status: str, store: str) -> None:
    """A listening mirror is ready; one with a failing store is degraded and says what fails."""
    answer = Desk(checks).get("/readyz")
    assert (answer.status, answer.json) == (200, {"status": status, "store": store})


def test_a_store_that_says_nothing() -> None:
    """A check that hangs times out, and is named."""
    never: Deferred[None] = Deferred()

    async def wait() -> None:
        await never

    desk = Desk([WORKING, StoreCheck("the bucket fails", wait)])
    asked = desk.connect().ask("GET", "x", "/readyz")
    assert asked.answers == []
    desk.house.clock.advance(STORE_TIMEOUT)
    words = f"the bucket fails: no answer within {STORE_TIMEOUT:g} s"
    assert asked.answer.json == {"status": "degraded", "store": words}
    assert "within 2 s" in asked.answer.json["store"]


def test_who_asked_may_leave() -> None:
    """Nothing is looked at any further."""
    cancelled: list[Deferred[None]] = []

    def wait() -> Coroutine[Any, Any, None]:
        async def waiting() -> None:
            await Deferred(cancelled.append)

        return waiting()

    desk = Desk([WORKING, StoreCheck("the bucket fails", wait)])
    desk.connect().ask("GET", "x", "/readyz").leave()
    assert len(cancelled) == 1


def test_not_ready() -> None:
    """A mirror that does not listen, or is stopping, is not ready."""
    answer = Desk([WORKING], listening=False).get("/readyz")
    assert (answer.status, answer.json["status"]) == (503, "not listening")
    desk = Desk([WORKING])
    running = desk.house.connect()
    desk.house.site.connections.drain(300)
    answer = desk.get("/readyz")
    assert (answer.status, answer.json["status"]) == (503, "stopping")
    assert desk.get("/healthz").status == 200
    running.leave()


def test_the_status() -> None:
    """The status lists every registry and its last results."""
    desk = Desk()
    desk.house.clock.advance(100)
    told = desk.get("/status.json").json
    assert [each["name"] for each in told["registries"]] == list(desk.house.serving.settings.upstreams)
    assert {each["state"] for each in told["registries"]} == {"unasked"}
    desk.house.get("docker.mirror.example", "/v2/library/nginx/manifests/latest")
    docker = desk.get("/status.json").json["registries"][0]
    assert (docker["name"], docker["registry"], docker["state"]) == ("docker", "docker.io", "reachable")
    assert docker["addresses"][0]["answered"] == 100
    assert told["cache"] is None
    assert told["fetches"] == told["popular"] == []


@pytest.mark.parametrize("host", ["127.0.0.1:9464", "[::1]:9464", "mirror.example", "MIRROR.example.:1"])
def test_the_status_by_a_name_of_the_mirror(host: str) -> None:
    """The status is served by the mirror's names and by any address."""
    answer = Desk().get("/status.json", host)
    assert (answer.status, answer["Content-Type"], answer["Cache-Control"]) == (
        200, "application/json", "no-store"
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/status", "/status.json", "/metrics"])
@pytest.mark.parametrize("host", ["rebound.example:9464", "mirror.example.evil", "", "127.0.0.1.evil"])
def test_the_status_by_another_name(host: str, path: str) -> None:
    """Status and metrics are refused by a name that a web page from elsewhere may have."""
    answer = Desk().get(path, host)
    assert answer.error == (403, "DENIED")
    assert b"operations_names" in answer.body
    assert b"dockmirror_" not in answer.body
    assert b"docker.io" not in answer.body


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_by_another_name(path: str) -> None:
    """Health and readiness are given by any name: probes use whatever name they have."""
    assert Desk().get(path, "rebound.example:9464").status == 200


def test_names_that_change() -> None:
    """A name that the operator adds is served from the next request on."""
    desk = Desk()
    assert desk.get("/metrics", "dockmirror-metrics:9464").status == 403
    desk.names = ["mirror.example", "dockmirror-metrics"]
    assert desk.get("/metrics", "dockmirror-metrics:9464").status == 200


@pytest.mark.parametrize("path", ["/", "/status", "/status?lang=xx"])
def test_the_page(path: str) -> None:
    """Browsers get an uncached page in their language with a strict policy, terminals text, programs JSON."""
    desk = Desk()
    answer = desk.connect().ask("GET", "127.0.0.1:9464", path, "Accept: text/html,*/*;q=0.8",
                                "Accept-Language: zh-CN,en;q=0.5").answer  # fmt: skip
    assert (answer.status, answer["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert '<html lang="zh">' in answer.body.decode()
    policy = str(answer["Content-Security-Policy"])
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self';" in policy
    assert answer["Cache-Control"] == "no-store"
    told = desk.get(path)
    assert told["Content-Type"] == "text/plain; charset=utf-8"
    assert told.body.decode().startswith("127.0.0.1")
    assert (
        desk.connect().ask("GET", "127.0.0.1", path, "Accept: application/json").answer.json["store"]
        == "none"
    )


@pytest.mark.parametrize("path", ["/", "/status", "/status.json"])
def test_how_the_page_is_asked_for(path: str) -> None:
    """Only GET and HEAD are allowed."""
    head = Desk().connect().ask("HEAD", "127.0.0.1:9464", path).answer
    assert (head.status, head.body) == (200, b"")
    assert Desk().connect().ask("POST", "127.0.0.1:9464", path).answer.error == (405, "UNSUPPORTED")


def test_a_query_that_is_too_much() -> None:
    """A query with too many parameters is rejected."""
    assert Desk().get("/status?" + "a=b&" * 60).status == 400


@pytest.mark.parametrize("path", ["/status.json", "/status"])
def test_the_status_is_not_on_the_main_port(path: str) -> None:
    """It is whoever runs the mirror that may know."""
    house = House(Internet())
    assert house.get("mirror.example", path).status == 404


@pytest.mark.parametrize("path", ["/v2/", "/metric", "/healthz2", "/statuses"])
def test_there_is_nothing_else(path: str) -> None:
    """No registry."""
    assert Desk().get(path).error == (404, "UNSUPPORTED")


class TestOnTheMainPort:
    """Health is told beside the mirror itself."""

    @pytest.mark.parametrize("host", ["10.1.2.3:8080", "docker.mirror.example", "unknown.example", ""])
    def test_to_everybody(self, host: str) -> None:
        """Health answers every address and host name, also through an untrusted proxy."""
        asked = House(Internet()).connect(peer="203.0.113.9")
        answer = asked.ask("GET", host, "/healthz?x=y", "X-Forwarded-For: 1.2.3.4").answer
        assert (answer.status, answer.body) == (200, b"ok")

    @pytest.mark.parametrize(
        "path", ["/healthz/", "/healthz/v2/", "/x/healthz", "//healthz", "/metrics", "/readyz"]
    )
    def test_and_nothing_else(self, path: str) -> None:
        """Every other path has the rules of access before it."""
        assert House(Internet()).connect(peer="203.0.113.9").ask("GET", "m", path).answer.error == (
            403,
            "DENIED",
        )
        assert House(Internet()).get("mirror.example", path).status == 404
