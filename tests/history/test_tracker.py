"""Decisions about pulls: which pull a request joins, and what its requests make of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.history.tracker import (
    JOIN_SECONDS,
    REPEAT_SECONDS,
    AddressDetail,
    Member,
    PartState,
    began,
    find_pull,
    first_number,
    is_ignored,
    make_number,
    outcome_of,
    saves_pull,
    stored_client,
    summarize_parts,
)
from dockmirror.oci.header_fields import CacheResult
from dockmirror.oci.media import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from dockmirror.system.networks import Region

NOW = 1_800_000_000.0
TAG, INDEX, IMAGE, LAYER, OTHER = range(1, 6)
NAMES = {INDEX: {IMAGE}, IMAGE: {LAYER}, OTHER: {LAYER}}


def member(number: int, name: int, last: float) -> Member:
    return number, name, last, False


OLD = make_number(NOW - REPEAT_SECONDS - 1, 1, 1)
FIRST, SECOND = make_number(NOW - 5, 1, 2), make_number(NOW - 4, 1, 3)


@pytest.mark.parametrize(
    ("members", "name", "expected"),
    [
        ([], TAG, None),
        ([member(FIRST, TAG, NOW)], TAG, FIRST),
        ([member(FIRST, TAG, NOW)], LAYER, None),
        ([member(FIRST, INDEX, NOW)], IMAGE, FIRST),
        ([member(FIRST, INDEX, NOW)], LAYER, None),
        ([member(FIRST, INDEX, NOW), member(FIRST, IMAGE, NOW)], LAYER, FIRST),
        ([member(FIRST, IMAGE, NOW - JOIN_SECONDS)], LAYER, FIRST),
        ([member(FIRST, IMAGE, NOW - JOIN_SECONDS - 0.1)], LAYER, None),
        ([member(FIRST, IMAGE, NOW), member(SECOND, OTHER, NOW - 1)], LAYER, FIRST),
        ([member(FIRST, IMAGE, NOW - 1), member(SECOND, OTHER, NOW)], LAYER, SECOND),
        ([member(FIRST, IMAGE, NOW - 1), member(SECOND, INDEX, NOW)], IMAGE, FIRST),
        ([member(FIRST, TAG, NOW), member(SECOND, TAG, NOW)], TAG, SECOND),
        ([member(OLD, TAG, NOW)], TAG, None),
        ([member(OLD, IMAGE, NOW)], LAYER, OLD),
    ],
)
def test_the_pull_that_a_request_joins(members: list[Member], name: int, expected: int | None) -> None:
    found = find_pull(members, name, lambda manifest, name: name in NAMES.get(manifest, ()), NOW)
    assert (found and found[0]) == expected


def test_numbers_are_ordered_by_time_and_exact_in_json() -> None:
    numbers = [make_number(NOW + second, process, 70) for second in range(3) for process in (1, 64_001)]
    assert [began(each) for each in numbers] == [NOW + second for second in range(3) for _ in range(2)]
    assert sorted(numbers)[::2] == sorted(numbers[::2])
    assert all(first_number(began(each)) <= each < first_number(began(each) + 0.001) for each in numbers)
    assert max(numbers) < 2**53
    assert make_number(0.0, 64, 64) > 0


@pytest.mark.parametrize(
    ("result", "media_type", "expected"),
    [
        (CacheResult.HIT, OCI_MANIFEST, True),
        (CacheResult.CONFIRMED, OCI_MANIFEST, True),
        (CacheResult.STALE, OCI_MANIFEST, True),
        (CacheResult.JOINED, OCI_MANIFEST, True),
        (CacheResult.STORED, OCI_MANIFEST, False),
        (CacheResult.MISS, OCI_MANIFEST, False),
        (CacheResult.BYPASS, OCI_MANIFEST, False),
        (CacheResult.HIT, OCI_INDEX, False),
        (CacheResult.HIT, DOCKER_LIST, False),
    ],
)
def test_the_pulls_that_are_saved(result: CacheResult, media_type: str, expected: bool) -> None:
    assert saves_pull(result, media_type) == expected


@pytest.mark.parametrize(
    ("status", "reference", "expected"),
    [
        (401, "latest", True),
        (404, "latest", False),
        (404, f"sha256-{'0' * 64}.sig", True),
        (404, f"sha256-{'0' * 64}", True),
        (403, f"sha256-{'0' * 64}", False),
        (200, "latest", False),
    ],
)
def test_a_challenge_and_missing_signatures_are_no_pulls(status: int, reference: str, expected: bool) -> None:
    assert is_ignored(status, reference) == expected


@pytest.mark.parametrize(
    ("address", "detail", "expected"),
    [
        ("192.0.2.17", "full", "192.0.2.17"),
        ("192.0.2.17", "network", "192.0.2.0/24"),
        ("2001:db8:1:2::5", "network", "2001:db8:1::/48"),
        ("192.0.2.17", "none", ""),
        (None, "full", ""),
        ("198.51.100.7", "region", "eu"),
        ("192.0.2.17", "region", "public"),
        ("10.0.0.1", "region", "private"),
        (None, "region", ""),
    ],
)
def test_what_is_kept_of_an_address(address: str | None, detail: AddressDetail, expected: str) -> None:
    regions = (
        Region("eu", (ip_network("198.51.100.0/24"),)),
        Region("later", (ip_network("198.51.0.0/16"),)),
    )
    assert stored_client(ip_address(address) if address else None, detail, regions) == expected


@pytest.mark.parametrize(
    ("reason", "last", "expected"),
    [("", NOW, "running"), ("", NOW - 2.9, "running"), ("", NOW - 3.1, "served"), ("no", NOW, "failed")],
)
def test_outcomes(reason: str, last: float, expected: str) -> None:
    assert outcome_of(reason, last, NOW) == expected


def test_the_reason_of_a_pull_is_that_of_the_first_part_that_failed_for_good() -> None:
    parts = [
        PartState(3.0, is_layer=True, reason="later"),
        PartState(1.0, is_layer=True, reason="first").then(PartState(4.0, is_cached=True)),
        PartState(2.0, reason="second"),
    ]
    assert summarize_parts(parts) == (2, 1, "second")
    assert summarize_parts([]) == (0, 0, "")


states = st.builds(
    PartState, st.floats(0, 100), st.booleans(), st.booleans(), st.sampled_from(["", "broken", "lost"])
)


@given(st.lists(states, min_size=1, max_size=6, unique_by=lambda each: each.ended), st.randoms())
def test_the_order_of_reports_does_not_matter(reported: list[PartState], random: object) -> None:
    """The last request of a part counts, whichever process reports it first."""
    shuffled = sorted(reported, key=lambda _: random.random())  # type: ignore[attr-defined]
    merged = shuffled[0]
    for each in shuffled[1:]:
        merged = merged.then(each)
    last = max(reported, key=lambda each: each.ended)
    assert (merged.ended, merged.is_cached, merged.reason) == (last.ended, last.is_cached, last.reason)
    assert merged.is_layer == any(each.is_layer for each in reported)
