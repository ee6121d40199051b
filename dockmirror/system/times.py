"""Times in UTC: how they are written, schedules of what recurs, and corrections after a clock was set."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from attrs import frozen
from cronsim import CronSim, CronSimError

MAX_CRON_DELAY = 900.0
"""Seconds by which a random delay puts off the times of a cron expression, at most."""
_LEAST_STEP = 60.0
"""Seconds that a clock was set by if that is recorded."""
_MOST_STEPS = 100
"""Steps that are recorded, the last ones."""


def format_timestamp(seconds: float) -> str:
    """Write a time since 1970 with milliseconds, such as 2026-01-31T09:30:00.250+00:00."""
    whole, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_format_second(whole)}.{microseconds // 1000:03}+00:00"


def parse_timestamp(text: str) -> float:
    """Return a date or a time of ISO 8601 in seconds since 1970; it is in UTC unless it has an offset.

    :raises ValueError: when it is neither.
    """
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def parse_seconds(value: Any) -> float:
    """Return a time since 1970 that was stored.

    :raises ValueError: when it is no number, or one that ``format_timestamp`` cannot write.
    """
    try:
        format_timestamp(seconds := float(value))
    except (TypeError, OverflowError, OSError):
        raise ValueError(f"{value!r} is no time") from None
    return seconds


@lru_cache(maxsize=8)
def _format_second(seconds: int) -> str:
    """Write a time without a fraction; cached, because many lines of the log share a second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


class Schedule(Protocol):
    """Times of runs, each put off by a random part of the time from one run to the next."""

    @property
    def starts_at_once(self) -> bool:
        """True if a first run is due at once, before the first time of the schedule."""

    def period(self, now: float) -> int:
        """Return the number of the period that a time lies in; a later period has a higher one."""

    def next_run(self, now: float, drawn: float) -> float:
        """Return the time of the next run.

        :param drawn: a random number from 0 to 1.
        """


@frozen
class Interval:
    """A schedule of runs that begin so many seconds after the end of the one before.

    :ivar jitter: the largest share of the interval that is added to it.
    """

    starts_at_once: ClassVar[bool] = True
    every: float
    jitter: float = 0.0

    def period(self, now: float) -> int:
        return int(now // self.every)

    def next_run(self, now: float, drawn: float) -> float:
        return now + self.every * (1 + self.jitter * drawn)


@frozen
class CronSchedule:
    """A schedule of runs at the times of a cron expression with five fields.

    The times are in UTC: there no hour is skipped or repeated, and mirrors that share the work agree on the
    times wherever they are.

    :ivar jitter: the largest share of the time to the run after next by which a run is put off.
    """

    starts_at_once: ClassVar[bool] = False
    expression: str
    jitter: float = 0.0

    def period(self, now: float) -> int:
        after = _time(now) + timedelta(seconds=1)
        return int(next(CronSim(self.expression, after, reverse=True)).timestamp())

    def next_run(self, now: float, drawn: float) -> float:
        times = CronSim(self.expression, _time(now))
        due, following = (next(times).timestamp() for _ in range(2))
        return due + drawn * min(self.jitter * (following - due), MAX_CRON_DELAY)


def check_cron(expression: str) -> str:
    """Return a cron expression as it is.

    :raises ValueError: when it is malformed, or no time matches it.
    """
    try:
        next(CronSim(expression, _time(0.0)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f'expected a cron expression such as "0 3 * * *"{_explain(error)}') from None
    if len(expression.split()) != 5:
        raise ValueError("expected the five fields of cron: minute, hour, day, month and weekday")
    return expression


def _explain(error: Exception) -> str:
    return f": {error}" if isinstance(error, CronSimError) else ", which some time matches"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def read_uptime() -> float:
    """Return the seconds since the machine was booted, also those in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@frozen
class ClockHistory:
    """The steps by which the clock was set, as the uptime shows; with them, times from before are corrected.

    :ivar now: the last reading of the clock, in seconds since the epoch.
    :ivar uptime: that of the uptime, at the same moment.
    :ivar steps: the time before each step, and the seconds by which the clock was set then.
    """

    now: float
    uptime: float
    steps: tuple[tuple[float, float], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> ClockHistory | None:
        """Parse a stored history; None if it is malformed."""
        try:
            now, uptime, steps = json.loads(data)
            return cls(float(now), float(uptime), tuple((float(at), float(step)) for at, step in steps))
        except (ValueError, TypeError):
            return None

    def __bytes__(self) -> bytes:
        return json.dumps([self.now, self.uptime, self.steps]).encode()

    def advance(self, now: float, uptime: float) -> ClockHistory:
        """Return the history with another reading.

        The time in which the machine was off counts as a step: it may be the clock that is wrong.
        """
        expected = self.now + (uptime - self.uptime if uptime >= self.uptime else uptime)
        is_step = abs(now - expected) >= _LEAST_STEP
        steps = (*self.steps, (expected, now - expected))[-_MOST_STEPS:] if is_step else self.steps
        return ClockHistory(now, uptime, steps)

    def correct(self, recorded: float) -> float:
        """Return the time that the clock, as it is set now, would have had; never one before the given one.

        A clock that was set back has had some times twice; they count as the later ones.
        """
        corrected = recorded
        for before, step in self.steps:
            if corrected <= before and (step > 0 or corrected > recorded):
                corrected += step
        return max(recorded, corrected)
