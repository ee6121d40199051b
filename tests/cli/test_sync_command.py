"""The command that lists the rules that keep images in sync."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from attrs import evolve
from zope.interface import implementer

from dockmirror.app.sync_rules import SyncRule, make_sync_rules
from dockmirror.cli import sync_command
from dockmirror.cli.sync_command import NamespaceQuery, SyncPlan, plan_rules
from dockmirror.config.load import load
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.errors import Unreachable
from dockmirror.oci.request import Catalog, RegistryRequest, Repository, Tag, Tags
from dockmirror.store import sync_states
from dockmirror.store.pins import Pin
from dockmirror.store.sync_states import SyncState

from ..answering import json_answer, now
from .shop import Shop

TEXT = '[[sync]]\nupstream = "docker"\nrepositories = ["nginx"]\n'
NAME = "docker.io/library/nginx"
RULE = SyncRule("k", "the rule", "docker", "docker.io", ("library/nginx",))


def pin(tag: str) -> Pin:
    return Pin(Repository(NAME), Tag(tag))


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A settings file with a rule."""
    path = tmp_path / "dockmirror.toml"
    path.write_text(TEXT)
    return str(path)


def test_rules_are_listed_with_their_last_run(shop: Shop, file: str) -> None:
    """A rule that was removed is not."""
    [rule] = make_sync_rules(load({"config": file}, {}))
    [waiting] = shop.json("sync", "-c", file)
    assert (waiting["outcome"], waiting["started"], waiting["pinned"]) == ("waiting", None, [])
    state = SyncState(rule.key, rule.name, "failed", "down", 1.7e9, matched=3, synced=2, pins=(pin("1"),))
    for each in (state, SyncState("removed", "removed")):
        sync_states.write_state(shop.root, each, 0.0)
    [failed] = shop.json("sync", "-c", file)
    assert (failed["outcome"], failed["message"], failed["matched"]) == ("failed", "down", 3)
    assert failed["pinned"] == [f"{NAME}:1"]
    lines = shop.run("sync", "-c", file).stdout.splitlines()
    assert lines[1].startswith("docker: nginx (all tags), every 6h  failed   2 of 3")
    assert lines[0].split()[-3:] == ["last", "next", "message"]
    assert lines[1].split()[-2:] == ["due", "down"]


def test_the_next_run_of_a_rule_is_told(shop: Shop, file: str) -> None:
    """A rule that runs has none, and one of an offline upstream waits for that."""

    def next_run() -> str:
        return shop.run("sync", "-c", file).stdout.splitlines()[1].partition(" ago  ")[2].strip()

    [rule] = make_sync_rules(load({"config": file}, {}))
    state = SyncState(rule.key, rule.name, "done", started=1.7e9, next_run=time.time() + 7210)
    sync_states.write_state(shop.root, state, 0.0)
    assert next_run() == "in 2 h"
    sync_states.write_state(shop.root, evolve(state, next_run=time.time() + 59), 0.0)
    assert next_run().removesuffix(" s") in ("in 58", "in 59")
    sync_states.write_state(shop.root, evolve(state, outcome="running", next_run=0.0), 0.0)
    assert next_run() == "running"
    Path(file).write_text(f"offline = true\n{TEXT}")
    assert next_run() == "offline"


def test_without_rules_nothing_is_listed(shop: Shop) -> None:
    assert shop.json("sync") == []
    assert "no [[sync]] rules" in shop.run("sync").stderr


def test_a_dry_run_without_rules_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_command, "run_with_reactor", lambda _: [])
    assert "no [[sync]] rules" in shop.run("sync", "--dry-run").stderr
    assert shop.json("sync", "--dry-run") == []


def test_a_run_is_requested(shop: Shop, file: str) -> None:
    shop.run("sync", "-c", file, "--now")
    assert sync_states.is_requested(shop.root)


def test_options_that_exclude_each_other_are_refused(shop: Shop, file: str) -> None:
    assert "exclude each other" in shop.run("sync", "-c", file, "--now", "--dry-run", code=2).output
    assert "given together" in shop.run("sync", "-c", file, "--dry-run", "--user", "u", code=2).output
    for other in ([], ["--now"]):
        assert "go with --dry-run" in shop.run("sync", "-c", file, "--user", "u", *other, code=2).output


@implementer(IRegistry)
class Listing:
    """A mirror's own host with the tags 1 and 2 of any repository of Docker Hub."""

    def __init__(self) -> None:
        self.queries: list[tuple[tuple[str, str], ...]] = []

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.queries.append(request.query)
        if not isinstance(request.target, Tags) or request.target.repository.first != "docker.io":
            raise Unreachable("the registry is down")
        return json_answer({"tags": ["1", "2"]})


def test_a_plan_says_what_would_be_pulled_and_unpinned() -> None:
    """Another rule that cannot list its tags, or is offline, keeps its pins, and a removed one loses them."""
    down = evolve(RULE, key="down", name="down", registry="down.test")
    states = {
        "k": SyncState("k", "the rule", pins=(pin("0"), pin("1"), pin("kept"))),
        "down": SyncState("down", "down", pins=(pin("kept"),)),
        "gone": SyncState("gone", "gone", pins=(pin("2"), pin("old"))),
    }
    assert now(
        plan_rules(Listing(), [RULE, down, evolve(RULE, key="off", name="off", is_offline=True)], states)
    ) == [
        SyncPlan("the rule", [f"{NAME}:2"], [f"{NAME}:1"], [f"{NAME}:0"]),
        SyncPlan("down", error="the registry is down"),
        SyncPlan("off", error="the upstream docker is offline"),
        SyncPlan("gone", [], [], [f"{NAME}:old"]),
    ]


def test_a_namespace_is_sent_in_the_query() -> None:
    listing = Listing()
    request = RegistryRequest(Catalog(), query=(("n", "5"),), namespace="ghcr.io")
    with pytest.raises(Unreachable):
        now(NamespaceQuery(listing).fetch(request))
    assert listing.queries == [(("n", "5"), ("ns", "ghcr.io"))]
