"""The alerts of the documents: loaded by Prometheus, and fired by real faults or by recorded series."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from .conftest import MakeDirectory, MakeMachine
from .parts.authority import Authority
from .parts.chain import Chain, new_chain
from .parts.disk import SmallDisk
from .parts.faults import FAILURE, Fault
from .parts.images import artifact
from .parts.process import free_port, wait_until
from .parts.programs import require
from .parts.prometheus import Prometheus
from .parts.stream import fetched

pytestmark = pytest.mark.integration

RULES = Path(__file__).parents[2] / "docs/examples/alerts.yml"
NAMES = set(re.findall(r"- alert: (\w+)", RULES.read_text("utf-8")))
MINUTES, DAYS_MINUTES = 100, 26 * 60
"""The length of the recorded series; the rate of hits is compared with that of the day before."""
DAY = "+100x1440"
RESULTS = 'dockmirror_cache_results_total{endpoint="blob",result='
QUOTA = "dockmirror_upstream_ratelimit"
REQUESTS = "dockmirror_requests_total{status="
LAG = "dockmirror_event_loop_lag_seconds_bucket{le="

Series = Mapping[str, str]
RECORDED: list[tuple[str, Series, Series]] = [
    ("DockmirrorDown", {"up": f"0x{MINUTES}"}, {"up": f"1x{MINUTES}"}),
    (
        "DockmirrorUpstreamFailing",
        {'dockmirror_upstream_failures_total{upstream="docker"}': f"0+2x{MINUTES}"},
        {'dockmirror_upstream_failures_total{upstream="docker"}': f"0+0.5x{MINUTES}"},
    ),
    (
        "DockmirrorAccountRefused",
        {'dockmirror_upstream_failures_total{reason="account"}': f"0x{MINUTES - 5} 1x5"},
        {'dockmirror_upstream_failures_total{reason="account"}': f"3x{MINUTES}"},
    ),
    (
        "DockmirrorUpstreamLimit",
        {f"{QUOTA}_limit": f"100x{MINUTES}", f"{QUOTA}_remaining": f"9x{MINUTES}"},
        {f"{QUOTA}_limit": f"100x{MINUTES}", f"{QUOTA}_remaining": f"10x{MINUTES}"},
    ),
    (
        "DockmirrorWrongContent",
        {'dockmirror_fetches_total{outcome="wrong"}': f"0x{MINUTES - 5} 1x5"},
        {'dockmirror_fetches_total{outcome="failed"}': f"0+9x{MINUTES}"},
    ),
    (
        "DockmirrorErrors",
        {f'{REQUESTS}"502"}}': f"0+6x{MINUTES}", f'{REQUESTS}"200"}}': f"0+94x{MINUTES}"},
        {f'{REQUESTS}"502"}}': f"0+4x{MINUTES}", f'{REQUESTS}"404"}}': f"0+96x{MINUTES}"},
    ),
    (
        "DockmirrorHitRateFalling",
        {f'{RESULTS}"hit"}}': f"0{DAY} 144000+10x120", f'{RESULTS}"miss"}}': f"0{DAY} 144000+400x120"},
        {f'{RESULTS}"hit"}}': f"0{DAY} 144000+90x120", f'{RESULTS}"miss"}}': f"0{DAY} 144000+100x120"},
    ),
    (
        "DockmirrorDiskFailing",
        {"dockmirror_disk_failing": f"1x{MINUTES}"},
        {"dockmirror_disk_failing": f"0x{MINUTES}"},
    ),
    (
        "DockmirrorBucketFailing",
        {"dockmirror_bucket_failing": f"1x{MINUTES}"},
        {"dockmirror_bucket_failing": f"0x{MINUTES}"},
    ),
    (
        "DockmirrorUploadsWaiting",
        {"dockmirror_uploads_waiting": f"5x{MINUTES}"},
        {"dockmirror_uploads_waiting": f"{MINUTES}-1x{MINUTES - 1}"},
    ),
    (
        "DockmirrorCertificateExpires",
        {"dockmirror_certificate_not_after_seconds": f"0x{MINUTES}"},
        {"dockmirror_certificate_not_after_seconds": f"{9 * 86400}x{MINUTES}"},
    ),
    (
        "DockmirrorWorkersDying",
        {"dockmirror_workers_exited_total": f"0x{MINUTES - 5} 1x5"},
        {"dockmirror_workers_exited_total": f"3x{MINUTES}"},
    ),
    (
        "DockmirrorBlocked",
        {f'{LAG}"{le}"}}': f"0+{count}x{MINUTES}" for le, count in (("0.5", 90), ("1", 92), ("+Inf", 92))},
        {f'{LAG}"{le}"}}': f"0+{count}x{MINUTES}" for le, count in (("0.5", 92), ("1", 92), ("+Inf", 92))},
    ),
    (
        "DockmirrorConnectionsRefused",
        {"dockmirror_turned_away_total": f"0x{MINUTES - 5} 1x5"},
        {"dockmirror_turned_away_total": f"3x{MINUTES}"},
    ),
]  # fmt: skip


def test_recorded_series_fire_each_alert_alone(tmp_path: Path) -> None:
    """promtool evaluates the rules: each alert fires by its own trouble, and not in a healthy mirror."""
    require("promtool")
    assert {name for name, *_ in RECORDED} == NAMES
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "5m",
        "tests": [
            recorded(name, series, fires)
            for name, *both in RECORDED
            for series, fires in zip(both, (True, False), strict=True)
        ],
    }
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def recorded(name: str, series: Series, fires: bool) -> dict[str, object]:
    """A test of promtool: at the end of the series that alert fires, or none does."""
    minutes = DAYS_MINUTES if name == "DockmirrorHitRateFalling" else MINUTES
    up = {} if "up" in series else {"up": f"1x{minutes}"}
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else []
    return {
        "name": f"{name} {'fires' if fires else 'does not fire'}",
        "interval": "1m",
        "input_series": [
            {"series": of_the_mirror(each), "values": values} for each, values in {**up, **series}.items()
        ],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{minutes}m", "exp_samples": expected}],
    }


def of_the_mirror(series: str) -> str:
    """The series with the labels that a scrape adds."""
    name, _, labels = series.rstrip("}").partition("{")
    return f'{name}{{{labels}{"," if labels else ""}job="dockmirror",instance="a:9464"}}'


@pytest.fixture
def small(directory: MakeDirectory) -> SmallDisk:
    """A machine with a disk of 8 MB."""
    require("unshare", "docker-registry")
    machine = SmallDisk(directory("small"), 8_000_000)
    machine.prepare()
    return machine


@pytest.fixture
def port() -> int:
    """The port of the operations endpoint."""
    return free_port()


@pytest.fixture
def watched(small: SmallDisk, port: int, directory: MakeDirectory, authority: Authority) -> Iterator[Chain]:
    """A mirror of two workers on that machine."""
    operations = f"tcp:{port}:interface=127.0.0.1"
    cache = str(small.disk)
    with new_chain(
        directory("watched"), small, authority, cache=cache, operations=operations, workers=2
    ) as chain:
        yield chain


def test_faults_fire_the_alerts(
    watched: Chain, small: SmallDisk, port: int, tmp_path: Path, make_machine: MakeMachine
) -> None:
    """A real Prometheus loads the rules, and tells what is wrong while it is; without their waits here."""
    require("prometheus")
    pushed = artifact("spoilt")
    watched.registry.push("library/spoilt", pushed, "latest")
    blob = pushed.layers[0]
    disk = small.seen_by(watched.mirror.pid)

    def pull(tag: str) -> None:
        watched.mirror.client().manifest("docker.io/library/spoilt", tag)

    def spoil() -> None:
        watched.registry.blob(blob.digest.removeprefix("sha256:")).write_bytes(bytes(len(blob.data)))
        with suppress(HTTPException, OSError):
            fetched(watched.mirror, "library/spoilt", blob.digest)

    def fail() -> None:
        watched.front.fault = FAILURE
        pull("gone")

    def limit() -> None:
        left = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "1;w=21600"}
        watched.front.fault = Fault(404, b"{}", left)
        pull("limited")

    def fill() -> None:
        with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
            file.write(bytes(8_000_000))

    def kill() -> None:
        with suppress(FileNotFoundError, ProcessLookupError):  # the last victim has just gone
            if len(pids := watched.mirror.pids()) == 3:
                os.kill(pids[-1], signal.SIGKILL)

    faults: list[tuple[set[str], Callable[[], None]]] = [
        ({"DockmirrorWrongContent"}, spoil),
        ({"DockmirrorUpstreamFailing", "DockmirrorErrors"}, fail),
        ({"DockmirrorUpstreamLimit"}, limit),
        ({"DockmirrorDiskFailing"}, fill),
        ({"DockmirrorWorkersDying"}, kill),
        ({"DockmirrorDown"}, watched.mirror.stop),
    ]
    rules = re.sub(r"(?m)^ +for: .*\n", "", RULES.read_text("utf-8"))
    with Prometheus(tmp_path, make_machine(), port, rules) as prometheus:
        wait_until(lambda: prometheus.asked('up{job="dockmirror"} == 1') != [], "the mirror is scraped")
        wait_until(lambda: prometheus.firing() == {}, "nothing is wrong yet")
        for names, cause in faults:

            def fires(names: set[str] = names, cause: Callable[[], None] = cause) -> bool:
                if names <= set(prometheus.firing()):
                    return True
                cause()
                return False

            wait_until(fires, f"{names} fires")
        told = prometheus.firing()
        assert not any("error" in text and "template" in text for text in told["DockmirrorDown"].values())
