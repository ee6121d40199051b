"""The sums that mirrors of a fleet tell each other."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dockmirror.history.fleet import (
    UP_SECONDS,
    UPLOAD_PERIOD,
    FleetDay,
    FleetMirror,
    FleetSums,
    claim_upload,
    confirm_upload,
    read_day,
)
from dockmirror.history.pulls import PullFilter

from .kept import NOW, KeptHistory, number_at, report

TODAY = int(NOW // 86_400)
A, B = FleetMirror("a", "1.0", NOW), FleetMirror("b", "1.1", NOW - 3600)


def uploaded(path: Path, day: int = TODAY, mirror: FleetMirror = A) -> FleetDay:
    """Return the sums that a mirror uploads of a day, as another mirror reads them."""
    parsed = FleetDay.parse(day, bytes(read_day(path, day, mirror)))
    assert parsed is not None
    return parsed


def test_the_sums_of_one_mirror_are_those_of_its_history(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path)
    kept.write(
        report(number_at(10), cached_bytes=300, saved_pulls=1, saved_requests=2),
        report(number_at(9), registry="ghcr.io", client="10.0.0.2", upstream_bytes=50, upstream_seconds=0.5),
        report(number_at(86_400), upstream_bytes=7, upstream_seconds=0.1, last=NOW - 86_400),
    )
    kept.close()
    fleet = FleetSums([uploaded(kept.path), uploaded(kept.path, TODAY - 1)])
    filter = PullFilter(since=NOW - 86_400)
    for by in ("hour", "day", "registry", "repository", "client"):
        assert fleet.sums(by, filter) == kept.reader.sums(by, filter), by
    assert [each.key for each in fleet.sums("mirror", filter)] == ["a"]
    assert sum(each.pulls for each in fleet.sums("day", PullFilter(since=NOW))) == 2


def test_the_sums_of_a_fleet_are_those_of_its_mirrors_together(tmp_path: Path) -> None:
    days = []
    for mirror, size in ((A, 5), (B, 7)):
        (tmp_path / mirror.name).mkdir()
        kept = KeptHistory(tmp_path / mirror.name)
        kept.write(report(number_at(10), cached_bytes=size), report(0, name=2, upstream_bytes=1))
        kept.close()
        days.append(uploaded(kept.path, mirror=mirror))
    fleet = FleetSums(days)
    everything = PullFilter()
    assert [(each.key, each.cached_bytes) for each in fleet.sums("mirror", everything)] == [
        ("b", 7),
        ("a", 5),
    ]
    (total,) = fleet.sums("registry", everything)
    assert (total.key, total.pulls, total.cached_bytes, total.upstream_bytes) == ("docker.io", 2, 12, 2)
    assert [len(fleet.sums("mirror", everything, limit)) for limit in (1, 2)] == [1, 2]
    assert fleet.mirrors() == [A, B]
    assert (A.is_up(NOW + UP_SECONDS - 1), A.is_up(NOW + UP_SECONDS)) == (True, False)


def test_a_mirror_whose_history_began_anew_is_one_mirror(tmp_path: Path) -> None:
    """A mirror without a lasting directory has another history after each start."""
    kept = KeptHistory(tmp_path)
    kept.write(report(number_at(10), cached_bytes=5))
    kept.close()
    before, after = uploaded(kept.path, mirror=evolve(A, version="0.9", seen=NOW - 9)), uploaded(kept.path)
    fleet = FleetSums([after, before])
    assert fleet.mirrors() == [A]
    assert [(each.key, each.cached_bytes) for each in fleet.sums("mirror", PullFilter())] == [("a", 10)]


def test_only_changed_days_are_uploaded(tmp_path: Path) -> None:
    """At first all, then those since the day before the last success; one without pulls uploads today."""
    kept = KeptHistory(tmp_path)
    assert claim_upload(kept.path, NOW) is None
    kept.write(report(number_at(40 * 86_400), last=NOW - 40 * 86_400))
    first = claim_upload(kept.path, NOW)
    assert first is not None
    assert (first.is_first, first.days) == (True, [TODAY - 40, TODAY])
    assert claim_upload(kept.path, NOW + UPLOAD_PERIOD - 1) is None
    second = claim_upload(kept.path, NOW + UPLOAD_PERIOD)
    assert second == first  # the first one did not succeed
    confirm_upload(kept.path, NOW + UPLOAD_PERIOD)
    third = claim_upload(kept.path, NOW + 2 * UPLOAD_PERIOD)
    assert third is not None
    assert (third.is_first, third.days) == (False, [TODAY])
    kept.write(report(number_at(86_400, 2), last=NOW - 86_400))
    fourth = claim_upload(kept.path, NOW + 3 * UPLOAD_PERIOD)
    assert fourth is not None
    assert (fourth.days, fourth.history) == ([TODAY - 1, TODAY], first.history)
    kept.close()


def test_many_clients_are_uploaded_as_one(tmp_path: Path) -> None:
    """The object stays small, and the sums are exact."""
    kept = KeptHistory(tmp_path)
    kept.write(
        *(
            report(
                number_at(10 + count / 100),
                client=f"10.0.{count // 200}.{count % 200}",
                cached_bytes=1 + count,
            )
            for count in range(1200)
        )
    )
    kept.close()
    day = uploaded(kept.path)
    assert len(bytes(day)) < 64 * 1024
    sums = FleetSums([day]).sums("client", PullFilter(), 10_000)
    assert len(sums) == 1001
    assert sum(each.cached_bytes for each in sums) == sum(range(1, 1201))
    assert [each.cached_bytes for each in sums if each.key == "(others)"] == [sum(range(1, 201))]


def encoded(**fields: Any) -> bytes:
    rows: dict[str, Any] = {name: [] for name in ("hour", "registry", "repository", "client")}
    whole = {"mirror": "a", "version": "1", "seen": 1, "rows": rows, **fields}
    return zlib.compress(json.dumps(whole).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no object",
        zlib.compress(b"[]"),
        zlib.compress(b"{}"),
        encoded(rows={}),
        encoded(seen="yesterday"),
        encoded(rows={name: [["x", 1]] for name in ("hour", "registry", "repository", "client")}),
        encoded(rows={name: [["x", *"12345678"]] for name in ("hour", "registry", "repository", "client")}),
        encoded(rows={name: [["x", *range(8)]] for name in ("hour", "registry", "repository", "client")}),
        encoded(rows={name: [[1, *range(8)]] for name in ("hour", "registry", "repository", "client")}),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b" " * 20_000_000),
    ],
)
def test_a_malformed_object_is_left_out(data: bytes) -> None:
    assert FleetDay.parse(TODAY, encoded()) is not None
    assert FleetDay.parse(TODAY, data) is None
