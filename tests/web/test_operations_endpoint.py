"""The operators' endpoint: metrics, health, readiness and status."""

# mypy: allow-untyped-calls

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from contextlib import suppress

import pytest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.app.telemetry import ProcessTelemetry, read_worker_state
from dockmirror.http.server import HttpSite
from dockmirror.status import WorkerState
from dockmirror.web.operations_endpoint import OperationsResource
from dockmirror.web.readiness import STORE_TIMEOUT, ReadinessCheck, StoreCheck
from dockmirror.web.status.overview import StatusOverview
from tests.house import Answer, Connection, House
from tests.internet import Internet
from tests.scraped import parsed
from tests.stacks import logged

ADDRESS = "127.0.0.1:9464"


class Endpoint:
    """The operators' endpoint of a mirror."""

    def __init__(self, checks: Sequence[StoreCheck] = (), listening: bool = True) -> None:
        self.house = House(Internet())
        self.house.site.numPorts = int(listening)
        self.names = ["mirror.example"]
        settings, upstreams = self.house.serving.settings, self.house.watched.upstreams
        telemetry = ProcessTelemetry(
            self.house.metrics,
            ReadinessCheck(self.house.site, self.house.clock, checks),
            lambda: read_worker_state(settings, upstreams, None, {"a.pem": 864_000.0}),
        )
        overview = StatusOverview(telemetry, None, "1.2.3", 0.0, self.house.clock)
        self._front = House(Internet())
        self._front.site = HttpSite(
            OperationsResource(telemetry, overview, lambda: self.names, self.house.clock), self.house.clock
        )

    def connect(self) -> Connection:
        return self._front.connect()

    def get(self, path: str, host: str = ADDRESS, *headers: str, method: str = "GET") -> Answer:
        """Return the answer to a request on a new connection."""
        return self.connect().ask(method, host, path, *headers).answer


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def failing(part: str, error: Exception) -> StoreCheck:
    async def fail() -> None:
        raise error

    return StoreCheck(part, fail)


async def _work() -> None:
    """Raise nothing."""


WORKING = StoreCheck("the disk cannot be written", _work)
FULL = failing("the disk cannot be written", OSError(errno.ENOSPC, "No space left on device"))
SILENT = failing("the bucket fails", OSError(errno.EIO, "s3://b: no answer within 3 s"))


def test_metrics_of_the_mirror_have_the_format_of_prometheus(endpoint: Endpoint) -> None:
    endpoint.house.get("k8s.mirror.example", "/v2/")
    answer = endpoint.get("/metrics")
    assert (answer.status, answer["Content-Type"]) == (200, CONTENT_TYPE_LATEST)
    samples = parsed(answer.body.decode())
    assert samples["dockmirror_requests_total", ("ping", "k8s.mirror.example", "200")] == 1


class PatientTelemetry(ProcessTelemetry):
    """Metrics of workers that do not answer, of which there are none when the scrape is over."""

    async def metrics(self) -> bytes:
        with suppress(CancelledError):
            await Deferred[None]()
        return b""


def test_a_scrape_that_is_given_up_is_no_failure() -> None:
    house = House(Internet())
    telemetry = PatientTelemetry(house.metrics, ReadinessCheck(house.site, house.clock), _never)
    overview = StatusOverview(telemetry, None, "1.2.3", 0.0, house.clock)
    house.site = HttpSite(OperationsResource(telemetry, overview, list, house.clock), house.clock)
    with logged() as messages:
        house.connect().ask("GET", ADDRESS, "/metrics").leave()
    assert messages == []


async def _never() -> WorkerState:
    raise AssertionError


