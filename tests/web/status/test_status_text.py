"""The status as text."""

from __future__ import annotations

from dockmirror.status.cache_series import RepositoryPulls, SeriesSlot
from dockmirror.status.status_values import CacheUsage, RegistryUsage, Usage, WorkerState
from dockmirror.web.pages.page import LANGUAGES
from dockmirror.web.status.status_text import render_status_text

from .test_status_page import DIGEST, DOCKER, FETCHES, TWO, status


def test_all_of_it() -> None:
    """The text has aligned columns, and failures below their registry."""
    usage = Usage(4.0, 1.0, (RegistryUsage("docker.io", 3000, 0, 4),), 3000)
    noted = WorkerState((DOCKER, TWO), FETCHES, CacheUsage(1500, 3000), usage=usage)
    slots = (SeriesSlot(0, 4, 3, 1500),)
    popular = (RepositoryPulls("docker.io/a/b", 12, 2_000_000),)
    told = render_status_text(status(noted, slots=slots, popular=popular), "m:9464", LANGUAGES["en"])
    say = LANGUAGES["en"]
    assert (
        told
        == f"""\
m:9464: Mirror status
Healthy; caching.

Downloads
    docker.io/a/b, docker.io/c/d  {DIGEST}  50 B of 200 B · 5 B/s · 30 s left
    two.io                        {DIGEST}  7 B

Registries
    docker.io  reachable  last request 2 s ago  7 of 100 pulls left, 5 s ago
    two.io     reachable  last request 1 s ago
        https://b Failed 1 s ago: <no>

Cache
    1.5 kB of 3.0 kB
    75 % of the blobs and manifests came from the cache.

Disk usage
    {say("status.usage.what", age="6 s")}
    registry   used    items
    docker.io  3.0 kB  4

Most pulled
    repository     manifests  sent
    docker.io/a/b  12         2.0 MB
"""
    )


def test_nothing_yet() -> None:
    """Each part says so, in every language."""
    for language in LANGUAGES.values():
        told = render_status_text(status(WorkerState(cache=CacheUsage(0, 1))), "m", language)
        assert told.count("\n\n") == 5
        assert language("status.no_fetches") in told
        assert language("status.no_popular") in told
        assert "—" not in told
    assert (
        render_status_text(status(WorkerState(), "degraded"), "m", LANGUAGES["en"]).count("No cache: ") == 2
    )
