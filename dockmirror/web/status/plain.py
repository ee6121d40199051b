"""The status as JSON: lengths in bytes, times in seconds since the epoch."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict

from ...status.series import PERIOD
from ...status.values import Upstream
from .overview import Status


def as_json(status: Status) -> str:
    """The whole of it."""
    noted = status.noted
    return json.dumps(
        {
            "time": status.now,
            "status": status.state.status,
            "store": status.state.store,
            "processes": noted.processes,
            "registries": [_registry(each, status.now) for each in noted.upstreams],
            "fetches": [asdict(each) for each in noted.fetches],
            "cache": asdict(noted.cache) if noted.cache else None,
            "usage": asdict(noted.usage) if noted.usage else None,
            "hours": {"seconds": PERIOD, "slots": [asdict(each) for each in status.slots]},
            "popular": [asdict(each) for each in status.popular],
        },
        indent=2,
    )


def _registry(upstream: Upstream, now: float) -> dict[str, Any]:
    rests = upstream.rests if upstream.rests is not None and now < upstream.rests else None
    return {**asdict(upstream), "state": upstream.state(now), "rests": rests}