@pytest.mark.parametrize(
    ("checks", "status", "store", "disk_failing"),
    [
        ([], "ready", "none", 0),
        ([WORKING], "ready", "writable", 0),
        ([FULL, SILENT], "degraded", "the disk cannot be written: No space left on device", 1),
        ([WORKING, SILENT], "degraded", "the bucket fails: s3://b: no answer within 3 s", 0),
    ],
)
def test_a_failing_store_is_named_as_degraded(
    checks: Sequence[StoreCheck], status: str, store: str, disk_failing: int
) -> None:
    """The disk has a metric as well; the bucket has one of its own."""
    endpoint = Endpoint(checks)
    answer = endpoint.get("/readyz")
    assert (answer.status, answer.json) == (200, {"status": status, "store": store})
    samples = parsed(endpoint.get("/metrics").body.decode())
    assert samples["dockmirror_disk_failing", ()] == disk_failing


def test_store_checks_time_out_together_or_are_cancelled_with_their_client() -> None:
    cancelled: list[Deferred[None]] = []

    async def wait() -> None:
        await Deferred(cancelled.append)

    endpoint = Endpoint([StoreCheck("the disk is slow", wait), StoreCheck("the bucket fails", wait), WORKING])
    endpoint.connect().ask("GET", "x", "/readyz").leave()
    assert len(cancelled) == 2
    client = endpoint.connect().ask("GET", "x", "/readyz")
    assert client.answers == []
    endpoint.house.clock.advance(STORE_TIMEOUT)
    store = "the disk is slow: no answer within 2 s"
    assert client.answer.json == {"status": "degraded", "store": store}


def test_a_mirror_that_does_not_listen_or_stops_is_not_ready(endpoint: Endpoint) -> None:
    answer = Endpoint([WORKING], listening=False).get("/readyz")
    assert (answer.status, answer.json["status"]) == (503, "not listening")
    running = endpoint.house.connect()
    endpoint.house.site.connections.drain(300)
    answer = endpoint.get("/readyz")
    assert (answer.status, answer.json["status"]) == (503, "stopping")
    assert endpoint.get("/healthz").status == 200
    running.leave()


def test_the_status_lists_every_registry_and_its_last_results(endpoint: Endpoint) -> None:
    endpoint.house.clock.advance(100)
    status = endpoint.get("/status.json").json
    assert [each["name"] for each in status["registries"]] == list(endpoint.house.serving.settings.upstreams)
    assert {each["state"] for each in status["registries"]} == {"unasked"}
    endpoint.house.get("docker.mirror.example", "/v2/library/nginx/manifests/latest")
    docker = endpoint.get("/status.json").json["registries"][0]
    assert (docker["name"], docker["registry"], docker["state"]) == ("docker", "docker.io", "reachable")
    assert docker["addresses"][0]["answered"] == "1970-01-01T00:01:40.000+00:00"
    assert (status["cache"], status["fetches"], status["history"]) == (None, [], None)
    assert status["certificates"] == [{"file": "a.pem", "expires": "1970-01-11T00:00:00.000+00:00"}]


@pytest.mark.parametrize("host", [ADDRESS, "[::1]:9464", "mirror.example", "MIRROR.example.:1"])
def test_the_status_is_served_by_the_mirrors_names_and_by_addresses(endpoint: Endpoint, host: str) -> None:
    answer = endpoint.get("/status.json", host)
    fields = (answer.status, answer["Content-Type"], answer["Cache-Control"])
    assert fields == (200, "application/json", "no-store")


@pytest.mark.parametrize("path", ["/", "/status", "/status.json", "/metrics", "/events"])
@pytest.mark.parametrize("host", ["rebound.example:9464", "mirror.example.evil", "", "127.0.0.1.evil"])
def test_another_name_gets_only_health_and_readiness(endpoint: Endpoint, host: str, path: str) -> None:
    """A web page from elsewhere may have that name; probes use any name."""
    answer = endpoint.get(path, host)
    assert answer.error == (403, "DENIED")
    assert b"operations_names" in answer.body
    assert b"dockmirror_" not in answer.body
    assert b"docker.io" not in answer.body
    assert (endpoint.get("/healthz", host).body, endpoint.get("/readyz", host).status) == (b"ok", 200)


