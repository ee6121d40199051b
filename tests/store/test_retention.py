"""Rules for how long images are kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.app.cache_settings import make_retention
from dockmirror.config.load import load
from dockmirror.oci.digest import Digest
from dockmirror.oci.pull_rule import PullRule
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout, pins, store_files
from dockmirror.store.eviction.eviction import Sweep
from dockmirror.store.eviction.retention import (
    INTERVAL,
    ExpiredImage,
    RetainedImage,
    Retention,
    RetentionRule,
    plan_retention,
)
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.store.pins import Pin
from dockmirror.system.times import ClockHistory

from ..archive.packing import manifest
from ..cli.shop import AMD, BASE, CONFIG, LAYER, NGINX, OTHER, USED, Shop, stocked
from ..stacks import logged

DAY = 86_400.0
NOW = 1_800_000_000.0
A, B = Repository("ghcr.io/team/a"), Repository("ghcr.io/team/b")
BUDGET = Budget(10**12)
SHARED = Digest.of(b"shared")


def image(tag: str, days: float, size: int = 10, place: Repository = A) -> RetainedImage:
    """Return an image that was pulled so many days ago, of a layer of its own and a shared one."""
    digest = Digest.of(f"{place}:{tag}".encode())
    return RetainedImage(place, Tag(tag), digest, NOW - days * DAY, {digest: size, SHARED: 100})


def rule(pattern: str = "**", **limits: Any) -> RetentionRule:
    return RetentionRule("retention rule 1", PullRule.parse(pattern), **limits)


def gone(images: Sequence[RetainedImage], *rules: RetentionRule) -> list[str]:
    return [str(each.image.tag) for each in plan_retention(images, rules, NOW)]


IMAGES = [image("new", 1), image("older", 20), image("old", 40), image("oldest", 60)]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, []),
        ({"unused": 30 * DAY}, ["oldest", "old"]),
        ({"tags": 1}, ["oldest", "old", "older"]),
        ({"tags": 9}, []),
        ({"unused": 50 * DAY, "tags": 2}, ["oldest", "old"]),
        ({"quota": 140}, []),
        ({"quota": 139}, ["oldest"]),
        ({"quota": 110}, ["oldest", "old", "older"]),
        ({"quota": 109}, ["oldest", "old", "older", "new"]),
        ({"repository_quota": 120}, ["oldest", "old"]),
    ],
)
def test_limits(limits: dict[str, Any], expected: list[str]) -> None:
    """Contents that images share count once."""
    assert gone(IMAGES, rule(**limits)) == expected


def test_quotas_are_of_each_repository_or_of_all_together() -> None:
    images = [*IMAGES, image("b", 50, place=B)]
    assert gone(images, rule(repository_quota=130)) == ["oldest"]
    assert gone(images, rule(quota=130)) == ["oldest", "b"]


def test_the_first_rule_that_matches_holds() -> None:
    """A rule without limits keeps its images."""
    rules = (rule("ghcr.io/team/a:old*"), rule("ghcr.io/**", unused=DAY / 2), rule("**", tags=1))
    assert gone([*IMAGES, image("b", 50, place=B)], *rules) == ["b", "new"]
    assert gone(IMAGES, rule("docker.io/**", tags=1)) == []


def test_needed_images_and_those_in_use_stay() -> None:
    """The others go in their place only if they have to themselves."""
    needed = [evolve(each, is_needed=each.tag == Tag("oldest")) for each in IMAGES]
    assert gone(needed, rule(unused=30 * DAY)) == ["old"]
    assert gone(needed, rule(tags=1)) == ["old", "older"]
    assert gone(needed, rule(quota=100)) == ["old", "older", "new"]
    assert gone([image("now", 0.0001)], rule(quota=0, tags=1)) == []


def test_a_reason_names_the_rule() -> None:
    (expired,) = plan_retention([image("old", 40)], [rule(unused=DAY)], NOW)
    assert expired.fields() == {
        "image": "ghcr.io/team/a:old",
        "reason": "retention rule 1, unused: not pulled for 40 days",
    }


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50), st.booleans()), max_size=12),
    st.integers(0, 400),
)
def test_a_quota_is_met_unless_needed_images_exceed_it(
    drawn: list[tuple[int, int, bool]], quota: int
) -> None:
    """And nothing more goes than has to."""
    images = [
        evolve(image(f"t{number}", days + 1, size), is_needed=needed)
        for number, (days, size, needed) in enumerate(drawn)
    ]
    expired = [each.image for each in plan_retention(images, [rule(quota=quota)], NOW)]
    assert not any(each.is_needed for each in expired)

    def total(kept: Sequence[RetainedImage]) -> int:
        return sum({digest: size for each in kept for digest, size in each.sizes.items()}.values())

    left = [each for each in images if each not in expired]
    assert total(left) <= quota or all(each.is_needed for each in left)
    if expired:
        assert total([*left, expired[-1]]) > quota


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return stocked(tmp_path / "cache")


def collect(shop: Shop, **limits: Any) -> list[str]:
    """Apply a rule, and return the images that it has deleted."""
    result = Sweep(shop.root, BUDGET, Retention([rule(**limits)])).collect(USED + 40 * DAY)
    assert result is not None
    return [str(each.image) for each in result.expired]


def tags(shop: Shop) -> list[tuple[str, str | None]]:
    return [(each["repository"], each["tag"]) for each in shop.json("ls")]


def test_expired_images_are_deleted_from_the_store(shop: Shop) -> None:
    """With what nothing else needs; the bytes are counted."""
    shop.image(NGINX, "young", manifest(CONFIG, b"young"), b"young")
    os.utime(shop.path(Digest.of(manifest(CONFIG, b"young"))), (USED + 30 * DAY,) * 2)
    expired = collect(shop, unused=20 * DAY)
    assert set(expired) == {
        f"{NGINX}:latest", f"{NGINX}:1.27", f"{OTHER}@{Digest.of(manifest(CONFIG, BASE))}"
    }  # fmt: skip
    assert tags(shop) == [(str(NGINX), "young")]
    assert not shop.path(Digest.of(LAYER)).exists()
    assert shop.path(Digest.of(CONFIG)).exists()


def test_pinned_and_held_images_stay(shop: Shop) -> None:
    """By any of their tags; and so do their signatures, which no rule deletes."""
    tag = f"sha256-{Digest.of(AMD).hex}.sig"
    shop.image(NGINX, tag, manifest(b"{}", b"signature"), b"{}", b"signature")
    pins.add_pin(shop.root, Pin(NGINX, Tag("1.27")))
    held = Digest.of(manifest(CONFIG, BASE))
    pins.hold_tag(shop.root, OTHER, Tag("1"), held, USED + 39 * DAY)
    assert collect(shop, unused=DAY) == []
    pins.remove_pin(shop.root, Pin(NGINX, Tag("1.27")))
    assert set(collect(shop, unused=DAY)) == {f"{NGINX}:latest", f"{NGINX}:1.27"}
    assert (str(NGINX), tag) in tags(shop)
    assert collect(shop, unused=DAY) == [f"{NGINX}:{tag}"]  # now that its image is gone


def test_the_background_sweep_applies_the_rules_every_hour(shop: Shop) -> None:
    """Before it evicts anything; without rules it scans once a day."""
    now = USED + 40 * DAY
    for retention, expected in ((Retention(), None), (Retention([rule(tags=1)]), ["1.27"])):
        Sweep(shop.root, BUDGET).run(0, now)
        result = Sweep(shop.root, BUDGET, retention).run(0, now + INTERVAL)
        assert result is not None
        found = None if result.evicted is None else [str(each.image.tag) for each in result.expired]
        assert found == expected


class Machine:
    """A machine whose clock can be set, with a mirror that deletes what was not pulled for 30 days."""

    def __init__(self, shop: Shop) -> None:
        self._sweep = Sweep(shop.root, BUDGET, Retention([rule(unused=30 * DAY)]), lambda: self.uptime)
        self.shop, self.clock, self.uptime = shop, USED, 10.0

    def sweep(self, step: float = 0.0, passed: float = 10.0) -> bool:
        """Set the clock forward, and sweep a while later; return whether images are left."""
        self.clock, self.uptime = self.clock + passed + step, self.uptime + passed
        assert self._sweep.run(0, self.clock) is not None
        return bool(tags(self.shop))

    def reboot(self) -> None:
        self.uptime = 0.0


def test_a_clock_that_is_ahead_for_a_while_deletes_nothing(shop: Shop) -> None:
    """Nor does it later, and the rule deletes in time, once the clock is right again."""
    machine = Machine(shop)
    with logged() as lines:
        for step in (0.0, 31 * DAY, -31 * DAY, 0.0):
            assert machine.sweep(step)
        assert machine.sweep(passed=29 * DAY)
        assert not machine.sweep(passed=DAY)
    (line,) = [each for each in lines if "the clock was set forward by" in each]
    assert "31 days, 0:00:00" in line


def test_images_that_were_pulled_before_the_clock_was_set_right_stay(shop: Shop) -> None:
    """A machine without a battery begins in the past; the time that it runs from then on counts."""
    machine = Machine(shop)
    assert machine.sweep()
    assert machine.sweep(56 * 365 * DAY)
    assert machine.sweep(passed=29 * DAY)
    assert not machine.sweep(passed=2 * DAY)


def test_time_in_which_the_machine_was_off_does_not_count(shop: Shop) -> None:
    """A clock that is wrong at the start looks the same."""
    machine = Machine(shop)
    assert machine.sweep()
    machine.reboot()
    assert machine.sweep(40 * DAY)
    assert machine.sweep(-40 * DAY)
    assert not machine.sweep(passed=30 * DAY)


def test_a_dry_run_lists_what_would_go(shop: Shop, tmp_path: Path) -> None:
    """With the reasons; nothing is deleted."""
    settings = tmp_path / "dockmirror.toml"
    settings.write_text('[[retention]]\nimages = "docker.io/**"\nunused = "1d"\n')
    before = tags(shop)
    arguments = ("-c", str(settings), "gc")
    planned = shop.json(*arguments, "--dry-run")["expired"]
    assert {each["image"] for each in planned} == {f"{NGINX}:latest", f"{NGINX}:1.27"}
    assert all(each["reason"].startswith("retention rule 1, unused: not pulled for") for each in planned)
    assert f"{NGINX}:1.27" in shop.run(*arguments, "--dry-run").stdout
    assert tags(shop) == before
    assert shop.json(*arguments)["expired"] == planned
    assert tags(shop) == [(str(OTHER), None)]


def test_locked_digests_stay(shop: Shop, tmp_path: Path) -> None:
    """With an invalid lock file no rule deletes anything, and eviction goes on."""
    lock, now = tmp_path / "lock", USED + 40 * DAY
    lock.write_text(f"{NGINX}:1.27 {Digest.of(AMD)} - 2026-11-30T01:12:45Z\n")
    settings = {
        "policy": [{"images": "docker.io/**", "lock": str(lock)}],
        "retention": [{"images": "**", "unused": "1d"}],
    }
    retention = make_retention(load(settings, {}))
    result = Sweep(shop.root, BUDGET, retention).dry_run(now)
    assert [str(each.image) for each in result.expired] == [f"{OTHER}@{Digest.of(manifest(CONFIG, BASE))}"]
    lock.write_text("nonsense\n")
    swept = Sweep(shop.root, Budget(0), retention).collect(now)
    assert swept is not None
    assert (swept.expired, bool(swept.evicted and swept.evicted.contents)) == ((), True)
    with pytest.raises(OSError, match="line 1"):
        Sweep(shop.root, BUDGET, retention).dry_run(now)


class ReadOnlyRetention(Retention):
    """Rules for a directory that cannot be written."""

    def apply(self, root: Path, expired: Sequence[ExpiredImage]) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(root))


def test_eviction_goes_on_where_expired_images_cannot_be_deleted(shop: Shop) -> None:
    with logged() as lines:
        swept = Sweep(shop.root, Budget(0), ReadOnlyRetention([rule(unused=DAY)])).collect(USED + 40 * DAY)
    assert swept is not None
    assert (swept.expired, bool(swept.evicted and swept.evicted.contents)) == ((), True)
    assert len(lines) == 1
    assert "images that the retention rules no longer keep cannot be deleted: [Errno 30]" in lines[0]


def test_a_rule_needs_a_pattern_and_positive_numbers() -> None:
    for wrong in ({"unused": "1d"}, {"images": "**", "tags": 0}, {"images": "**", "unknown": 1}):
        with pytest.raises(ValueError, match="retention"):
            load({"retention": [wrong]}, {})


def test_a_tag_that_moves_meanwhile_stays(shop: Shop) -> None:
    """A deletion is planned by the state of its moment."""
    retention = Retention([rule(unused=DAY)])
    expired = retention.plan(shop.root, ClockHistory(USED + 40 * DAY, 0.0), lambda: None)
    store_files.remove_tag(shop.root / layout.tag_directory(NGINX, Tag("1.27")), shop.root)
    assert retention.apply(shop.root, expired) > 0
    assert tags(shop) == []
