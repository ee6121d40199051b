"""The rules that keep images in sync, their images, and the turns of mirrors that share a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.app.sync_rules import (
    LEASE,
    SyncRule,
    SyncTurn,
    SyncTurns,
    find_images,
    list_states,
    make_sync_rules,
)
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.errors import NameUnknown, Unreadable
from dockmirror.oci.manifest import Platform
from dockmirror.oci.pull_rule import VersionRange
from dockmirror.oci.request import RegistryRequest, Repository, Tag
from dockmirror.store import layout
from dockmirror.store.bucket.bucket import MAX_BACKOFF, BucketUnavailable
from dockmirror.store.sync_states import SyncState, write_state
from dockmirror.system.times import CronSchedule, Interval

from ..answering import json_answer, now
from ..store.bucket.machines import bucket

NGINX = Repository("library/nginx")
TAGS = [
    "latest", "1", "1.9", "1.9.1", "1.9.1-alpine", "1.10.0", "1.10.0-alpine", "1.10.1-rc.1", "2.0.0", "v0.9.9"
]  # fmt: skip
FULL = """
[[sync]]
upstream = "docker"
repositories = ["nginx", "bitnami/*"]
tags = "1.*"
semver = ">=1.25"
newest = 3
platforms = "linux/amd64"
referrers = false
every = "12h"
jitter = "50%"
"""
T = TypeVar("T")


def rule(**fields: Any) -> SyncRule:
    """A rule of Docker Hub's images, of nginx's if nothing else is given."""
    defaults = {"key": "k", "name": "n", "upstream": "docker", "registry": "docker.io"}
    return SyncRule(**{**defaults, "repositories": ("library/nginx",), **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, sorted(TAGS)),
        ({"tags": ("1.9*", "latest")}, ["1.9", "1.9.1", "1.9.1-alpine", "latest"]),
        ({"tags": ("?",)}, ["1"]),
        ({"tags": ("nothing",)}, []),
        ({"versions": VersionRange.parse(">=1 <2")}, ["1.10.0", "1.9.1"]),
        ({"versions": VersionRange.parse(">=1 <2"), "newest": 1}, ["1.10.0"]),
        (
            {"versions": VersionRange.parse(">=1 <2"), "tags": ("*-alpine",)},
            ["1.10.0-alpine", "1.9.1-alpine"],
        ),
        ({"newest": 3}, ["2.0.0", "1.10.0", "1.9.1"]),
        ({"newest": 1, "tags": ("*-alpine",)}, ["1.10.0-alpine"]),
        ({"newest": 2, "tags": ("1.10*",)}, ["1.10.1-rc.1", "1.10.0"]),
        ({"newest": 100, "tags": ("latest",)}, []),
    ],
)
def test_tags_are_selected(fields: Mapping[str, Any], expected: Sequence[str]) -> None:
    assert list(map(str, rule(**fields).select_tags(NGINX, TAGS))) == expected


@given(st.lists(st.from_regex(r"[a-z0-9.v-]{1,8}", fullmatch=True)), st.integers(1, 5))
def test_the_newest_do_not_depend_on_the_order_of_the_list(names: list[str], newest: int) -> None:
    """They are tags of the list, no more than wanted; what is older than them comes later."""
    found = rule(newest=newest, tags=("*",)).select_tags(NGINX, names)
    assert found == rule(newest=newest, tags=("*",)).select_tags(NGINX, reversed(names))
    assert len(found) <= newest
    assert set(map(str, found)) <= set(names)
    assert found == rule(newest=len(names) + 1, tags=("*",)).select_tags(NGINX, names)[:newest]


def test_artifacts_come_with_their_images() -> None:
    """Their tags match a pattern only if they do not come anyway."""
    signature = f"sha256-{'0' * 64}.sig"
    assert rule().select_tags(NGINX, ["1", signature]) == [Tag("1")]
    assert rule(referrers=False).select_tags(NGINX, ["1", signature]) == [Tag("1"), Tag(signature)]


def test_names_that_are_no_tags_are_left_out() -> None:
    assert rule().select_tags(NGINX, ["-1", "a b", "", "ok"]) == [Tag("ok")]


@implementer(IRegistry)
@define
class Lists:
    """The own host of a mirror whose registries answer lists, each in pages.

    :ivar pages: the pages by the path, then the names on each.
    """

    pages: Mapping[str, Sequence[Any]]
    asked: list[str] = field(factory=list)

    async def fetch(self, request: RegistryRequest) -> Answer:
        assert request.revalidate  # a rule may run more often than a list is asked for
        path = f"{request.namespace or ''}{request.target}"
        self.asked.append(path)
        if path not in self.pages:
            raise NameUnknown
        page = int(dict(request.query).get("last", "0"))
        more = page + 1 < len(self.pages[path])
        following = (("last", str(page + 1)), ("ns", "docker.io")) if more else None
        return json_answer(self.pages[path][page], following)


def tags(*names: str) -> Mapping[str, Any]:
    return {"name": "any", "tags": list(names)}


def test_named_repositories_need_no_catalog() -> None:
    """All pages of the tags are read."""
    lists = Lists({"/v2/docker.io/library/nginx/tags/list": [tags("1"), tags("2"), tags("3")]})
    amd = Platform("linux", "amd64")
    found = now(find_images(lists, rule(platforms=(amd,)))).pins
    assert [str(each) for each in found] == [f"docker.io/library/nginx:{n}" for n in (1, 2, 3)]
    assert {each.platforms for each in found} == {(amd,)}


def test_patterns_are_matched_with_the_catalog() -> None:
    """A repository that is named, too, is not listed twice."""
    lists = Lists(
        {
            "reg.test/v2/_catalog": [
                {"repositories": ["team/a", "team/b/c"]}, {"repositories": ["team/d", "BAD"]}
            ],
            **{f"/v2/reg.test/team/{name}/tags/list": [tags("1")] for name in "ad"},
        }
    )  # fmt: skip
    found = now(find_images(lists, rule(registry="reg.test", repositories=("team/*", "team/a")))).pins
    assert [str(each) for each in found] == ["reg.test/team/a:1", "reg.test/team/d:1"]


def test_a_repository_without_tags_matches_nothing() -> None:
    lists = Lists({"/v2/docker.io/library/nginx/tags/list": [{"name": "any", "tags": None}]})
    assert now(find_images(lists, rule())).pins == []


def test_a_page_that_repeats_itself_ends_the_list() -> None:
    lists = Lists({"/v2/docker.io/library/nginx/tags/list": [tags("1")] * 100})
    assert len(now(find_images(lists, rule())).pins) == 1
    assert len(lists.asked) == 2


@pytest.mark.parametrize("page", [[], {"name": "any"}, {"tags": "1"}, {"tags": [1]}])
def test_a_list_that_is_none_is_an_error(page: object) -> None:
    lists = Lists({"/v2/docker.io/library/nginx/tags/list": [page]})
    with pytest.raises(Unreadable, match="cannot be read"):
        now(find_images(lists, rule()))


def settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "dockmirror.toml"
    path.write_text(text)
    return load({"config": str(path)}, {"CACHE_DIRECTORY": "/cache", "STATE_DIRECTORY": "/state"})


def test_rules_are_made_from_the_settings(tmp_path: Path) -> None:
    [made] = make_sync_rules(settings(tmp_path, FULL))
    assert made == SyncRule(
        made.key, "docker: nginx bitnami/* (1.*, >=1.25, newest 3), every 12h", "docker", "docker.io",
        ("library/nginx", "bitnami/*"), ("1.*",), VersionRange.parse(">=1.25"), 3,
        (Platform("linux", "amd64"),), False, Interval(43200.0, 0.5),
    )  # fmt: skip


def test_a_rule_follows_a_cron_expression(tmp_path: Path) -> None:
    by_cron = FULL.replace('every = "12h"', 'schedule = "0 3 * * *"')
    [made] = make_sync_rules(settings(tmp_path, by_cron))
    assert made.schedule == CronSchedule("0 3 * * *", 0.5)
    assert made.name.endswith(", at 0 3 * * * UTC")


def test_a_rule_has_an_interval_or_a_cron_expression(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'every' or 'schedule', not both"):
        settings(tmp_path, f'{FULL}schedule = "0 3 * * *"\n')


def test_images_are_pinned_by_the_names_at_the_upstream(tmp_path: Path) -> None:
    """Short names are completed and beginnings rewritten, as for a client's pull; patterns stay."""
    text = """
[upstreams.own]
url = "http://reg.test"
short_names = "complete"
rewrite = {"old" = "team"}

[[sync]]
upstream = "own"
repositories = ["nginx", "old/keep", "team/other", "old/*"]
"""
    (made,) = make_sync_rules(settings(tmp_path, text))
    assert made.repositories == ("library/nginx", "team/keep", "team/other", "old/*")
    assert made.name.startswith("own: nginx old/keep team/other old/*")


