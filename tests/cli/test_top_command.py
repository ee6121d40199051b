"""``dockmirror top``: the status in the terminal, from the JSON that the mirror serves."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from typing import Any

import click
import pytest
from attrs import evolve
from rich.console import Console

from dockmirror.cli.status_commands import Status, render_top, watch
from dockmirror.history.pulls import Pull, PullSums
from dockmirror.status import (
    AccountStatus,
    AddressStatus,
    BudgetStatus,
    CacheUsage,
    DownloadStatus,
    NetworkShare,
    Quota,
    UpstreamStatus,
    WorkerState,
)
from dockmirror.web.readiness import ReadinessState
from dockmirror.web.status import overview
from dockmirror.web.status.overview import HistorySummary
from dockmirror.web.status.status_text import render_status_json
from tests.cli.shop import Shop

DIGEST = f"sha256:{'ab' * 32}"
PULL = Pull(
    7, 92.0, 2.0, "10.0.0.1", "", "m", "docker.io", "library/nginx", "1.27", DIGEST, "linux/amd64",
    7, 5, 48_000_000, 3_000_000, 8, 1, "running", "",
)  # fmt: skip
SUMS = PullSums("docker.io", 9230, 15, 900, 100, 40, 1204, 60.0, 90.0)
HISTORY = HistorySummary(
    week=[SUMS, evolve(SUMS, key="quay.io", pulls=1, failed=0, saved_pulls=0)],
    hours=[SUMS, evolve(SUMS, key="1970-01-01T00:00Z", pulls=2)],
    running=[PULL, evolve(PULL, repository="library/[red]odd", reference=DIGEST, began=0.0)],
)
SLOW = AddressStatus("https://d", 90.0, 40.0, "slow")
MB = 1_000_000
STATE = WorkerState(
    (
        UpstreamStatus("d", "docker.io", "d.m", (SLOW,), None, Quota(5.0, 100, 64)),
        UpstreamStatus("q", "quay.io", "q.m", (AddressStatus("https://q", 1.0, 92.0, "it answered [502]"),)),
        UpstreamStatus("k", "k8s.io", "k.m", (AddressStatus("https://k", 90.0),), 150.0, Quota(5.0, None, 3)),
        UpstreamStatus("n", "never.io", "n.m", (AddressStatus("https://n"),)),
    ),
    (
        DownloadStatus("docker.io", DIGEST, ("docker.io/library/nginx",), 50 * MB, 100 * MB, 1.0 * MB),
        DownloadStatus("quay.io", DIGEST, (), 7_000),
    ),
    CacheUsage(301_000_000_000, 500_000_000_000),
    processes=4,
)  # fmt: skip


def served(
    state: WorkerState = STATE,
    history: HistorySummary | None = HISTORY,
    status: str = "ready",
    budgets: Sequence[BudgetStatus] = (),
) -> Status:
    """Return the JSON of a mirror a hundred seconds after the epoch."""
    readiness = ReadinessState(True, status, "writable" if status == "ready" else "the bucket fails: x")
    value: Status = json.loads(
        render_status_json(overview.Status(100.0, readiness, state, history, "1.4.0", 0.0, budgets=budgets))
    )
    return value


def printed(status: Status, width: int = 100) -> list[str]:
    """Return the lines on a terminal without colours, columns separated by two blanks."""
    file = StringIO()
    Console(file=file, width=width, highlight=False, markup=False).print(render_top(status))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [re.sub("  +", "  ", line.strip()) for line in lines]


def test_each_account_has_a_limit() -> None:
    upstream = evolve(STATE.upstreams[0], accounts=(AccountStatus("team-a", Quota(5.0, 100, 7)),))
    lines = printed(served(WorkerState((upstream,))))
    assert "docker.io  reachable  64 of 100  60 s ago: slow" in lines
    assert lines[lines.index("docker.io  reachable  64 of 100  60 s ago: slow") + 1] == "team-a: 7 of 100"


def test_a_pull_has_its_user() -> None:
    lines = printed(served(history=evolve(HISTORY, running=[evolve(PULL, user="alice")])))
    assert [each for each in lines if "  alice@10.0.0.1  " in each]


def test_pulls_downloads_and_upstreams_are_listed() -> None:
    """A pull has the bar of its downloads; failing upstreams come first, unused ones are left out."""
    bar = "━" * 8
    assert printed(served()) == [
        "ready · dockmirror 1.4.0 · 4 processes · cache 301 GB of 500 GB",
        "hour: 2 pulls, 15 failed, 1.0 kB, 90 % cached, 1,204 limited pulls saved",
        "week: 9,231 pulls, 15 failed, 2.0 kB, 90 % cached, 1,204 limited pulls saved",
        "",
        "Pulls",
        "image  client  cached  fetched  time",
        f"docker.io/library/nginx:1.27  10.0.0.1  48.0 MB  3.0 MB  8 s  {bar}",
        "docker.io/library/[red]odd@sha256:abababab  10.0.0.1  48.0 MB  3.0 MB  2 min",
        "",
        "Downloads",
        "repository  fetched  pace",
        f"docker.io/library/nginx  {bar}  50.0 MB of 100 MB  1.0 MB/s",
        "quay.io  7.0 kB",
        "",
        "Upstreams",
        "registry  state  limit  last failure",
        "quay.io  failing  8 s ago: it answered [502]",
        "k8s.io  paused  3",
        "docker.io  reachable  64 of 100  60 s ago: slow",
        "",
    ]


def test_budgets_are_listed_with_the_network_that_has_used_most() -> None:
    """Without budgets there is no such part, and where the history keeps no addresses no name."""
    used = BudgetStatus("docker.io/**", "network", None, 500, None, 60.0, 1204, 2, 37)
    share = NetworkShare("10.0.0.1", 1.02, 1, 510, 0, 160.0)
    budgets = [
        evolve(used, most=(share, evolve(share, share=0.5))),
        evolve(used, images="[red]", most=(evolve(share, client=""),)),
        evolve(used, networks=0, used_up=0, refused=0),
    ]
    lines = printed(served(WorkerState(), budgets=budgets))
    assert lines[lines.index("Budgets") + 1 :] == [
        "images  networks  used up  refused  most",
        "docker.io/**  1,204  2  37  102 % 10.0.0.1",
        "[red]  1,204  2  37  102 %",
        "docker.io/**  0  0  0",
        "",
    ]
    assert "Budgets" not in printed(served())


def test_a_narrow_terminal_cuts_names() -> None:
    assert any("docker.io/library/nginx:1.…" in line for line in printed(served(), 80))


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (None, "no history: the setting 'history' is off"),
        (HistorySummary(error="it is broken"), "it is broken"),
    ],
)
def test_missing_parts_are_told(history: HistorySummary | None, words: str) -> None:
    assert printed(served(WorkerState(), history, "degraded")) == [
        "degraded: the bucket fails: x · dockmirror 1.4.0 · 1 process", words, "",
        "Pulls: none", "", "Downloads: none", "", "Upstreams: none", "",
    ]  # fmt: skip
    assert "hour: 0 pulls, 0 failed, 0 B, nothing sent" in printed(served(history=HistorySummary()))[1]


def test_it_looks_until_the_user_interrupts() -> None:
    """A mirror that does not answer for a while is waited for, and what it told last stays."""
    outcomes: list[Any] = [served(), click.ClickException("no mirror answers"), served(WorkerState(), None)]
    console = Console(file=StringIO(), width=100, height=40, force_terminal=True)
    screens: list[str] = []

    def fetch() -> Status:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        value: Status = outcome
        return value

    def wait() -> None:
        screens.append(console.file.getvalue())  # type: ignore[attr-defined]
        if not outcomes:
            raise KeyboardInterrupt

    watch(fetch, console, wait)
    seen = [screen[len(before) :] for before, screen in pairwise(["", *screens])]
    assert ["no mirror answers" in each for each in seen] == [False, True, False]
    assert ["library/nginx" in each for each in seen] == [True, True, False]


def test_a_mirror_that_never_answered_is_an_error(shop: Shop) -> None:
    result = shop.run("top", environ={"DOCKMIRROR_OPERATIONS": "none"}, code=1)
    assert "the setting 'operations' is 'none'" in result.stderr
