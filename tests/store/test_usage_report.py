"""The space that each registry takes."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from attrs import asdict
from twisted.internet.defer import Deferred

from dockmirror.interfaces import ContentKind
from dockmirror.oci.reference import Repository
from dockmirror.status.status_values import RegistryUsage, Usage
from dockmirror.store import files, layout
from dockmirror.store.usage_report import (
    COST_FACTOR,
    MAX_WAIT,
    MIN_INTERVAL,
    MeasurementStopped,
    UsageReport,
    measure_usage,
)
from tests.answering import now, watch
from tests.stacks import Outcome, logged

from .contract import HERE
from .stocked import EPOCH, Stocked
from .threads import HeldThreads, inline

T = TypeVar("T")
ELSEWHERE = Repository("ghcr.io/a/b")


def latest(usages: UsageReport) -> tuple[RegistryUsage, ...]:
    """Return the current usage by registry."""
    return by_registry(now(usages.latest()))


def by_registry(usage: Usage | None) -> tuple[RegistryUsage, ...]:
    """Return the usage by registry."""
    assert usage is not None
    return usage.registries


def test_each_registry(tmp_path: Path) -> None:
    """A registry's contents are counted once each; those of several registries are shared."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x" * 100)
    stocked.blob(b"x" * 100, repository=Repository("docker.io/library/another"))
    stocked.blob(b"y" * 10)
    stocked.blob(b"y" * 10, repository=ELSEWHERE)
    assert by_registry(measure_usage(tmp_path, 0.0)) == (
        RegistryUsage("docker.io", 110, 10, 2),
        RegistryUsage("ghcr.io", 10, 10, 1),
    )
    assert by_registry(measure_usage(tmp_path / "nothing", 0.0)) == ()


def test_total(tmp_path: Path) -> None:
    """The total counts everything once, with partial downloads, documents and unreferenced contents."""
    stocked = Stocked(tmp_path)
    shared = stocked.blob(b"x" * 100)
    stocked.blob(b"x" * 100, repository=ELSEWHERE)
    alone = stocked.blob(b"y" * 10)
    (tmp_path / layout.link(HERE, alone, ContentKind.BLOB)).unlink()
    now(stocked.documents.write("a list", b"z" * 3))
    part = tmp_path / layout.growing("docker.io", shared)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 7)
    assert measure_usage(tmp_path, 0.0).held == 120
    assert measure_usage(tmp_path / "nothing", 0.0).held == 0


def test_changes(tmp_path: Path) -> None:
    """The usage follows changes, and an empty registry is not listed."""
    stocked = Stocked(tmp_path)
    usages = UsageReport(tmp_path, stocked.clock, inline)
    here, elsewhere = stocked.blob(b"x" * 100), stocked.blob(b"y" * 10, repository=ELSEWHERE)
    assert latest(usages) == (RegistryUsage("docker.io", 100, 0, 1), RegistryUsage("ghcr.io", 10, 0, 1))
    (tmp_path / layout.data(here)).unlink()
    stocked.clock.advance(MIN_INTERVAL)
    assert latest(usages) == (RegistryUsage("ghcr.io", 10, 0, 1),)
    (tmp_path / layout.data(elsewhere)).unlink()
    stocked.clock.advance(MIN_INTERVAL)
    assert latest(usages) == ()
    stocked.blob(b"x" * 100)
    stocked.clock.advance(MIN_INTERVAL)
    assert latest(usages) == (RegistryUsage("docker.io", 100, 0, 1),)


def test_fresh_measurement_is_reused(tmp_path: Path) -> None:
    """Only an old usage is measured again; a fresh one of another process is used."""
    stocked = Stocked(tmp_path)
    one, other = (UsageReport(tmp_path, stocked.clock, inline) for _ in range(2))
    stocked.blob(b"x" * 100)
    assert latest(one) == (RegistryUsage("docker.io", 100, 0, 1),)
    stocked.blob(b"y" * 10)
    assert latest(other) == latest(one) == (RegistryUsage("docker.io", 100, 0, 1),)
    stocked.clock.advance(MIN_INTERVAL)
    assert latest(other) == (RegistryUsage("docker.io", 110, 0, 2),)


