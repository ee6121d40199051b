"""For how long what a tag names is believed."""

from __future__ import annotations

from collections.abc import Callable

from ..config.settings import Settings, UpstreamSettings
from ..middleware.rules import PullRule
from ..oci.request import InRepository


def tag_ttl(upstream: UpstreamSettings, settings: Settings) -> Callable[[InRepository], float]:
    """Tells the seconds for a tag, or for a list: those of the first pattern, as written, that names it.

    A list is named by patterns of whole repositories; what none names has the seconds of all upstreams.
    """
    rules = [(PullRule.parse(pattern), seconds) for pattern, seconds in upstream.tag_ttl.items()]

    def told(target: InRepository) -> float:
        return next((seconds for rule, seconds in rules if rule.names(target)), settings.tag_ttl)

    return told
