"""The status as a page, as text, and its charts and phrases."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from attrs import evolve
from twisted.web.template import flattenString

from dockmirror.history.fleet import FleetMirror
from dockmirror.history.pulls import Pull, PullSums
from dockmirror.status import (
    AccountStatus,
    AddressStatus,
    BudgetStatus,
    CacheUsage,
    CertificateStatus,
    DownloadStatus,
    NetworkShare,
    Quota,
    RegistryUsage,
    UpstreamStatus,
    Usage,
    WorkerState,
    merge_states,
)
from dockmirror.store.sync_states import SyncState
from dockmirror.web.pages.page import LANGUAGES, Language
from dockmirror.web.readiness import ReadinessState
from dockmirror.web.status.overview import FleetSummary, HistorySummary, Status
from dockmirror.web.status.status_page import render_status
from dockmirror.web.status.status_text import (
    describe_failure,
    describe_last_request,
    describe_progress,
    describe_quota,
    describe_quotas,
    describe_week,
    display_names,
    format_percent,
    format_uptime,
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


PULL = Pull(
    7, 8.0, 2.0, "10.0.0.1", "", "m", "docker.io", "library/nginx", "1.27", DIGEST, "linux/amd64",
    7, 5, 48_000_000, 3_000_000, 8, 1, "running", "",
)  # fmt: skip
DAY = PullSums("1970-01-01", 12, 1, 900, 100, 40, 3, 60.0, 90.0)
HISTORY = HistorySummary(
    week=[evolve(DAY, key="docker.io"), evolve(DAY, key="quay.io", saved_pulls=0)],
    clients=[evolve(DAY, key="10.0.0.1"), evolve(DAY, key="")],
    images=[evolve(DAY, key="docker.io/library/nginx")],
    hours=[evolve(DAY, key="1970-01-01T00:00Z")],
    days=[DAY],
    running=[PULL],
)


def make_status(
    state: WorkerState, status: str = "ready", history: HistorySummary | None = HISTORY
) -> Status:
    """Return the status ten seconds after the epoch, of a mirror that started four seconds before."""
    readiness = ReadinessState(True, status, "the disk cannot be written: full")
    return Status(10.0, readiness, state, history, "1.2.3", 6.0)


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
    root = page(make_status(WorkerState(fetches=DOWNLOADS), history=None))
    first, second = root.iter("progress")
    assert (first.get("value"), first.get("max"), second.get("value")) == ("50", "200", None)
    shown = text(root, "fetches").removeprefix("Under wayDownloads from registries")
    assert shown.split(" · ")[0] == "docker.io/a/b +1 sha256:abababab50 B of 200 B"
    assert len({each.get("id") for each in root.iter("li") if each.get("id")}) == 2


def test_running_pulls_name_client_image_and_what_it_got() -> None:
    shown = text(page(make_status(WorkerState())), "fetches")
    assert shown.endswith("nginx:1.2710.0.0.1 · 48.0 MB from the cache, 3.0 MB from the registry · 2 s")


def test_registries_show_state_quota_and_failures() -> None:
    """Unused ones are only named."""
    unused = UpstreamStatus("new", "new.io", "new.m", (AddressStatus("https://n"),))
    section = text(page(make_status(WorkerState((unused, TWO, DOCKER)))), "registries")
    assert "two.ioreachablelast request 1 s agohttps://b Failed 1 s ago: <no>" in section
    assert "docker.ioreachablelast request 2 s ago7 of 100 pulls left, 5 s ago" in section
    assert section.endswith("No pulls so far from: new.io.")


def test_offline_registries_are_shown_as_such() -> None:
    """On the page, in the text and in the JSON."""
    offline = UpstreamStatus("old", "old.io", "old.m", (AddressStatus("https://o"),), offline=True)
    status = make_status(WorkerState((offline, DOCKER)))
    assert "old.iooffline" in text(page(status), "registries")
    assert "old.io离线" in text(page(status, "zh"), "registries")
    assert "old.io     offline" in render_status_text(status, "m", ENGLISH)
    assert json.loads(render_status_json(status))["registries"][0]["state"] == "offline"


def test_the_cache_section_shows_size_and_what_it_saved() -> None:
    section = text(page(make_status(WorkerState(cache=CacheUsage(50, 100)))), "cache")
    for part in ("used50 B of 100 B", "from the cache90 % this week", "waiting saved3 min this week"):
        assert part in section


def test_disk_usage_is_listed_with_its_age_or_being_measured() -> None:
    def section(used: int, usage: Usage | None) -> str:
        return text(page(make_status(WorkerState(cache=CacheUsage(used, 100), usage=usage))), "cache")

    listed = section(50, Usage(4.0, 0.1, (RegistryUsage("docker.io", 5_000_000, 1_000, 7),), 50))
    assert ", measured 6 s ago." in listed
    assert listed.endswith("docker.io5.0 MB1.0 kB7")
    assert section(0, Usage(4.0, 0.1, (), 0)).endswith("The cache is empty.")
    assert section(50, None).endswith("Disk usageBeing measured.")


def test_a_pull_under_way_has_its_user() -> None:
    history = evolve(HISTORY, running=[evolve(PULL, user="alice")])
    assert "nginx:1.27alice@10.0.0.1 · 48.0 MB" in text(page(make_status(WorkerState(), history=history)))


@pytest.mark.parametrize(("free", "kind"), [(3_000, None), (1_999, "bad")])
def test_the_space_that_is_left_on_the_disk_is_shown(free: int, kind: str | None) -> None:
    usage = Usage(4.0, 0.1, (), 0, free)
    status = make_status(WorkerState(cache=CacheUsage(50, 100, 2_000), usage=usage))
    words = f"{free / 1000:.1f} kB, min_free is 2.0 kB"
    assert f"free on the disk: {words}" in render_status_text(status, "m", ENGLISH)
    (tile,) = (each for each in page(status).iter("div") if (each.findtext("dt") or "").startswith("free"))
    assert (text(tile), tile.get("class")) == (f"free on the disk{words.replace(',', '')}", kind)


def test_the_week_is_told_in_a_sentence() -> None:
    """Without pulls it says so, and without a history nothing."""
    sentence = (
        "This week: 2.0 kB served, 200 B fetched, 3 of Docker Hub's pulls saved, 3 min of waiting saved."
    )
    assert describe_week(HISTORY, ENGLISH) == sentence
    assert sentence in text(page(make_status(WorkerState())))
    long = HistorySummary(week=[evolve(DAY, key="x.io", saved_pulls=1204, saved_seconds=11_160.0)])
    assert describe_week(long, ENGLISH).endswith(", 1,204 of x.io's pulls saved, 3.1 h of waiting saved.")
    assert describe_week(HistorySummary(), ENGLISH) == "No pulls this week."
    assert describe_week(None, ENGLISH) == describe_week(HistorySummary(error="no"), ENGLISH) == ""


def test_clients_and_images_are_listed_with_what_they_pulled() -> None:
    """A history without addresses has one client, without a name."""
    root = page(make_status(WorkerState()))
    assert text(root, "clients").endswith("10.0.0.11211.0 kB90 %without a name1211.0 kB90 %")
    assert text(root, "images").endswith("docker.io/library/nginx1211.0 kB90 %")


def test_the_mirror_section_has_version_certificates_and_links() -> None:
    """A certificate that expires within a week is marked."""
    days = 86_400.0
    certificates = tuple(CertificateStatus(f"{count}.pem", count * days) for count in (0, 3, 9))
    root = page(make_status(WorkerState(certificates=certificates, processes=4)))
    shown = text(root, "mirror")
    assert "version1.2.3running for4 sprocesses4" in shown
    assert "0.pemnot issued yet3.pem1970-01-04, in 2 days9.pem1970-01-10, in 8 days" in shown
    assert [each.text for each in root.iter("td") if each.get("class") == "bad"] == [
        "not issued yet", "1970-01-04, in 2 days",
    ]  # fmt: skip
    links = [each.get("href", "") for each in root.iter("a")]
    assert {"metrics", "status.json"} <= set(links)
    assert sum(link.endswith(("monitor.md", "grafana.json", "alerts.yml")) for link in links) == 3
    assert (format_uptime(172_799, ENGLISH), format_uptime(12 * days, ENGLISH)) == ("48 h", "12 d")
    assert format_uptime(12 * days, LANGUAGES["zh"]) == "12 天"


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_section_has_a_sentence_for_no_data(code: str) -> None:
    say = LANGUAGES[code]
    for state in ("ready", "degraded", "stopping", "not listening"):
        root = page(make_status(WorkerState(), state, None), code)
        assert root.get("lang") == code
        assert ("the disk cannot be written: full" in text(root)) == (state == "degraded")
        assert not list(root.iter("svg"))
        assert text(root).count(say("status.no_history").replace("`", "")) == 3
    empty = text(page(make_status(WorkerState(), history=HistorySummary()), code))
    assert empty.count(say("status.no_pulls")) == 5
    written = render_status_text(
        make_status(WorkerState(cache=CacheUsage(0, 1)), history=HistorySummary()), "m", say
    )
    assert written.count("\n\n") == 8
    assert say("status.no_fetches") in written
    assert written.count(say("status.no_pulls")) == 3
    assert "—" not in written


FLEET = FleetSummary(
    [FleetMirror("mirror-a", "1.2.3", 4.0), FleetMirror("mirror-b", "1.2.2", -4000.0)],
    [evolve(DAY, key="mirror-a")],
)


def test_the_mirrors_of_a_fleet_are_listed_with_their_total() -> None:
    """One that was not seen for long may be down."""
    status = make_status(WorkerState(), history=evolve(HISTORY, fleet=FLEET))
    root = page(status)
    shown = text(root, "fleet")
    assert "mirror-a1.2.36 s ago1211.0 kB90 %" in shown
    assert "mirror-b1.2.2down? 67 min ago000 B—" in shown
    assert shown.endswith("total1211.0 kB90 %")
    assert "#fleet" in {each.get("href") for each in root.iter("a")}
    lines = [line.split() for line in render_status_text(status, "m", ENGLISH).splitlines()]
    assert ["mirror-a", "1.2.3", "6", "s", "ago", "12", "1", "1.0", "kB", "90", "%"] in lines
    (seen, _) = json.loads(render_status_json(status))["history"]["fleet"]["mirrors"]
    assert seen == {"name": "mirror-a", "version": "1.2.3", "seen": "1970-01-01T00:00:04.000+00:00"}
    one = page(
        make_status(WorkerState(), history=evolve(HISTORY, fleet=evolve(FLEET, mirrors=FLEET.mirrors[:1])))
    )
    assert "total" not in text(one, "fleet")


SYNC = [
    SyncState("a", "docker: nginx (all tags), every 6h", "paused", "the rest is left", 4.0, 5.0, 70.0,
              matched=1200, synced=7, failed=1, bytes=3000),
    SyncState("b", "ghcr: x (all tags), at 0 3 * * * UTC", next_run=3610.0),
]  # fmt: skip


def test_rules_that_keep_images_in_sync_are_listed_with_their_last_run() -> None:
    """Without rules there is no such section."""
    status = evolve(make_status(WorkerState()), sync=SYNC)
    shown = text(page(status), "sync")
    expected = "every 6hpaused for the rate limit: the rest is left6 s agoin 60 s1,200713.0 kB"
    assert expected in shown
    assert shown.endswith("at 0 3 * * * UTCwaits for its first run—in 60 min0000 B")
    chinese = text(page(status, "zh"), "sync")
    assert "因拉取限额暂停" in chinese
    assert "the rest is left6 秒前60 秒后1,200713.0 kB" in chinese
    assert "#sync" in {each.get("href") for each in page(status).iter("a")}
    written = render_status_text(status, "m", ENGLISH)
    assert "paused for the rate limit: the rest is left  6 s ago   in 60 s" in written
    paused, waiting = json.loads(render_status_json(status))["sync"]
    assert (paused["outcome"], paused["started"]) == ("paused", "1970-01-01T00:00:04.000+00:00")
    assert (paused["matched"], paused["failed"], paused["pinned"]) == (1200, 1, 0)
    assert (waiting["outcome"], waiting["next_run"]) == ("waiting", "1970-01-01T01:00:10.000+00:00")
    assert all(each.get("id") != "sync" for each in page(make_status(WorkerState())).iter())


MOST = (
    NetworkShare("10.0.0.1", 1.02, 40, 500, 3_000, 3610.0),
    NetworkShare("", 0.25, 1500, 1, 7_000_000, 9.0),
)
BUDGETS = [
    BudgetStatus("docker.io/library/**", "network", None, 500, None, 21_600.0, 1204, 1, 37, MOST),
    BudgetStatus("**", "image", 6000, 100, 100_000_000_000, 60.0),
    BudgetStatus("ghcr.io/**", "image", None, None, None, 60.0),
]


def test_budgets_are_shown_with_the_networks_that_have_used_most() -> None:
    """Without budgets there is no such section."""
    status = evolve(make_status(WorkerState()), budgets=BUDGETS)
    shown = text(page(status), "budgets")
    for part in (
        "docker.io/library/**500 pulls in 6 h, for each client network.Client networks that have used some",
        "in their current window: 1,204; all of it: 1. Requests refused since the start: 37.",
        "10.0.0.1500403.0 kB102 %60 min",
        "without a name11,5007.0 MB25 %0 s",
        "**100 pulls, 6,000 requests, 100 GB in 60 s, for each client network and image.",
        "ghcr.io/**no limit in 60 s",
    ):
        assert part in shown
    assert len([each for each in page(status).iter("h3") if (each.find("code")) is not None]) == 3
    assert "#budgets" in {each.get("href") for each in page(status).iter("a")}
    assert all(each.get("id") != "budgets" for each in page(make_status(WorkerState())).iter())
    chinese = text(page(status, "zh"), "budgets")
    assert "6 小时内合计 500 次拉取。" in chinese
    assert "10.0.0.1500403.0 kB102 %60 分钟" in chinese


def test_budgets_are_in_the_text_and_in_the_json() -> None:
    status = evolve(make_status(WorkerState()), budgets=BUDGETS[:2])
    written = render_status_text(status, "m", ENGLISH)
    _, _, part = written.partition("\n\nBudgets for images\n")
    assert part.partition("\n\n")[0].splitlines() == [
        "    docker.io/library/**: 500 pulls in 6 h, for each client network.",
        "        Client networks that have used some of it in their current window: 1,204; all of it: 1."
        " Requests refused since the start: 37.",
        "        client network  pulls  requests  sent    of the limit  left of the window",
        "        10.0.0.1        500    40        3.0 kB  102 %         60 min",
        "        without a name  1      1,500     7.0 MB  25 %          0 s",
        "    **: 100 pulls, 6,000 requests, 100 GB in 60 s, for each client network and image.",
        "        Client networks that have used some of it in their current window: 0; all of it: 0."
        " Requests refused since the start: 0.",
    ]
    used, unused = json.loads(render_status_json(status))["budgets"]
    assert used["most"][0] == {
        "client": "10.0.0.1", "share": 1.02, "requests": 40, "pulls": 500, "bytes": 3000,
        "ends": "1970-01-01T01:00:10.000+00:00",
    }  # fmt: skip
    assert unused == {
        "images": "**", "each": "image", "requests": 6000, "pulls": 100, "bytes": 100_000_000_000,
        "window": 60.0, "networks": 0, "used_up": 0, "refused": 0, "most": [],
    }  # fmt: skip
    assert json.loads(render_status_json(make_status(WorkerState())))["budgets"] == []


def test_a_fleet_without_sums_and_a_failing_bucket_say_so() -> None:
    fleet = FleetSummary(error="the bucket fails")
    status = make_status(WorkerState(), history=HistorySummary(error="the disk is gone", fleet=fleet))
    for shown in (text(page(status), "fleet"), render_status_text(status, "m", ENGLISH)):
        assert "the bucket fails" in shown
        assert "No mirror has told its sums yet" in shown
    assert all(each.get("id") != "fleet" for each in page(make_status(WorkerState())).iter())


def test_a_history_that_cannot_be_read_says_why() -> None:
    status = make_status(WorkerState(), history=HistorySummary(error="the disk is <gone>"))
    assert text(page(status)).count("the disk is <gone>") == 3
    assert render_status_text(status, "m", ENGLISH).count("    the disk is <gone>") == 3


def test_the_page_has_less_than_150_kilobytes() -> None:
    """Also with as much in it as there can be."""
    begin = datetime(1970, 1, 1, tzinfo=UTC) - timedelta(days=182)
    days = [evolve(DAY, key=f"{begin + timedelta(days=day):%Y-%m-%d}") for day in range(183)]
    hours = [evolve(DAY, key=f"1970-01-01T{hour:02}:00Z") for hour in range(24)]
    names = [evolve(DAY, key=f"registry.example.com/{'long/' * 20}{number}") for number in range(10)]
    upstreams = tuple(evolve(TWO, name=f"upstream{number}") for number in range(40))
    history = HistorySummary(names, names, names, hours, days, [PULL] * 30)
    status = make_status(WorkerState(upstreams, DOWNLOADS * 20, CacheUsage(1, 2)), history=history)
    body = Outcome(flattenString(None, render_status(status, "m:9464", LANGUAGES["zh"]))).get()
    assert 60_000 < len(body) < 150_000


def test_the_text_has_aligned_columns_and_failures_below_their_registry() -> None:
    usage = Usage(4.0, 1.0, (RegistryUsage("docker.io", 3000, 0, 4),), 3000, 9000)
    certificates = (CertificateStatus("a.pem", 864_000.0),)
    status = make_status(
        WorkerState((DOCKER, TWO), DOWNLOADS, CacheUsage(1500, 3000), 2, usage, certificates)
    )
    expected = f"""\