def test_slow_measurement(tmp_path: Path) -> None:
    """A slow measurement is made less often, and callers wait only a little."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x" * 100)
    took = {**asdict(measure_usage(tmp_path, EPOCH)), "took": 10.0}
    (tmp_path / layout.USAGE_REPORT).write_text(json.dumps(took))
    stocked.blob(b"y" * 10)
    stocked.clock.advance(COST_FACTOR * 10 - 1)
    threads = HeldThreads()
    usages = UsageReport(tmp_path, stocked.clock, threads)
    first = Outcome(usages.latest())
    threads.run()
    before = first.get()
    assert by_registry(before) == (RegistryUsage("docker.io", 100, 0, 1),)
    stocked.clock.advance(MIN_INTERVAL)
    second, third = watch(usages.latest()), watch(usages.latest())
    assert threads.held == 1
    stocked.clock.advance(MAX_WAIT)
    assert second == third == [before]
    threads.run()
    assert by_registry(now(usages.latest())) == (RegistryUsage("docker.io", 110, 0, 2),)


def test_clock_set_back(tmp_path: Path) -> None:
    """A clock that is set back does not delay the next measurement."""
    stocked = Stocked(tmp_path)
    usages = UsageReport(tmp_path, stocked.clock, inline)
    now(usages.latest())
    stocked.blob(b"x" * 100)
    stocked.clock.rightNow = EPOCH - 24 * 3600
    assert latest(usages) == (RegistryUsage("docker.io", 100, 0, 1),)


def test_while_another_measures(tmp_path: Path) -> None:
    """While another process measures, the previous usage is returned; later its result is."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x")
    file = files.lock(tmp_path / layout.USAGE_REPORT)
    assert file is not None
    usages = UsageReport(tmp_path, stocked.clock, inline)
    assert now(usages.latest()) is None
    os.write(file, b"not written to its e")
    os.close(file)
    assert now(usages.latest()) is None
    stocked.clock.advance(MIN_INTERVAL)
    assert latest(usages) == (RegistryUsage("docker.io", 1, 0, 1),)


def test_after_a_restart(tmp_path: Path) -> None:
    """A usage survives a restart; one from the future is not used."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x")
    before = now(UsageReport(tmp_path, stocked.clock, inline).latest())
    stocked.blob(b"y")
    assert now(UsageReport(tmp_path, stocked.clock, inline).latest()) == before
    earlier = Stocked(tmp_path)
    earlier.clock.rightNow = EPOCH - 5
    assert latest(UsageReport(tmp_path, earlier.clock, inline)) == (RegistryUsage("docker.io", 2, 0, 2),)


def test_failing_disk(tmp_path: Path) -> None:
    """A failure is logged, and nothing is measured for a while."""
    (tmp_path / layout.USAGE_REPORT).mkdir(parents=True)
    clock = Stocked(tmp_path).clock
    usages = UsageReport(tmp_path, clock, inline)
    with logged() as texts:
        assert now(usages.latest()) is None
        clock.advance(20)
        assert now(usages.latest()) is None
    assert len([text for text in texts if "cannot measure the space" in text]) == 1


def test_stop(tmp_path: Path) -> None:
    """Stopping ends a measurement, and nothing is measured any more."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x")
    waiting: list[Callable[[], None]] = []

    def later(call: Callable[[], T], /) -> Awaitable[T]:
        done: Deferred[T] = Deferred()

        def run() -> None:
            try:
                done.callback(call())
            except MeasurementStopped:
                done.errback()

        waiting.append(run)
        return done

    usages = UsageReport(tmp_path, stocked.clock, later)
    asked = watch(usages.latest()), watch(usages.latest())
    ended = Outcome(usages.stop())
    assert ended == []
    (run,) = waiting
    run()
    ended.get()
    assert asked == ([None], [None])
    stocked.clock.advance(MIN_INTERVAL)
    assert now(usages.latest()) is None
    assert len(waiting) == 1
