"""Pinned images kept up to date."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.app.pin_refresh import LOOK, PAUSE, PERIOD, PinRefresh
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
    """Long after the epoch."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


def refreshing(root: Path, clock: Clock, shelf: Shelf) -> PinRefresh:
    """Of a process that has begun to serve."""
    service = PinRefresh(root, clock, inline, lambda: shelf)
    service.startService()
    return service


def test_on_a_schedule(tmp_path: Path, clock: Clock) -> None:
    """What is pinned is fetched soon, not at once, and asked for again every few hours."""
    shelf = Shelf()
    pins.put(tmp_path, PIN)
    service = refreshing(tmp_path, clock, shelf)
    assert shelf.asked == []
    clock.advance(LOOK)
    assert shelf.fetched() == sorted(["amd", "base", "a"])
    assert list(pins.pins(tmp_path)) == [(PIN, EPOCH + LOOK)]
    asked = len(shelf.asked)
    clock.pump([LOOK] * int(PERIOD / LOOK - 1))
    assert len(shelf.asked) == asked
    clock.advance(LOOK)
    assert len(shelf.asked) > asked
    service.stopService()
    asked = len(shelf.asked)
    clock.advance(PERIOD)
    assert len(shelf.asked) == asked


def test_once_for_all(tmp_path: Path, clock: Clock) -> None:
    """However many processes share the store, and not by one while another is at it."""
    shelves = [Shelf(), Shelf()]
    pins.put(tmp_path, PIN)
    services = [refreshing(tmp_path, clock, shelf) for shelf in shelves]
    held = pins.lock_refresh(tmp_path)
    assert held is not None
    clock.advance(LOOK)
    assert [shelf.asked for shelf in shelves] == [[], []]

    os.close(held)
    clock.advance(LOOK)
    assert sorted(bool(shelf.asked) for shelf in shelves) == [False, True]
    for service in services:
        service.stopService()


def test_failures(tmp_path: Path, clock: Clock) -> None:
    """Are logged, keep nothing else from being refreshed, and are tried again after a while."""
    shelf = Shelf()
    gone = Pin(PLACE, Digest.of(b"gone"))
    pins.put(tmp_path, gone)
    pins.put(tmp_path, PIN)
    service = refreshing(tmp_path, clock, shelf)
    with logged() as lines:
        clock.advance(LOOK)
    assert any("cannot be refreshed" in line for line in lines)
    assert dict(pins.pins(tmp_path))[gone] == 0
    assert dict(pins.pins(tmp_path))[PIN] > 0
    shelf.asked.clear()
    clock.advance(PAUSE - LOOK)
    assert shelf.asked == []
    clock.advance(LOOK)
    assert [asked.rpartition("/")[2] for asked in shelf.asked] == [str(Digest.of(b"gone"))]
    service.stopService()
