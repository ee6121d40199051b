"""The TTL of tags, by pattern, upstream, or for all."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred

from dockmirror.app.cache_stack import HostRegistries, StackContext, make_tag_lifetime, make_tag_ttl
from dockmirror.app.site_builder import ConnectionShare, SiteBuilder
from dockmirror.app.telemetry import Telemetry
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.oci.request import Manifest, Tags, parse_target
from dockmirror.web.shared_tables import SharedTables

from ..fakes import World
from ..house import House
from ..pullthrough.mirrors import CONFIG, LAYER, NAME, TAG
from ..pullthrough.origin import Origin
from ..pullthrough.test_tag_refresh import Refreshing

PATTERNS = {"library/*:latest": 10, "library/*": 600, "**": 60.5}


def ttl_of(tag_ttl: Any, path: str) -> float:
    """Return the TTL of a path below ``/v2/``; Docker Hub has this ``tag_ttl``, and the global one is 7."""
    upstream = {} if tag_ttl is None else {"tag_ttl": tag_ttl}
    settings = load({"tag_ttl": 7, "upstreams": {"docker": upstream}}, {})
    target = parse_target(f"/v2/{path}".encode())
    assert isinstance(target, Manifest | Tags)
    return make_tag_ttl(settings.upstreams["docker"], settings)(target)


@pytest.mark.parametrize(
    ("tag_ttl", "path", "expected"),
    [
        (PATTERNS, "library/nginx/manifests/latest", 10),
        (PATTERNS, "library/nginx/manifests/1.27", 600),
        (PATTERNS, "library/nginx/tags/list", 600),
        (PATTERNS, "team/a/b/manifests/latest", 60.5),
        (PATTERNS, "team/a/tags/list", 60.5),
        (dict(reversed(PATTERNS.items())), "library/nginx/manifests/latest", 60.5),
        ({"library/*": 600}, "team/a/manifests/latest", 7),
        (None, "library/nginx/manifests/latest", 7),
        (5, "library/nginx/manifests/latest", 5),
        (0, "library/nginx/manifests/latest", 0),
    ],
)
def test_the_first_pattern_that_matches_sets_the_ttl(tag_ttl: Any, path: str, expected: float) -> None:
    """A list has that of its repository; without a matching pattern the global TTL counts."""
    assert ttl_of(tag_ttl, path) == expected


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [({}, 5), ({"stale_while_revalidate": 7}, 7), ({"stale_while_revalidate": 0}, 0), ({"writes": True}, 0)],
)
def test_stale_tags_are_served_as_the_upstream_or_all_have_it(
    upstream: dict[str, Any], expected: float
) -> None:
    """None of an upstream that clients write to."""
    settings = load({"stale_while_revalidate": 5, "upstreams": {"docker": upstream}}, {})
    assert make_tag_lifetime(settings.upstreams["docker"], settings).while_revalidate == expected


def test_a_reload_ends_the_refreshes_and_polls_of_the_stacks_before() -> None:
    """Upstreams that the operator has removed are not asked about their tags."""
    origin = Origin()
    origin.shelf(NAME).publish(CONFIG, LAYER)
    refreshing = Refreshing(origin, ahead=True)
    for _ in range(2):
        refreshing.mirror.get(TAG)
    clock, memory = refreshing.mirror.clock, SharedTables.create()
    assert clock.getDelayedCalls()
    unused: Any = None
    builder = SiteBuilder(
        StackContext(clock, lambda *_: World().agent, Telemetry.create(memory, clock)),
        lambda _: {},
        print,
        maybeDeferred,
        memory,
        ConnectionShare(1000),
    )
    removed = HostRegistries(unused, unused, unused, unused, refresher=refreshing.refresher)
    builder.stacks = {"removed": removed}
    builder.apply(load({}, {}))
    assert not clock.getDelayedCalls()
    assert "removed" not in builder.stacks


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("offline", {"offline": True}),
        ("upstreams.docker.offline", {"upstreams": {"docker": {"offline": True}}}),
        ("policy", {"policy": [{"images": "**", "min_age": "7d"}]}),
        ("sync", {"sync": [{"upstream": "docker", "repositories": ["nginx"]}]}),
    ],
)
def test_a_setting_that_needs_a_cache_is_refused_without_one(key: str, settings: dict[str, Any]) -> None:
    """A reload refuses it, too, and the settings before stay in force."""
    with pytest.raises(ConfigurationError, match=f"^{key}: needs a cache"):
        House(World(), **settings)
    house = House(World())
    before = house.serving.settings
    with pytest.raises(ConfigurationError, match=f"^{key}: needs a cache"):
        house.serving.apply(load(settings, {}))
    assert house.serving.settings is before
