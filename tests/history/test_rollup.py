"""The rollup of the pulls that are kept: what it answers is what the pulls add up to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from attrs import astuple, evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.history.database import Word, open_for_reading, open_for_writing, transaction
from dockmirror.history.history_writer import HistoryBounds, prune
from dockmirror.history.pulls import Pull, PullFilter, SumKey
from dockmirror.history.reader import SqliteHistory
from dockmirror.history.rollup import (
    CHUNK,
    DAY,
    HOUR,
    LAST_NUMBER,
    LENGTHS,
    WEEK,
    advance_rollup,
    delete_pulls,
    read_end,
    split_numbers,
)
from dockmirror.history.tracker import PartState, PullReport, first_number

from .kept import NOW, KeptHistory, number_at, report

CLIENTS = (
    "10.1.0.9",
    "10.1.0.10",
    "10.1.2.0/24",
    "10.2.0.1",
    "fd00:0:0:1::9",
    "fd00:0:0:2::/48",
    "office",
    "",
)
NETWORKS = (
    "", "10.1.0.0/24", "10.1.0.0/16", "10.0.0.0/8", "10.1.0.8/29", "fd00::/32", "fd00:0:0:1::/64", "::/0",
    "10.1.0.9", "10.9.0.0/16", "office",
)  # fmt: skip
IMAGES = ("docker.io/library/nginx", "docker.io/library/a/b", "docker.io/top", "ghcr.io/team/app")
GLOBS = (
    "", "docker.io/*", "docker.io/library/*", "docker.io/library/a/*", "*/nginx", "docker.io/library/ngin[x]",
    "ghcr.io/team/app:1*", "ghcr.io/t*", "quay.io/*",
)  # fmt: skip
MOST = 10_000


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_sums_are_those_of_the_pulls(seed: int) -> None:
    """Some were taken in, changed and deleted, and the time of a question begins and ends anywhere."""
    random = Random(seed)
    with TemporaryDirectory() as directory:
        kept = KeptHistory(Path(directory), HistoryBounds(days=1000))
        kept.reader = SqliteHistory(kept.path, kept.clock.seconds, "region")
        kept.write()
        for _ in range(random.randrange(1, 12)):
            take_step(kept, random)
        for _ in range(12):
            filter = choose_filter(random)
            found = kept.reader.pulls(filter, MOST)
            for by in get_args(SumKey):
                if by not in ("hour", "day") or filter.client or filter.image:  # these have other sums
                    sums = {each.key: astuple(each)[1:-1] for each in kept.reader.sums(by, filter, MOST)}
                    assert sums == add_up(by, found)
        kept.close()


def choose_age(random: Random) -> float:
    """Return an age in seconds, often at the edge of a period."""
    length = random.choice(LENGTHS)
    edge = NOW % length + length * random.randrange(DAY * 20 // length)
    return random.choice([edge, random.uniform(0, 20 * DAY), random.uniform(0, 3 * HOUR)])


def choose_filter(random: Random) -> PullFilter:
    """Return a filter that sums of whole days do not answer."""
    client, image, since = random.choice(NETWORKS), random.choice(GLOBS), NOW - choose_age(random)
    if not client and not image:
        since = NOW - random.uniform(1, 2 * DAY - 1)
    return PullFilter(
        image, client=client, since=since, until=random.choice([inf, inf, NOW - choose_age(random)])
    )


def take_step(kept: KeptHistory, random: Random) -> None:
    """Write pulls, change one, let the rollup take some in, or delete the oldest."""
    kept.write(*(make_report(random, count) for count in range(random.randrange(20))))
    pulls = kept.reader.pulls(PullFilter(), MOST)
    if pulls:
        pull = random.choice(pulls)
        state = PartState(NOW + random.random(), reason=random.choice(["no", ""]))
        kept.write(report(pull.number, 1, state, client=pull.client, cached_bytes=1))
    with closing(open_for_writing(kept.path)) as connection:
        advance_rollup(connection, NOW, random.randrange(1, 8))
        if random.random() < 0.3:
            with transaction(connection):
                delete_pulls(connection, first_number(NOW - choose_age(random)), random.randrange(1, 9))


def make_report(random: Random, count: int) -> PullReport:
    """A report of a pull, or of a HEAD."""
    age, size = choose_age(random), random.randrange(100)
    registry, _, repository = random.choice(IMAGES).partition("/")
    state = PartState(NOW - age, reason=random.choice(["no", ""]))
    return report(
        number_at(age, count), 1, state, client=random.choice(CLIENTS), registry=registry,
        repository=repository, gets=random.choice([0, 1, 1]), cached_bytes=size, upstream_bytes=3,
        saved_requests=2, saved_pulls=1, last=NOW - age + size,
    )  # fmt: skip


def add_up(by: SumKey, pulls: Sequence[Pull]) -> dict[str, tuple[Any, ...]]:
    totals: dict[str, list[float]] = {}
    for each in pulls:
        time = datetime.fromtimestamp(each.began, UTC)
        key = {
            "hour": f"{time:%Y-%m-%dT%H:00Z}", "day": f"{time:%Y-%m-%d}", "registry": each.registry,
            "repository": f"{each.registry}/{each.repository}", "client": each.client,
        }[by]  # fmt: skip
        amounts = (
            1, each.outcome == "failed", each.cached_bytes, each.upstream_bytes, each.saved_requests,
            each.saved_pulls, each.seconds,
        )  # fmt: skip
        totals[key] = [sum(pair) for pair in zip(totals.get(key, [0] * 7), amounts, strict=True)]
    return {key: (*amounts[:-1], pytest.approx(amounts[-1])) for key, amounts in totals.items()}


@pytest.mark.parametrize(
    ("first", "last", "spans"),
    [
        (0, 40 * DAY, [(WEEK, 0, 5), (0, 33 * DAY, 40 * DAY)]),
        (6 * DAY, 22 * DAY, [(DAY, 6, 7), (WEEK, 1, 3), (DAY, 21, 22)]),
        (33 * DAY - HOUR, 40 * DAY, [(HOUR, 33 * 24 - 1, 33 * 24), (0, 33 * DAY, 40 * DAY)]),
        (31 * DAY + 5 * HOUR, 32 * DAY, [(0, 31 * DAY + 5 * HOUR, 31 * DAY + 18 * HOUR), (HOUR, 762, 768)]),
        (34 * DAY, 35 * DAY, [(0, 34 * DAY, 35 * DAY)]),
        (DAY, DAY, []),
    ],
)
def test_a_time_is_split_into_the_longest_periods(
    first: int, last: int, spans: list[tuple[int, int, int]]
) -> None:
    """The rollup ends after 33 days, and has hours of the last 30."""
    expected = [each if each[0] else (0, *map(first_number, each[1:])) for each in spans]
    assert split_numbers(first_number(first), first_number(last), first_number(33 * DAY)) == expected


def test_a_network_is_answered_without_its_pulls(tmp_path: Path) -> None:
    """Five were deleted, and the rows of the others are gone, so that only the rollup can answer."""
    kept = KeptHistory(tmp_path)
    kept.write(*(report(number_at(3 * DAY + count, count), cached_bytes=7) for count in range(21)))
    with closing(open_for_writing(kept.path)) as connection:
        assert advance_rollup(connection, NOW, 10) == 20
        assert delete_pulls(connection, LAST_NUMBER, 5) == 5
        connection.execute("DELETE FROM pull")
    filter = PullFilter(client="10.0.0.0/24", since=NOW - 10 * DAY)
    for by in ("registry", "repository", "client", "day"):
        assert [(each.pulls, each.cached_bytes) for each in kept.reader.sums(by, filter)] == [(15, 105)]
    for other in (
        evolve(filter, outcome="served"), evolve(filter, user="alice"),
        evolve(filter, image="docker.io/library/nginx:1.27"),
    ):  # fmt: skip
        assert kept.reader.sums("repository", other) == []
    kept.close()


def test_new_pulls_are_taken_in_when_they_fill_a_chunk(tmp_path: Path) -> None:
    """The next look at the bounds does it, some minutes after they began."""
    kept = KeptHistory(tmp_path)
    kept.write(*(report(number_at(count / 100, count)) for count in range(CHUNK + 1)))
    with closing(open_for_reading(kept.path)) as connection:
        for seconds, end in ((61, 0), (400, kept.pulls()[0].number)):
            kept.clock.advance(seconds)
            kept.write()
            assert read_end(connection) == end
    kept.close()


def test_categories_are_deleted_with_their_last_pulls(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path, HistoryBounds(days=1000))
    kept.write(*(report(number_at(450 * DAY + count, count), last=NOW - 450 * DAY) for count in range(9)))
    with closing(open_for_writing(kept.path)) as connection:
        advance_rollup(connection, NOW, 8)
        categories = "SELECT count(*) FROM word WHERE kind >= ?"
        assert connection.execute(categories, (Word.NETWORK,)).fetchone() == (3,)
        prune(connection, HistoryBounds(), NOW + 61)
        assert connection.execute(categories, (Word.NETWORK,)).fetchone() == (0,)
        assert connection.execute("SELECT * FROM category").fetchall() == [(0, 0)]
    assert kept.reader.sums("client", PullFilter(client="10.0.0.0/24")) == []
    kept.close()


def test_hours_are_kept_for_a_day_and_some(tmp_path: Path) -> None:
    """The oldest ones are deleted when the rollup has newer pulls."""
    kept = KeptHistory(tmp_path)
    ages = [5 * DAY, 4 * DAY, 20 * HOUR, HOUR, HOUR]
    kept.write(*(report(number_at(age, count), last=NOW - age) for count, age in enumerate(ages)))
    with closing(open_for_writing(kept.path)) as connection:
        for _ in ages:
            advance_rollup(connection, NOW, 1)
        hours = "SELECT DISTINCT period FROM rollup WHERE seconds = ? ORDER BY 1"
        found = [period for (period,) in connection.execute(hours, (HOUR,))]
    assert found == [(NOW - age) // HOUR for age in ages[2:4]]
    kept.close()
