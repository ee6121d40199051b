"""Exposed metrics, read by Prometheus's own parser."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[str, ...]], float]
"""By name and by the labels' values, in the order of the labels' names."""


def scraped(registry: CollectorRegistry) -> Samples:
    """Every sample of a registry."""
    return parsed(generate_latest(registry).decode())


def parsed(text: str) -> Samples:
    """Every sample of an exposition."""
    return {
        (sample.name, tuple(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
