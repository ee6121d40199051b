"""The status as a page, as text, and its charts and phrases."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from twisted.web.template import Tag, flattenString

from dockmirror.status.cache_series import RepositoryPulls, SeriesSlot
from dockmirror.status.status_values import (
    AddressStatus,
    CacheUsage,
    DownloadStatus,
    Quota,
    RegistryUsage,
    UpstreamStatus,
    Usage,
    WorkerState,
)
from dockmirror.web.pages.page import LANGUAGES, Language
from dockmirror.web.readiness import ReadinessState
from dockmirror.web.status.cache_section import (
    Bar,
    count_hours,
    draw_hit_ratios,
    draw_sizes,
    draw_volumes,
    group_slots,
)
from dockmirror.web.status.overview import Status
from dockmirror.web.status.status_page import render_status
from dockmirror.web.status.status_text import (
    describe_failure,
    describe_last_request,
    describe_progress,
    describe_quota,
    display_names,
    format_percent,
    render_status_json,
    render_status_text,
    sort_by_state,
)
from tests.stacks import Outcome

ENGLISH = LANGUAGES["en"]
NOW = 1000.0
DIGEST = f"sha256:{'ab' * 32}"
TWO = UpstreamStatus(
    "two", "two.io", "two.m", (AddressStatus("https://a", 9.0), AddressStatus("https://b", 1.0, 9.0, "<no>"))
)
DOCKER = UpstreamStatus(
    "docker", "docker.io", "docker.m", (AddressStatus("https://d", 8.0),), quota=Quota(5.0, 100, 7)
)
DOWNLOADS = (
    DownloadStatus("docker.io", DIGEST, ("docker.io/a/b", "docker.io/c/d"), 50, 200, 5.0),
    DownloadStatus("two.io", DIGEST, (), 7),
)


def make_status(
    state: WorkerState,
    status: str = "ready",
    slots: tuple[SeriesSlot, ...] = (),
    popular: tuple[RepositoryPulls, ...] = (),
) -> Status:
    """Return the status ten seconds after the epoch."""
    readiness = ReadinessState(True, status, "the disk cannot be written: full")
    return Status(10.0, readiness, state, slots, popular)


def page(status: Status, code: str = "en") -> ElementTree.Element:
    """Return the page, which is well-formed."""
    body = Outcome(flattenString(None, render_status(status, "m:9464", LANGUAGES[code]))).get()
    return ElementTree.fromstring(body.decode())  # noqa: S314


def text(root: ElementTree.Element, section: str = "") -> str:
    """Return the text of the page, or of one section."""
    of = root if not section else next(each for each in root.iter() if each.get("id") == section)
    return " ".join("".join(of.itertext()).split())


def test_a_download_has_a_progress_bar_if_its_size_is_known() -> None:
    """It names its repositories."""
    root = page(make_status(WorkerState(fetches=DOWNLOADS)))
    first, second = root.iter("progress")
    assert (first.get("value"), first.get("max"), second.get("value")) == ("50", "200", None)
    assert text(root, "fetches").split(" · ")[0] == "Downloadsdocker.io/a/b +1 sha256:abababab50 B of 200 B"
    assert len({each.get("id") for each in root.iter("li") if each.get("id")}) == 2


def test_registries_show_state_quota_and_failures() -> None:
    """Unused ones are only named."""
    unused = UpstreamStatus("new", "new.io", "new.m", (AddressStatus("https://n"),))
    section = text(page(make_status(WorkerState((unused, TWO, DOCKER)))), "registries")
    assert "two.ioreachablelast request 1 s agohttps://b Failed 1 s ago: <no>" in section
    assert "docker.ioreachablelast request 2 s ago7 of 100 pulls left, 5 s ago" in section
    assert section.endswith("No pulls so far from: new.io.")


def test_the_cache_section_shows_size_and_hit_ratio() -> None:
    slots = tuple(SeriesSlot(300 * n, 4, 3, 50) for n in range(144))
    root = page(make_status(WorkerState(cache=CacheUsage(50, 100)), slots=slots))
    section = text(root, "cache")
    for part in ("used50 B of 100 B", "75 % in the last hour", "75 % in 12 hours"):
        assert part in section
    assert [len(list(svg)) for svg in root.iter("svg")] == [96, 48, 48]


def test_disk_usage_is_listed_with_its_age_or_being_measured() -> None:
    def section(used: int, usage: Usage | None) -> str:
        return text(page(make_status(WorkerState(cache=CacheUsage(used, 100), usage=usage))), "usage")

    listed = section(50, Usage(4.0, 0.1, (RegistryUsage("docker.io", 5_000_000, 1_000, 7),), 50))
    assert ", measured 6 s ago." in listed
    assert listed.endswith("docker.io5.0 MB1.0 kB7")
    assert section(0, Usage(4.0, 0.1, (), 0)).endswith("The cache is empty.")
    assert section(50, None) == "Disk usageBeing measured."


def test_popular_repositories_are_listed_with_the_bytes_sent() -> None:
    popular = (RepositoryPulls("docker.io/a", 3, 5_000_000),)
    root = page(make_status(WorkerState(), popular=popular))
    assert text(root, "popular").endswith("docker.io/a35.0 MB")


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_section_has_a_sentence_for_no_data(code: str) -> None:
    say = LANGUAGES[code]
    for state in ("ready", "degraded", "stopping", "not listening"):
        root = page(make_status(WorkerState(), state), code)
        assert root.get("lang") == code
        assert ("the disk cannot be written: full" in text(root)) == (state == "degraded")
        assert not list(root.iter("svg"))
    written = render_status_text(make_status(WorkerState(cache=CacheUsage(0, 1))), "m", say)
    assert written.count("\n\n") == 5
    assert say("status.no_fetches") in written
    assert say("status.no_popular") in written
    assert "—" not in written


def test_the_text_has_aligned_columns_and_failures_below_their_registry() -> None:
    usage = Usage(4.0, 1.0, (RegistryUsage("docker.io", 3000, 0, 4),), 3000)
    status = make_status(
        WorkerState((DOCKER, TWO), DOWNLOADS, CacheUsage(1500, 3000), usage=usage),
        slots=(SeriesSlot(0, 4, 3, 1500),),
        popular=(RepositoryPulls("docker.io/a/b", 12, 2_000_000),),
    )
    expected = f"""\
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
    {ENGLISH("status.usage.what", age="6 s")}
    registry   used    items
    docker.io  3.0 kB  4

