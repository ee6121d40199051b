"""The refresh of pinned images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.app.cache import REFRESH_PERIOD, REFRESH_POLL, REFRESH_RETRY, PinRefresh
from dockmirror.oci.digest import Digest
from dockmirror.store import pins
from dockmirror.store.pins import Pin

from ..shelf import AMD, LATEST, PLACE, Shelf
from ..stacks import logged
from ..store.threads import inline

EPOCH = 1_700_000_000.0
PIN = Pin(PLACE, LATEST, (AMD,))


@pytest.fixture
def clock() -> Clock:
    """A clock that stands long after the epoch."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


def start_refresh(root: Path, clock: Clock, shelf: Shelf) -> PinRefresh:
    """Start the refresh of a process that serves."""
    service = PinRefresh(root, clock, inline, lambda: shelf)
    service.startService()
    return service


def test_pinned_images_are_pulled_on_a_schedule(tmp_path: Path, clock: Clock) -> None:
    """A new pin is pulled soon, but not at once, and again every few hours."""
    shelf = Shelf()
    pins.add_pin(tmp_path, PIN)
    service = start_refresh(tmp_path, clock, shelf)
    assert shelf.asked == []
    clock.advance(REFRESH_POLL)
    assert shelf.fetched() == sorted(["amd", "base", "a"])
    assert list(pins.iter_pins(tmp_path)) == [(PIN, EPOCH + REFRESH_POLL)]
    asked = len(shelf.asked)
    clock.pump([REFRESH_POLL] * int(REFRESH_PERIOD / REFRESH_POLL - 1))
    assert len(shelf.asked) == asked
    clock.advance(REFRESH_POLL)
    assert len(shelf.asked) > asked
    service.stopService()
    asked = len(shelf.asked)
    clock.advance(REFRESH_PERIOD)
    assert len(shelf.asked) == asked


def test_one_of_the_processes_refreshes_a_pin(tmp_path: Path, clock: Clock) -> None:
    shelves = [Shelf(), Shelf()]
    pins.add_pin(tmp_path, PIN)
    services = [start_refresh(tmp_path, clock, shelf) for shelf in shelves]
    held = pins.lock_refresh(tmp_path)
    assert held is not None
    clock.advance(REFRESH_POLL)
    assert [shelf.asked for shelf in shelves] == [[], []]

    os.close(held)
    clock.advance(REFRESH_POLL)
    assert sorted(bool(shelf.asked) for shelf in shelves) == [False, True]
    for service in services:
        service.stopService()


def test_a_failed_refresh_is_logged_and_tried_again_later(tmp_path: Path, clock: Clock) -> None:
    """Other pins are refreshed nevertheless."""
    shelf = Shelf()
    gone = Pin(PLACE, Digest.of(b"gone"))
    pins.add_pin(tmp_path, gone)
    pins.add_pin(tmp_path, PIN)
    service = start_refresh(tmp_path, clock, shelf)
    with logged() as lines:
        clock.advance(REFRESH_POLL)
    assert any("cannot refresh" in line for line in lines)
    assert dict(pins.iter_pins(tmp_path))[gone] == 0
    assert dict(pins.iter_pins(tmp_path))[PIN] > 0
    shelf.asked.clear()
    clock.advance(REFRESH_RETRY - REFRESH_POLL)
    assert shelf.asked == []
    clock.advance(REFRESH_POLL)
    assert [asked.rpartition("/")[2] for asked in shelf.asked] == [str(Digest.of(b"gone"))]
    service.stopService()
