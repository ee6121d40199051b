"""Where all is noted that whoever runs the mirror may want to know."""

from __future__ import annotations

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime

from ..metrics import Metrics
from ..status.outcomes import Upstreams
from ..status.popular import Popular
from ..status.series import Series
from ..web.memory import Memory


@frozen
class Watched:
    """Counted by this process, and noted in memory that others may share."""

    metrics: Metrics
    upstreams: Upstreams
    series: Series
    popular: Popular

    @classmethod
    def of(cls, memory: Memory, clock: IReactorTime) -> Watched:
        """With nothing counted yet."""
        return cls(
            Metrics(CollectorRegistry()),
            Upstreams(clock),
            Series(clock, memory.series),
            Popular(memory.popular),
        )
