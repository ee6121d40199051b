"""The status as a page."""

# mypy: allow-untyped-calls

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from twisted.web.template import flattenString

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
from dockmirror.web.pages.page import LANGUAGES
from dockmirror.web.status.overview import ReadinessState, Status
from dockmirror.web.status.status_page import render_status
from tests.stacks import Outcome

DIGEST = f"sha256:{'ab' * 32}"
TWO = UpstreamStatus(
    "two", "two.io", "two.m", (AddressStatus("https://a", 9.0), AddressStatus("https://b", 1.0, 9.0, "<no>"))
)
DOCKER = UpstreamStatus(
    "docker", "docker.io", "docker.m", (AddressStatus("https://d", 8.0),), quota=Quota(5.0, 100, 7)
)
FETCHES = (
    DownloadStatus("docker.io", DIGEST, ("docker.io/a/b", "docker.io/c/d"), 50, 200, 5.0),
    DownloadStatus("two.io", DIGEST, (), 7),
)


def status(
    noted: WorkerState,
    state: str = "ready",
    slots: tuple[SeriesSlot, ...] = (),
    popular: tuple[RepositoryPulls, ...] = (),
) -> Status:
    """As of ten seconds after the beginning of time."""
    return Status(
        10.0, ReadinessState(True, state, "the disk cannot be written: full"), noted, slots, popular
    )


def page(told: Status, code: str = "en") -> ElementTree.Element:
    """The page, which is well-formed."""
    body = Outcome(flattenString(None, render_status(told, "m:9464", LANGUAGES[code]))).get()
    return ElementTree.fromstring(body.decode())  # noqa: S314


def text(root: ElementTree.Element, section: str = "") -> str:
    """Return the text of the page, or of one section."""
    of = root if not section else next(each for each in root.iter() if each.get("id") == section)
    return " ".join("".join(of.itertext()).split())


def test_what_is_on_its_way() -> None:
    """Each download has a progress bar if its size is known, and names its repositories."""
    root = page(status(WorkerState(fetches=FETCHES)))
    first, second = root.iter("progress")
    assert (first.get("value"), first.get("max")) == ("50", "200")
    assert second.get("value") is None
    assert text(root, "fetches").split(" · ")[0] == "Downloadsdocker.io/a/b +1 sha256:abababab50 B of 200 B"
    assert len({each.get("id") for each in root.iter("li") if each.get("id")}) == 2


def test_registries() -> None:
    """Registries show state, quota, and failures of each address; unused ones are only named."""
    unasked = UpstreamStatus("new", "new.io", "new.m", (AddressStatus("https://n"),))
    told = text(page(status(WorkerState((unasked, TWO, DOCKER)))), "registries")
    assert "two.ioreachablelast request 1 s agohttps://b Failed 1 s ago: <no>" in told
    assert "docker.ioreachablelast request 2 s ago7 of 100 pulls left, 5 s ago" in told
    assert told.endswith("No pulls so far from: new.io.")


def test_a_cache() -> None:
    """The cache section shows how full the cache is, and its hit ratio."""
    slots = tuple(SeriesSlot(300 * n, 4, 3, 50) for n in range(144))
    root = page(status(WorkerState(cache=CacheUsage(50, 100)), slots=slots))
    told = text(root, "cache")
    assert "used50 B of 100 B" in told
    assert "75 % in the last hour" in told
    assert "75 % in 12 hours" in told
    assert [len(list(svg)) for svg in root.iter("svg")] == [96, 48, 48]


def test_what_is_taken_up() -> None:
    """Disk usage is listed by registry with its age, or said to be in measurement."""
    usage = Usage(4.0, 0.1, (RegistryUsage("docker.io", 5_000_000, 1_000, 7),), 50)
    told = text(page(status(WorkerState(cache=CacheUsage(50, 100), usage=usage))), "usage")
    assert ", measured 6 s ago." in told
    assert told.endswith("docker.io5.0 MB1.0 kB7")
    nothing = page(status(WorkerState(cache=CacheUsage(0, 100), usage=Usage(4.0, 0.1, (), 0))))
    assert text(nothing, "usage").endswith("The cache is empty.")
    assert text(page(status(WorkerState(cache=CacheUsage(50, 100)))), "usage") == "Disk usageBeing measured."


def test_what_is_pulled() -> None:
    """Popular repositories are listed with the bytes that were sent."""
    told = text(
        page(status(WorkerState(), popular=(RepositoryPulls("docker.io/a", 3, 5_000_000),))), "popular"
    )
    assert told.endswith("docker.io/a35.0 MB")


@pytest.mark.parametrize("code", LANGUAGES)
def test_nothing_yet(code: str) -> None:
    """Every section has a sentence for no data, in every language and state."""
    for state in ("ready", "degraded", "stopping", "not listening"):
        root = page(status(WorkerState(), state), code)
        assert root.get("lang") == code
        assert ("the disk cannot be written: full" in text(root)) == (state == "degraded")
        assert not list(root.iter("svg"))