m:9464: Mirror status
Healthy; caching.
This week: 2.0 kB served, 200 B fetched, 3 of Docker Hub's pulls saved, 3 min of waiting saved.

Under way
    nginx:1.27  10.0.0.1 · 48.0 MB from the cache, 3.0 MB from the registry · 2 s
    docker.io/a/b, docker.io/c/d  {DIGEST}  50 B of 200 B · 5 B/s · 30 s left
    two.io                        {DIGEST}  7 B

Traffic
    time        pulls  failed  sent    from the cache
    1970-01-01  12     1       1.0 kB  90 %

Registries
    docker.io  reachable  last request 2 s ago  7 of 100 pulls left, 5 s ago
    two.io     reachable  last request 1 s ago
        https://b Failed 1 s ago: <no>

Cache
    1.5 kB of 3.0 kB
    free on the disk: 9.0 kB, min_free is 0 B

Disk usage
    {ENGLISH("status.usage.what", age="6 s")}
    registry   used    items
    docker.io  3.0 kB  4

Clients this week
    client          pulls  failed  sent    from the cache
    10.0.0.1        12     1       1.0 kB  90 %
    without a name  12     1       1.0 kB  90 %

Images this week
    image                    pulls  failed  sent    from the cache
    docker.io/library/nginx  12     1       1.0 kB  90 %

