"""The documents list the exposed metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from dockmirror.app.telemetry import make_process_telemetry
from dockmirror.http.server import HttpSite
from dockmirror.metrics import Metrics
from dockmirror.status import WorkerState
from dockmirror.store.downloads.context import DownloadStats
from dockmirror.store.eviction.eviction import Eviction
from dockmirror.store.eviction.store_budget import Budget

from .test_docs import ROOT, code, table, text


def test_metrics() -> None:
    """The table of metrics has each that there is, by the name that is scraped, with its kind and labels."""
    metrics = Metrics(CollectorRegistry())
    make_process_telemetry(metrics, HttpSite(Resource(), Clock()), Clock(), None, _noted)
    metrics.expose_downloads(DownloadStats())
    metrics.expose_cache(Eviction(ROOT, Clock(), _never, Budget(0, 0, 0)))
    metrics.expose_certificates(dict)
    metrics.expose_bucket(Shared())
    ends = {"counter": "_total", "info": "_info"}
    told = [(family.name + ends.get(family.type, ""), family.type) for family in metrics.registry.collect()]
    rows = table("docs/reference/metrics.md", "metric")
    assert sorted((code(name), kind) for name, kind, *_ in rows) == sorted(
        [*told, ("dockmirror_workers", "gauge"), ("dockmirror_workers_exited_total", "counter")]
    )
    kept = (value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase))
    labels = {code(name): re.findall(r"`(\w+)`", cell) for name, _, cell, _ in rows}
    for metric in kept:
        (family,) = metric.describe()
        assert labels[family.name + ends.get(family.type, "")] == list(metric._labelnames)


def test_dashboard() -> None:
    """Every query of the dashboard asks for metrics that there are, and for labels that they have."""
    labels = {
        code(row[0]): {"instance", *re.findall(r"`(\w+)`", row[2])}
        for row in table("docs/reference/metrics.md", "metric")
    }
    kinds = {code(name): kind for name, kind, *_ in table("docs/reference/metrics.md", "metric")}
    dashboard = json.loads(text("docs/examples/grafana.json"))
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set()
    for target in targets:
        (name,) = re.findall(r"dockmirror_\w+", target["expr"])
        metric = name.removesuffix("_bucket")
        assert '{instance=~"$instance"' in target["expr"]
        assert (name != metric) == (kinds[metric] == "histogram")
        used = re.findall(r"by \(([\w, ]+)\)", target["expr"]) + re.findall(r"[{,](\w+)=", target["expr"])
        asked = {label for each in used for label in each.split(", ")} - ({"le"} if name != metric else set())
        assert asked | set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels[metric]
        shown.add(metric)
    assert set(kinds) - shown == {
        "dockmirror_accel_bytes_total",
        "dockmirror_build_info",
        "dockmirror_cache_evicted_total",
        "dockmirror_cache_expired_total",
        "dockmirror_prefetch_wasted_bytes_total",
        "dockmirror_prefetched_bytes_total",
        "dockmirror_near_redirects_total",
        "dockmirror_tag_refreshes_total",
    }


def test_alerts() -> None:
    """The table of alerts is that of the file, whose rules ask for metrics that there are."""
    rules = text("docs/examples/alerts.yml")
    alerts = [code(row[0]) for row in table("docs/reference/metrics.md", "alert")]
    assert alerts == re.findall(r"- alert: (\w+)", rules)
    metrics = {code(row[0]) for row in table("docs/reference/metrics.md", "metric")}
    assert {each.removesuffix("_bucket") for each in re.findall(r"dockmirror_\w+", rules)} <= metrics


class Shared:
    """A bucket that was asked for nothing yet."""

    requests: Mapping[str, int] = {}
    failing = False
    waiting = 0


async def _noted() -> WorkerState:
    return WorkerState()


async def _never(_: object) -> Any:
    raise AssertionError
