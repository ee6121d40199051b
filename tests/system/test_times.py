"""Schedules by an interval, and by cron; times from before a clock was set."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.system.times import (
    MAX_CRON_DELAY,
    ClockHistory,
    CronSchedule,
    Interval,
    Schedule,
    check_cron,
)

SCHEDULES: list[Schedule] = [
    Interval(3600.0, 0.5),
    CronSchedule("0 3 * * *", 0.1),
    CronSchedule("*/15 8-18 * * MON-FRI", 1.0),
]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_an_interval_is_added_to_the_end_of_a_run() -> None:
    assert Interval(60.0, 0.1).next_run(1000.0, 0.5) == 1063.0


def test_a_cron_expression_is_in_utc() -> None:
    schedule = CronSchedule("30 3 * * *")
    assert schedule.next_run(at("2026-11-30T03:29:59"), 0.0) == at("2026-11-30T03:30:00")
    assert schedule.next_run(at("2026-11-30T03:30:00"), 0.0) == at("2026-12-01T03:30:00")
    assert schedule.period(at("2026-11-30T03:29:59")) == at("2026-11-29T03:30:00")
    assert schedule.period(at("2026-11-30T03:30:00")) == at("2026-11-30T03:30:00")


def test_runs_by_cron_are_put_off_by_a_share_of_the_time_between_them() -> None:
    """By a quarter of an hour at most."""
    start = at("2026-11-30T12:01:00")
    assert CronSchedule("*/10 * * * *", 0.5).next_run(start, 0.5) == at("2026-11-30T12:12:30")
    daily = CronSchedule("0 3 * * *", 0.5).next_run(start, 1.0)
    assert daily == at("2026-12-01T03:00:00") + MAX_CRON_DELAY


@given(st.sampled_from(SCHEDULES), st.floats(0.0, 4e9), st.floats(0.0, 0.99))
def test_the_next_run_is_in_a_later_period(schedule: Schedule, time: float, drawn: float) -> None:
    following = schedule.next_run(time, drawn)
    assert following > time
    assert schedule.period(following) > schedule.period(time)


@pytest.mark.parametrize(
    "text", ["", "daily", "@daily", "* * * *", "60 * * * *", "0 0 30 2 *", "0 0 0 * * *", "0 3 * * MOO"]
)
def test_malformed_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected (a cron|the five)"):
        check_cron(text)


def test_an_expression_stays_as_it_was_written() -> None:
    assert check_cron("0 3 * * mon-fri") == "0 3 * * mon-fri"


@pytest.mark.parametrize(
    ("readings", "recorded", "corrected"),
    [
        ([], 900, 900),
        ([(2000, 1000)], 900, 900),
        ([(2030, 1000)], 900, 900),
        ([(5000, 1000)], 900, 3900),
        ([(5000, 1000)], 4500, 4500),
        ([(5000, 1000), (2100, 1100)], 900, 900),
        ([(5000, 1000), (2100, 1100)], 2050, 2050),
        ([(5000, 1000), (2100, 1100)], 4950, 4950),
        ([(5000, 1000), (9100, 1100)], 900, 7900),
        ([(5000, 1000), (9100, 1100)], 4500, 8500),
        ([(100, 1000), (3000, 1100)], 900, 900),
        ([(100, 1000), (3000, 1100)], 50, 2850),
        ([(5000, 20)], 900, 4880),
        ([(5000, 20), (1060, 60)], 900, 900),
    ],
)
def test_times_from_before_a_clock_was_set(
    readings: list[tuple[int, int]], recorded: int, corrected: int
) -> None:
    """The clock read 1000 when the machine had run for 0 seconds, or for 30 before it was rebooted."""
    is_rebooted = bool(readings) and readings[0][1] < 30
    history = ClockHistory(1000.0, 30.0 if is_rebooted else 0.0)
    for now, uptime in readings:
        known = history.advance(now, uptime)
        history = ClockHistory.parse(bytes(known)) or history
        assert history == known
    assert history.correct(recorded) == corrected


@pytest.mark.parametrize(
    "data", [b"", b"1", b"[1, 2]", b"[1, 2, [3]]", b"[1, 2, [[3, null]]]", b"{}", b"\xff"]
)
def test_a_malformed_history_is_none(data: bytes) -> None:
    assert ClockHistory.parse(data) is None