def test_a_name_that_the_operator_adds_is_served_from_then_on(endpoint: Endpoint) -> None:
    assert endpoint.get("/metrics", "dockmirror-metrics:9464").status == 403
    endpoint.names = ["mirror.example", "dockmirror-metrics"]
    assert endpoint.get("/metrics", "dockmirror-metrics:9464").status == 200


@pytest.mark.parametrize("path", ["/", "/status", "/status?lang=xx"])
def test_browsers_get_a_page_terminals_text_and_programs_json(endpoint: Endpoint, path: str) -> None:
    """The page is in the browser's language, uncached, and has a strict policy."""
    accept = ("Accept: text/html,*/*;q=0.8", "Accept-Language: zh-CN,en;q=0.5")
    answer, text = endpoint.get(path, ADDRESS, *accept), endpoint.get(path)
    assert (answer.status, answer["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert '<html lang="zh">' in answer.body.decode()
    policy = str(answer["Content-Security-Policy"])
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self';" in policy
    assert answer["Cache-Control"] == "no-store"
    assert text["Content-Type"] == "text/plain; charset=utf-8"
    assert text.body.decode().startswith("127.0.0.1")
    assert endpoint.get(path, ADDRESS, "Accept: application/json").json["store"] == "none"


def test_events_bring_the_parts_of_the_page_that_changed(endpoint: Endpoint) -> None:
    """The first one brings all of them, in the page's language; an empty one says that nothing changed."""
    viewer = endpoint.connect().ask("GET", ADDRESS, "/events?lang=zh")

    def events() -> list[dict[str, str]]:
        lines = viewer.transport.value().decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    first = events()[0]
    assert list(first) == [
        "header", "#fetches", "#traffic", "#registries", "#cache", "#clients", "#images", "#mirror",
    ]  # fmt: skip
    assert first["#cache"].startswith('<section id="cache"><h2>缓存</h2>')
    endpoint.house.get("docker.mirror.example", "/v2/library/nginx/manifests/latest")
    endpoint.house.pass_time(1)
    assert len(events()) == 2
    assert set(events()[1]) == {"#registries", "#mirror"}
    endpoint.house.pass_time(*[1.0] * 125)
    assert {} in events()
    viewer.leave()
    assert endpoint.get("/events?" + "a=b&" * 60).status == 400


@pytest.mark.parametrize("path", ["/", "/status", "/status.json", "/healthz"])
def test_only_get_and_head_are_allowed(endpoint: Endpoint, path: str) -> None:
    head = endpoint.get(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert endpoint.get(path, method="POST").error == (405, "UNSUPPORTED")


@pytest.mark.parametrize("path", ["/v2/", "/metric", "/healthz2", "/statuses"])
def test_other_paths_and_too_many_parameters_are_refused(endpoint: Endpoint, path: str) -> None:
    assert endpoint.get(path).error == (404, "UNSUPPORTED")
    assert endpoint.get("/status?" + "a=b&" * 60).status == 400


@pytest.mark.parametrize("host", ["10.1.2.3:8080", "docker.mirror.example", "unknown.example", ""])
def test_health_is_answered_on_the_main_port_to_everybody(house: House, host: str) -> None:
    """Also through an untrusted proxy."""
    client = house.connect(peer="203.0.113.9")
    answer = client.ask("GET", host, "/healthz?x=y", "X-Forwarded-For: 1.2.3.4").answer
    assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.parametrize(
    "path", ["/healthz/", "/healthz/v2/", "/x/healthz", "//healthz", "/metrics", "/readyz", "/status"]
)
def test_the_main_port_has_access_rules_before_other_paths(house: House, path: str) -> None:
    refused = house.connect(peer="203.0.113.9").ask("GET", "m", path).answer
    assert refused.error == (403, "DENIED")
    assert house.get("mirror.example", path).status == 404