This mirror
    version      1.2.3
    running for  4 s
    processes    2
    a.pem        1970-01-11, in 9 days
"""
    assert render_status_text(status, "m:9464", ENGLISH) == expected
    without = render_status_text(make_status(WorkerState(), "degraded"), "m", ENGLISH)
    assert without.count("No cache: ") == 2


def test_times_in_json_are_written_as_in_the_log() -> None:
    state = WorkerState((TWO, DOCKER), certificates=(CertificateStatus("a.pem", 3.0),))
    fields = json.loads(render_status_json(make_status(state)))
    assert fields["time"] == "1970-01-01T00:00:10.000+00:00"
    second = fields["registries"][0]["addresses"][1]
    assert (second["answered"], second["failed"]) == (
        "1970-01-01T00:00:01.000+00:00", "1970-01-01T00:00:09.000+00:00",
    )  # fmt: skip
    assert fields["registries"][0]["rests"] is None
    assert fields["registries"][1]["quota"]["told"] == "1970-01-01T00:00:05.000+00:00"
    assert fields["registries"][1]["quota"]["limit"] == 100
    assert (fields["version"], fields["started"]) == ("1.2.3", "1970-01-01T00:00:06.000+00:00")
    assert fields["certificates"] == [{"file": "a.pem", "expires": "1970-01-01T00:00:03.000+00:00"}]
    assert fields["history"]["running"][0]["began"] == "1970-01-01T00:00:08.000+00:00"
    assert (fields["history"]["days"][0]["cached_bytes"], fields["history"]["days"][0]["failed"]) == (900, 1)
    assert json.loads(render_status_json(make_status(state, history=None)))["history"] is None


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


def test_each_account_has_a_quota() -> None:
    """Its name stands before it; an account that the upstream has told no limit for has no line."""
    accounts = AccountStatus("team-a", Quota(940.0, 100, 7)), AccountStatus("team-b")
    upstream = UpstreamStatus("d", "d.io", "d.m", (), quota=Quota(940.0, 100, 9), accounts=accounts)
    assert list(describe_quotas(upstream, 1000.0, ENGLISH)) == [
        "9 of 100 pulls left, 60 s ago",
        "team-a: 7 of 100 pulls left, 60 s ago",
    ]
    assert WorkerState.from_json(WorkerState((upstream,)).as_json()).upstreams == (upstream,)
    newer = evolve(upstream, accounts=(AccountStatus("team-a", Quota(950.0, 100, 6)), *accounts[1:]))
    for states in ((newer, upstream), (upstream, newer)):
        assert merge_states([WorkerState((each,)) for each in states]).upstreams == (newer,)
