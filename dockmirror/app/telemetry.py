"""Where all is noted that whoever runs the mirror may want to know."""

from __future__ import annotations

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime

from ..metrics import Metrics
from ..status.cache_series import CacheSeries
from ..status.pull_counts import PullCounts
from ..status.upstream_health import UpstreamHealthTable
from ..web.shared_tables import SharedTables


@frozen
class Telemetry:
    """Counted by this process, and noted in memory that others may share."""

    metrics: Metrics
    upstreams: UpstreamHealthTable
    series: CacheSeries
    popular: PullCounts

    @classmethod
    def of(cls, memory: SharedTables, clock: IReactorTime) -> Telemetry:
        """With nothing counted yet."""
        return cls(
            Metrics(CollectorRegistry()),
            UpstreamHealthTable(clock),
            CacheSeries(clock, memory.series),
            PullCounts(memory.popular),
        )
