"""What clients have had."""

from __future__ import annotations

import os
from ipaddress import ip_network
from mmap import mmap

import pytest

from dockmirror.web.rate_counters import SIZE, RateCounters, WindowCount

ONE, OTHER = ip_network("192.0.2.1"), ip_network("2001:db8::/64")


@pytest.fixture
def ledger() -> RateCounters:
    """Empty."""
    return RateCounters(memoryview(mmap(-1, SIZE)))


def test_a_window(ledger: RateCounters) -> None:
    """Begins with what is added first, and is over after its seconds; another network has its own."""
    ledger.add(ONE, 100.0, 60, requests=1)
    ledger.add(ONE, 130.0, 60, requests=1, bytes=5)
    assert ledger.spent(ONE, 159.0, 60) == WindowCount(100.0, 2, 5)
    assert ledger.spent(OTHER, 159.0, 60) == WindowCount(159.0, 0, 0)
    assert ledger.spent(ONE, 160.0, 60) == WindowCount(160.0, 0, 0)
    ledger.add(ONE, 161.0, 60, bytes=2**40)
    assert ledger.spent(ONE, 170.0, 60) == WindowCount(161.0, 0, 2**40)


def test_a_clock_that_was_ahead(ledger: RateCounters) -> None:
    """Makes no window last."""
    ledger.add(ONE, 10_000.0, 60, requests=1)
    assert ledger.spent(ONE, 100.0, 60) == WindowCount(100.0, 0, 0)


def test_processes_share_it() -> None:
    """What one of them adds, the other knows."""
    descriptor = os.memfd_create("ledger")
    os.ftruncate(descriptor, SIZE)
    ours, theirs = (RateCounters(memoryview(mmap(descriptor, SIZE))) for _ in range(2))
    ours.add(ONE, 1.0, 60, requests=1)
    theirs.add(ONE, 2.0, 60, requests=1)
    assert ours.spent(ONE, 3.0, 60) == theirs.spent(ONE, 3.0, 60) == WindowCount(1.0, 2, 0)
    os.close(descriptor)


def test_there_is_no_end_of_networks() -> None:
    """Of those that pick the same slots, the one goes whose window began first."""
    few = RateCounters(memoryview(mmap(-1, 8 * 32)))
    networks = [ip_network(f"10.0.0.{number}") for number in range(10)]
    for number, network in enumerate(networks):
        few.add(network, float(number), 600, requests=1)
    had = [few.spent(network, 20.0, 600).requests for network in networks]
    assert had == [0, 0, *[1] * 8]