def test_states_are_listed_in_the_order_of_the_rules(tmp_path: Path) -> None:
    """A rule that has not run yet waits, and the state of a removed rule is left out."""
    for key in ("b", "removed"):
        write_state(tmp_path, SyncState(key, key, "done"), 0.0)
    found = list_states([rule(key="b"), rule(key="a")], tmp_path)
    assert [(each.key, each.outcome) for each in found] == [("b", "done"), ("a", "waiting")]


def test_a_changed_rule_is_another_one(tmp_path: Path) -> None:
    [one], [same], [other] = (
        make_sync_rules(settings(tmp_path, text)) for text in (FULL, FULL, FULL.replace("12h", "6h"))
    )
    assert one.key == same.key != other.key


def test_the_key_of_a_rule_stays_the_same(tmp_path: Path) -> None:
    """All versions of the mirror make it of the settings that are given; new ones must not change it."""
    text = '[[sync]]\nupstream = "docker"\nrepositories = ["nginx"]\n'
    for same in (text, f"{text}referrers = true\n"):
        assert [each.key for each in make_sync_rules(settings(tmp_path, same))] == ["1623a1b4307918fc"]
    assert [each.key for each in make_sync_rules(settings(tmp_path, FULL))] == ["84efacf22ab82bb3"]


def test_a_rule_of_an_offline_upstream_stays_the_same_rule(tmp_path: Path) -> None:
    texts = (FULL, f"offline = true\n{FULL}", f"{FULL}\n[upstreams.docker]\noffline = true")
    rules = [make_sync_rules(settings(tmp_path, text))[0] for text in texts]
    assert [each.is_offline for each in rules] == [False, True, True]
    assert len({each.key for each in rules}) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('upstream = "dokcer"', "'dokcer'; is 'docker' meant"),
        ("repositories = []", "repositories"),
        ('repositories = ["Nginx"]', 'expected a repository such as "library/nginx"'),
        ('repositories = ["a//b*"]', "expected a repository such as"),
        ('tags = ["a:b"]', "expected a pattern of tags"),
        ('semver = "^1.2"', "expected comparators"),
        ("newest = 0", "newest"),
        ('every = "10s"', "expected a duration of at least 1m"),
        ('evry = "6h"', "every"),
        ('schedule = "0 25 * * *"', "expected a cron expression"),
    ],
)
def test_invalid_rules_are_explained(tmp_path: Path, line: str, message: str) -> None:
    fields = {"upstream": '"docker"', "repositories": '["nginx"]'}
    key, _, value = line.partition(" = ")
    rows = "\n".join(f"{name} = {text}" for name, text in {**fields, key: value}.items())
    with pytest.raises(ConfigurationError, match="sync") as raised:
        settings(tmp_path, f"[[sync]]\n{rows}\n")
    assert message in str(raised.value)


