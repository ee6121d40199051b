"""What each registry takes up."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred

from dockmirror.oci.reference import Repository
from dockmirror.status.values import Usage, Used
from dockmirror.store import files, layout
from dockmirror.store.usage import PERIOD, Stopped, Usages, measured
from tests.stacks import Outcome, logged

from .stocked import EPOCH, Stocked
from .threads import inline

T = TypeVar("T")
ELSEWHERE = Repository("ghcr.io/a/b")


def of(usage: Usage | None) -> tuple[Used, ...]:
    """What was measured."""
    assert usage is not None
    return usage.registries


def test_each_registry(tmp_path: Path) -> None:
    """Has what its repositories have, each content once; what others have as well is shared."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x" * 100)
    stocked.blob(b"x" * 100, repository=Repository("docker.io/library/another"))
    stocked.blob(b"y" * 10)
    stocked.blob(b"y" * 10, repository=ELSEWHERE)
    assert of(measured(tmp_path, 0.0)) == (Used("docker.io", 110, 10, 2), Used("ghcr.io", 10, 10, 1))
    assert of(measured(tmp_path / "nothing", 0.0)) == ()


def test_it_is_not_measured_for_each_who_asks(tmp_path: Path) -> None:
    """But when it is old; what another process has found out will do."""
    stocked = Stocked(tmp_path)
    one, other = (Usages(tmp_path, stocked.clock, inline) for _ in range(2))
    stocked.blob(b"x" * 100)
    assert of(one.latest()) == (Used("docker.io", 100, 0, 1),)
    stocked.blob(b"y" * 10)
    assert other.latest() == one.latest()
    stocked.clock.advance(PERIOD - 1)
    assert of(one.latest()) == (Used("docker.io", 100, 0, 1),)
    stocked.clock.advance(10)
    other.latest()
    assert of(other.latest()) == (Used("docker.io", 110, 0, 2),)


def test_a_clock_that_was_ahead(tmp_path: Path) -> None:
    """Has nothing measured later than without it."""
    stocked = Stocked(tmp_path)
    usages = Usages(tmp_path, stocked.clock, inline)
    usages.latest()
    stocked.blob(b"x" * 100)
    stocked.clock.rightNow = EPOCH - 24 * 3600
    usages.latest()
    assert of(usages.latest()) == (Used("docker.io", 100, 0, 1),)


def test_while_another_measures(tmp_path: Path) -> None:
    """What is known is told; a while later it is looked at what has come of it."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x")
    file = files.lock(tmp_path / layout.USAGE)
    assert file is not None
    usages = Usages(tmp_path, stocked.clock, inline)
    assert usages.latest() is None
    os.write(file, b"not written to its e")
    os.close(file)
    assert usages.latest() is None
    stocked.clock.advance(10)
    assert of(usages.latest()) == (Used("docker.io", 1, 0, 1),)


def test_after_a_restart(tmp_path: Path) -> None:
    """What was measured is known still; what is from a time to come is not believed."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x")
    before = Usages(tmp_path, stocked.clock, inline).latest()
    stocked.blob(b"y")
    assert Usages(tmp_path, stocked.clock, inline).latest() == before
    earlier = Stocked(tmp_path)
    earlier.clock.rightNow = EPOCH - 5
    assert of(Usages(tmp_path, earlier.clock, inline).latest()) == (Used("docker.io", 2, 0, 2),)


def test_a_disk_that_gives_nothing(tmp_path: Path) -> None:
    """Is told of in the log, and left alone for a while."""
    (tmp_path / layout.USAGE).mkdir(parents=True)
    clock = Stocked(tmp_path).clock
    usages = Usages(tmp_path, clock, inline)
    with logged() as texts:
        assert usages.latest() is None
        clock.advance(20)
        assert usages.latest() is None
    assert len([text for text in texts if "cannot be measured" in text]) == 1


def test_the_end(tmp_path: Path) -> None:
    """Is not waited for: the measuring is broken off, and nothing is measured any more."""
    stocked = Stocked(tmp_path)
    stocked.blob(b"x")
    waiting: list[Callable[[], None]] = []

    def later(call: Callable[[], T], /) -> Awaitable[T]:
        done: Deferred[T] = Deferred()

        def run() -> None:
            try:
                done.callback(call())
            except Stopped:
                done.errback()

        waiting.append(run)
        return done

    usages = Usages(tmp_path, stocked.clock, later)
    assert usages.latest() is None
    assert usages.latest() is None
    ended = Outcome(usages.stop())
    assert ended == []
    (run,) = waiting
    run()
    ended.get()
    stocked.clock.advance(PERIOD)
    assert usages.latest() is None
    assert len(waiting) == 1