Most pulled
    repository     manifests  sent
    docker.io/a/b  12         2.0 MB
"""
    assert render_status_text(status, "m:9464", ENGLISH) == expected
    without = render_status_text(make_status(WorkerState(), "degraded"), "m", ENGLISH)
    assert without.count("No cache: ") == 2


def test_times_in_json_are_written_as_in_the_log() -> None:
    fields = json.loads(render_status_json(make_status(WorkerState((TWO, DOCKER)))))
    assert fields["time"] == "1970-01-01T00:00:10.000+00:00"
    second = fields["registries"][0]["addresses"][1]
    assert (second["answered"], second["failed"]) == (
        "1970-01-01T00:00:01.000+00:00", "1970-01-01T00:00:09.000+00:00",
    )  # fmt: skip
    assert fields["registries"][0]["rests"] is None
    assert fields["registries"][1]["quota"]["told"] == "1970-01-01T00:00:05.000+00:00"
    assert fields["registries"][1]["quota"]["limit"] == 100


def shapes(svg: Tag) -> list[tuple[Any, ...]]:
    """Return kind, position, top and height of each shape."""
    names = ("x", "y", "height")
    rects = [each.attributes for each in svg.children if isinstance(each, Tag)]
    return [(rect["class"], *(float(str(rect[name])) // 1 for name in names)) for rect in rects]


def test_a_bar_combines_three_slots_and_the_last_ends_now() -> None:
    """The cache size stays until another one is known."""
    slots = [
        SeriesSlot(0, 1, 1), SeriesSlot(300, 4, 2, 50), SeriesSlot(600, 1, 0), SeriesSlot(900),
        SeriesSlot(1200), SeriesSlot(1500), SeriesSlot(1800, 5, 5, 70),
    ]  # fmt: skip
    assert group_slots(slots) == [Bar(0, 1, 1, None), Bar(300, 5, 2, 50), Bar(1200, 5, 5, 70)]
    assert group_slots(slots[:3]) == [Bar(0, 6, 3, 50)]
    assert group_slots([]) == []
    assert count_hours([SeriesSlot(0)] * 144) == 12


def test_bars_show_hits_below_misses_and_volumes_relative_to_the_peak() -> None:
    """A bar without requests is empty."""
    bars = [Bar(0, 4, 3, None), Bar(1, 0, 0, None), Bar(2, 2, 2, None)]
    ratios = [("hit", 0, 25, 75), ("miss", 0, 0, 25), ("hit", 2, 0, 100)]
    assert shapes(draw_hit_ratios(bars, "label")) == ratios
    assert shapes(draw_volumes(bars, "label")) == [("asked", 0, 0, 100), ("asked", 2, 50, 50)]
    assert shapes(draw_volumes([], "label")) == []


@pytest.mark.parametrize(("limit", "height"), [(100, 25.0), (0, 100.0), (10, 100.0)])
def test_sizes_are_relative_to_the_limit_unless_they_exceed_it(limit: int, height: float) -> None:
    drawn = shapes(draw_sizes([Bar(0, 0, 0, None), Bar(1, 0, 0, 25)], limit, "label"))
    assert drawn == [("held", 1, 100.0 - height, height)]


def upstream(
    name: str, *addresses: AddressStatus, registry: str = "", rests: float | None = None
) -> UpstreamStatus:
    return UpstreamStatus(name, registry or f"{name}.io", f"{name}.m", addresses, rests)


def test_failing_upstreams_come_first() -> None:
    well, bad = upstream("well", AddressStatus("w", 9.0)), upstream("bad", AddressStatus("b", 1.0, 9.0, "no"))
    new = upstream("new", AddressStatus("n"))
    resting = upstream("rests", AddressStatus("r", 9.0), rests=NOW + 5)
    assert sort_by_state((new, well, resting, bad), NOW) == [bad, resting, well, new]


def test_upstreams_that_share_a_registry_have_their_own_names_as_well() -> None:
    three = [upstream("a"), upstream("b", registry="x.io"), upstream("c", registry="x.io")]
    assert display_names(three) == {"a": "a.io", "b": "x.io (b)", "c": "x.io (c)"}


DESCRIBED = [
    (describe_last_request, upstream("a", AddressStatus("a")), ""),
    (
        describe_last_request,
        upstream("a", AddressStatus("a", 990.0), AddressStatus("b", 1.0, 995.0)),
        "last request 5 s ago",
    ),
    (
        describe_last_request,
        upstream("a", AddressStatus("a", 1001.0), rests=1020.0),
        "last request 0 s ago, paused for 20 s",
    ),
    (describe_last_request, upstream("a", AddressStatus("a", 990.0), rests=999.0), "last request 10 s ago"),
    (describe_failure, AddressStatus("a", 1.0), ""),
    (describe_failure, AddressStatus("a", 990.0, 400.0, "it was slow"), "Failed 10 min ago: it was slow"),
    (describe_quota, None, ""),
    (describe_quota, Quota(1.0, 100), ""),
    (describe_quota, Quota(940.0, 100, 7), "7 of 100 pulls left, 60 s ago"),
    (describe_quota, Quota(940.0, None, 0), "0 pulls left, 60 s ago"),
]


@pytest.mark.parametrize(("describe", "value", "phrase"), DESCRIBED)
def test_states_are_described_as_far_as_they_are_known(
    describe: Callable[[Any, float, Language], str], value: object, phrase: str
) -> None:
    assert describe(value, NOW, ENGLISH) == phrase


@pytest.mark.parametrize(
    ("held", "size", "pace", "phrase"),
    [
        (50_000_000, 100_000_000, 1_000_000.0, "50.0 MB of 100 MB · 1.0 MB/s · 50 s left"),
        (0, 100_000_000, None, "0 B of 100 MB"),
        (50_000_000, None, 1_000_000.0, "50.0 MB · 1.0 MB/s"),
    ],
)
def test_progress_is_described_as_known(held: int, size: int | None, pace: float | None, phrase: str) -> None:
    """A share of nothing is a dash."""
    assert describe_progress(DownloadStatus("r.io", "sha256:a", (), held, size, pace), ENGLISH) == phrase
    assert (format_percent(1, 3), format_percent(0, 3), format_percent(0, 0)) == ("33 %", "0 %", "—")