class LateFailures:
    """Threads whose calls reach the bucket; the answers of some are lost.

    :ivar lost: the numbers of the calls whose answers are lost.
    """

    def __init__(self, *lost: int) -> None:
        self.lost = lost
        self.calls = 0

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        self.calls += 1
        is_lost = self.calls in self.lost

        async def run() -> T:
            result = call()
            if is_lost:
                raise GenericError("no answer")
            return result

        return run()


def names(store: MemoryStore) -> list[str]:
    """Return the names of the objects of turns."""
    paths = (each["path"] for each in store.list(str(layout.SYNC_TURNS)).collect())
    return sorted(PurePosixPath(each).name for each in paths)


def test_turns_are_for_one_rule_and_period_each() -> None:
    clock, store = Clock(), MemoryStore()
    one, other = (SyncTurns(bucket(clock, store), clock) for _ in range(2))
    assert now(one.claim("a", 1, "one")).owner == "one"
    assert now(other.claim("a", 1, "other")).owner == "one"
    assert now(other.claim("b", 1, "other")).owner == "other"
    now(one.complete(now(one.claim("a", 1, "one")), [], 1))
    assert now(other.claim("a", 2, "other")).owner == "other"
    assert now(one.claim("a", 2, "one")).owner == "other"
    assert now(one.claim("a", 2, "other")).owner == "other"
    assert names(store) == ["a-2-0", "b-1-0"]


