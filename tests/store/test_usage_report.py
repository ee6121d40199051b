"""The space that each registry takes."""

from __future__ import annotations

import json
import os
import shutil

from attrs import asdict

from dockmirror.interfaces import ContentKind
from dockmirror.oci.request import Repository
from dockmirror.status import RegistryUsage
from dockmirror.store import files, layout
from dockmirror.store.store_index import (
    COST_FACTOR,
    MAX_WAIT,
    MIN_INTERVAL,
    StoreIndex,
    UsageReport,
    measure_usage,
)

from ..answering import now, watch
from ..stacks import Outcome, logged
from .downloads.upstream import full
from .stocked import EPOCH, HERE, Stocked
from .threads import HeldThreads, inline

ELSEWHERE = Repository("ghcr.io/a/b")


def latest(usages: UsageReport) -> tuple[RegistryUsage, ...]:
    usage = now(usages.latest())
    assert usage is not None
    return usage.registries


def test_each_registry(store: Stocked) -> None:
    """A registry's contents are counted once each; those of several registries are shared.

    The total counts everything once, with partial downloads, documents and unreferenced contents.
    """
    shared = store.blob(b"x" * 100)
    store.blob(b"x" * 100, repository=Repository("docker.io/library/another"))
    store.blob(b"x" * 100, repository=ELSEWHERE)
    store.blob(b"y" * 10)
    now(store.contents.unlink(HERE, store.blob(b"z" * 5), ContentKind.BLOB))
    now(store.documents.write("a list", b"z" * 3))
    part = store.root / layout.growing("docker.io", shared)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 7)
    usage = measure_usage(StoreIndex(store.root), 0.0)
    assert usage.registries == (
        RegistryUsage("docker.io", 110, 100, 2),
        RegistryUsage("ghcr.io", 100, 100, 1),
    )
    assert usage.held == 125
    nothing = measure_usage(StoreIndex(store.root / "nothing"), 0.0)
    assert (nothing.registries, nothing.held) == ((), 0)


def test_the_space_that_is_left_on_the_disk(store: Stocked) -> None:
    usage = now(UsageReport(store.root, store.clock, inline).latest())
    assert usage is not None
    assert 0 < usage.free <= shutil.disk_usage(store.root).total


def test_fresh_measurement_is_reused(store: Stocked) -> None:
    """Only an old usage is measured again; a fresh one of another process is used, if not from the future."""
    one, other = (UsageReport(store.root, store.clock, inline) for _ in range(2))
    store.blob(b"x" * 100)
    assert latest(one) == (RegistryUsage("docker.io", 100, 0, 1),)
    store.blob(b"y" * 10)
    assert latest(other) == latest(one) == (RegistryUsage("docker.io", 100, 0, 1),)
    store.clock.advance(MIN_INTERVAL)
    assert latest(other) == (RegistryUsage("docker.io", 110, 0, 2),)
    store.blob(b"z")
    store.clock.rightNow = EPOCH - 5
    assert latest(UsageReport(store.root, store.clock, inline)) == (RegistryUsage("docker.io", 111, 0, 3),)


def test_slow_measurement(store: Stocked) -> None:
    """A slow measurement is made less often, and callers wait only a little."""
    store.blob(b"x" * 100)
    took = {**asdict(measure_usage(StoreIndex(store.root), EPOCH)), "took": 10.0}
    (store.root / layout.USAGE_REPORT).write_text(json.dumps(took))
    store.blob(b"y" * 10)
    store.clock.advance(COST_FACTOR * 10 - 1)
    threads = HeldThreads()
    usages = UsageReport(store.root, store.clock, threads)
    first = Outcome(usages.latest())
    threads.run()
    before = first.get()
    assert before is not None
    assert before.registries == (RegistryUsage("docker.io", 100, 0, 1),)
    store.clock.advance(MIN_INTERVAL)
    second, third = watch(usages.latest()), watch(usages.latest())
    assert threads.held == 1
    store.clock.advance(MAX_WAIT)
    assert second == third == [before]
    threads.run()
    assert latest(usages) == (RegistryUsage("docker.io", 110, 0, 2),)


def test_while_another_measures(store: Stocked) -> None:
    """While another process measures, the previous usage is returned; later its result is."""
    store.blob(b"x")
    file = files.lock(store.root / layout.USAGE_REPORT)
    assert file is not None
    usages = UsageReport(store.root, store.clock, inline)
    assert now(usages.latest()) is None
    os.write(file, b"not written to its e")
    os.close(file)
    assert now(usages.latest()) is None
    store.clock.advance(MIN_INTERVAL)
    assert latest(usages) == (RegistryUsage("docker.io", 1, 0, 1),)


def test_failing_disk(store: Stocked) -> None:
    """A failure is logged, and nothing is measured for a while."""
    (store.root / layout.USAGE_REPORT).mkdir()
    clock = store.clock
    usages = UsageReport(store.root, clock, inline)
    with logged() as texts:
        assert now(usages.latest()) is None
        clock.advance(20)
        assert now(usages.latest()) is None
    assert len([text for text in texts if "cannot measure the space" in text]) == 1


def test_full_disk(store: Stocked) -> None:
    """Usage that cannot be stored is shown all the same, and nothing is logged."""
    store.blob(b"x")
    usages = UsageReport(store.root, store.clock, inline)
    with logged() as texts, full(0):
        assert latest(usages) == (RegistryUsage("docker.io", 1, 0, 1),)
    assert texts == []


def test_stop(store: Stocked) -> None:
    """Stopping ends a measurement, and nothing is measured any more."""
    store.blob(b"x")
    usages = UsageReport(store.root, store.clock, threads := HeldThreads())
    latest = watch(usages.latest()), watch(usages.latest())
    stopped = Outcome(usages.stop())
    assert stopped == []
    threads.run()
    stopped.get()
    assert latest == ([None], [None])
    store.clock.advance(MIN_INTERVAL)
    assert now(usages.latest()) is None
    assert threads.held == 0
