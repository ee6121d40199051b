"""Phrases of the status page and the status text."""

from __future__ import annotations

import pytest

from dockmirror.status.status_values import AddressStatus, DownloadStatus, Quota, UpstreamStatus
from dockmirror.web.pages.page import LANGUAGES
from dockmirror.web.status.status_text import (
    describe_failure,
    describe_last_request,
    describe_progress,
    describe_quota,
    display_names,
    format_percent,
    sort_by_state,
)

ENGLISH = LANGUAGES["en"]
NOW = 1000.0


def upstream(
    name: str, *addresses: AddressStatus, registry: str = "", rests: float | None = None
) -> UpstreamStatus:
    """One of that name."""
    return UpstreamStatus(name, registry or f"{name}.io", f"{name}.m", addresses, rests)


def test_what_needs_to_be_looked_at() -> None:
    """Failing upstreams come first."""
    well, bad = upstream("well", AddressStatus("w", 9.0)), upstream("bad", AddressStatus("b", 1.0, 9.0, "no"))
    new, resting = (
        upstream("new", AddressStatus("n")),
        upstream("rests", AddressStatus("r", 9.0), rests=NOW + 5),
    )
    assert sort_by_state((new, well, resting, bad), NOW) == [bad, resting, well, new]


def test_how_they_are_called() -> None:
    """Upstreams are named by registry, and by their own names as well if several share one."""
    three = [upstream("a"), upstream("b", registry="x.io"), upstream("c", registry="x.io")]
    assert display_names(three) == {"a": "a.io", "b": "x.io (b)", "c": "x.io (c)"}


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (upstream("a", AddressStatus("a")), ""),
        (upstream("a", AddressStatus("a", 990.0), AddressStatus("b", 1.0, 995.0)), "last request 5 s ago"),
        (upstream("a", AddressStatus("a", 1001.0), rests=1020.0), "last request 0 s ago, paused for 20 s"),
        (upstream("a", AddressStatus("a", 990.0), rests=999.0), "last request 10 s ago"),
    ],
)
def test_when_it_was_asked(of: UpstreamStatus, told: str) -> None:
    """The last time at any address; and for how long it is not asked now."""
    assert describe_last_request(of, NOW, ENGLISH) == told


def test_a_failure() -> None:
    """The last failure is described with its age, even when it is over."""
    assert describe_failure(AddressStatus("a", 1.0), NOW, ENGLISH) == ""
    assert describe_failure(AddressStatus("a", 990.0, 400.0, "it was slow"), NOW, ENGLISH) == (
        "Failed 10 min ago: it was slow"
    )


def test_a_quota() -> None:
    """A quota is described as far as the upstream has stated it."""
    assert describe_quota(None, NOW, ENGLISH) == describe_quota(Quota(1.0, 100), NOW, ENGLISH) == ""
    assert describe_quota(Quota(940.0, 100, 7), NOW, ENGLISH) == "7 of 100 pulls left, 60 s ago"
    assert describe_quota(Quota(940.0, None, 0), NOW, ENGLISH) == "0 pulls left, 60 s ago"


@pytest.mark.parametrize(
    ("held", "size", "pace", "told"),
    [
        (50_000_000, 100_000_000, 1_000_000.0, "50 MB of 100 MB · 1.0 MB/s · 50 s left"),
        (0, 100_000_000, None, "0 B of 100 MB"),
        (50_000_000, None, 1_000_000.0, "50 MB · 1.0 MB/s"),
    ],
)
def test_progress(held: int, size: int | None, pace: float | None, told: str) -> None:
    """Progress is described as far as it is known."""
    assert describe_progress(DownloadStatus("r.io", "sha256:a", (), held, size, pace), ENGLISH) == told


def test_a_share() -> None:
    """A share of nothing is a dash."""
    assert (format_percent(1, 3), format_percent(0, 3), format_percent(0, 0)) == (
        "33 %",
        "0 %",
        "—",
    )