def test_a_turn_outlasts_its_period() -> None:
    """The rule is run once at a time, and a run counts for the period in which it ends."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    turn = now(turns.claim("a", 1, "one"))
    assert now(turns.claim("a", 2, "other")) == turn
    assert names(store) == ["a-1-0"]
    turn = now(turns.complete(turn, ["x"], 2))
    assert now(turns.claim("a", 2, "other")) == turn
    assert now(turns.claim("a", 3, "other")).owner == "other"
    assert now(turns.claim("a", 2, "one")).owner == "other"
    assert names(store) == ["a-3-0"]


def test_a_mirror_goes_on_with_its_own_turn_in_the_next_period() -> None:
    """No longer than it had it, unless it renews it: its upstream may have failed."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    turn = now(turns.claim("a", 1, "one"))
    clock.advance(LEASE - 1)
    assert now(turns.claim("a", 2, "one")).until == turn.until
    assert names(store) == ["a-2-0"]
    assert now(turns.claim("a", 2, "other")).owner == "one"
    clock.advance(1)
    assert now(turns.claim("a", 3, "other")).owner == "other"
    assert names(store) == ["a-3-0"]


def test_the_turns_of_a_removed_rule_are_deleted() -> None:
    """Not those of others, and not one that another mirror has."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    for key in ("a", "b", "c"):
        now(turns.claim(key, 1, "one"))
    now(turns.delete("a", "one"))
    now(turns.delete("b", "other"))
    assert names(store) == ["b-1-0", "c-1-0"]
    clock.advance(LEASE)
    now(turns.delete("b", "other"))
    assert names(store) == ["c-1-0"]
    now(SyncTurns(bucket(clock, store, LateFailures(1)), clock).delete("c", "one"))
    now(SyncTurns(None, clock).delete("c", "one"))
    assert names(store) == ["c-1-0"]


def test_a_claim_whose_answer_was_lost_counts() -> None:
    """The mirror finds itself named as the owner when it claims the turn again."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store, LateFailures(2)), clock)
    with pytest.raises(BucketUnavailable):
        now(turns.claim("a", 1, "one"))
    clock.advance(MAX_BACKOFF)
    assert now(turns.claim("a", 1, "one")).owner == "one"
    assert now(SyncTurns(bucket(clock, store), clock).claim("a", 1, "other")).owner == "one"


@pytest.mark.parametrize("lost", [4, 5])
def test_a_turn_is_claimed_although_old_ones_cannot_be_deleted(lost: int) -> None:
    """They can be neither read again nor deleted."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    now(turns.complete(now(turns.claim("a", 1, "one")), [], 1))
    threads = LateFailures(lost)
    assert now(SyncTurns(bucket(clock, store, threads), clock).claim("a", 2, "one")).path.name == "a-2-0"
    assert threads.calls == lost


def test_a_turn_that_is_not_renewed_is_taken_over() -> None:
    """One of several mirrors does so; the owner, if it lives, leaves it to that one."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    turn = now(turns.claim("a", 1, "one"))
    clock.advance(LEASE - 1)
    turn = now(turns.extend(turn, clock.seconds() + LEASE))
    clock.advance(LEASE - 1)
    assert now(turns.claim("a", 1, "other")).owner == "one"
    clock.advance(1)
    assert now(turns.claim("a", 1, "other")).owner == "other"
    assert now(turns.claim("a", 1, "third")).owner == "other"
    assert now(turns.claim("a", 1, "one")).owner == "other"


def test_a_complete_turn_has_the_images_that_match() -> None:
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    now(turns.complete(now(turns.claim("a", 1, "one")), ["docker.io/library/nginx:1"], 1))
    clock.advance(2 * LEASE)
    assert now(turns.claim("a", 1, "other")).images == ("docker.io/library/nginx:1",)


def test_a_malformed_turn_is_taken_over() -> None:
    clock, store = Clock(), MemoryStore()
    endless = b'{"owner": "one", "until": 1e999, "images": null, "period": 1}'
    for data in (b"", b"[]", b'{"owner": "one"}', b"\xff", b"[" * 100_000, endless):
        store.put(str(layout.SYNC_TURNS / "a-1-0"), data)
        assert now(SyncTurns(bucket(clock, store), clock).claim("a", 1, "other")).owner == "other"
        store.delete(str(layout.SYNC_TURNS / "a-1-1"))


def test_without_a_bucket_each_turn_is_the_mirrors_own() -> None:
    clock = Clock()
    turn = now(SyncTurns(None, clock).claim("a", 1, "one"))
    assert now(SyncTurns(None, clock).complete(turn, ["x"], 1)).owner == "one"


def test_turns_are_written_as_they_are_read() -> None:
    path = layout.SYNC_TURNS / "a-1-0"
    for turn in (SyncTurn(path, "one", 3.5), SyncTurn(path, "one", 3.5, ("x", "y"), 2)):
        assert SyncTurn.parse(path, bytes(turn)) == turn
