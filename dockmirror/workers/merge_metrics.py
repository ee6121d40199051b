"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_SUMMED = {"dockmirror_connections", "dockmirror_running_requests"}
"""Gauges of which each process has its own part; all see the same, or nearly, of the others."""

Key = tuple[str, tuple[tuple[str, str], ...]]


def merge_metrics(expositions: Iterable[str]) -> list[Metric]:
    """Counters, histograms and gauges of what is divided are summed; of others the largest counts."""
    families: dict[str, Metric] = {}
    values: dict[Key, tuple[str, Sample]] = {}
    for text in expositions:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                before = values.get(key)
                value = sample.value if before is None else _with(family, before[1].value, sample.value)
                values[key] = family.name, sample._replace(value=value)
    for name, sample in values.values():
        families[name].samples.append(sample)
    return list(families.values())


def _with(family: Metric, one: float, other: float) -> float:
    if family.type in ("counter", "histogram") or family.name in _SUMMED:
        return one + other
    return max(one, other)


def counted(families: Iterable[Metric]) -> list[Metric]:
    """Only what goes on to count when the process that counted it is gone."""
    return [family for family in families if family.type in ("counter", "histogram")]


def exposed(families: Sequence[Metric]) -> bytes:
    """In the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_These(families))
    return generate_latest(registry)


class _These(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._families
