"""Merges the metrics of several processes into those of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_SUMMED_GAUGES = {"dockmirror_connections", "dockmirror_running_requests"}
"""Gauges of what each process has for itself; every other gauge is (nearly) the same in all processes."""

_SampleKey = tuple[str, tuple[tuple[str, str], ...]]


def merge_metrics(expositions: Iterable[str]) -> list[Metric]:
    """Sum counters, histograms and the gauges of each process; of other gauges take the largest value."""
    families: dict[str, Metric] = {}
    samples: dict[_SampleKey, tuple[str, Sample]] = {}
    for text in expositions:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                previous = samples.get(key)
                value = (
                    sample.value
                    if previous is None
                    else _merge_values(family, previous[1].value, sample.value)
                )
                samples[key] = family.name, sample._replace(value=value)
    for name, sample in samples.values():
        families[name].samples.append(sample)
    return list(families.values())


def _merge_values(family: Metric, one: float, other: float) -> float:
    is_summed = family.type in ("counter", "histogram") or family.name in _SUMMED_GAUGES
    return one + other if is_summed else max(one, other)


def select_cumulative(families: Iterable[Metric]) -> list[Metric]:
    """Return the counters and histograms, which count on after the process that counted has exited."""
    return [family for family in families if family.type in ("counter", "histogram")]


def format_metrics(families: Sequence[Metric]) -> bytes:
    """Write metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StaticCollector(families))
    return generate_latest(registry)


class _StaticCollector(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._families
