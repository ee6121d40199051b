"""Mirrors that share a bucket and keep the same images in sync."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from dockmirror.store import layout

from .parts.command import dockmirror
from .parts.faults import Stall
from .parts.images import image
from .parts.kept import holds
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.sharing import Sharing, status
from .pulls import succeeded

pytestmark = pytest.mark.integration

NAME = "library/synced"
RULE = {"upstream": "docker", "repositories": [NAME], "every": "30d"}
HURRIES = """\
from dockmirror.app import sync_runner
sync_runner.POLL = sync_runner.LOOK = 0.3
"""


def rule_of(mirror: Mirror) -> dict[str, Any]:
    [rule] = json.loads(succeeded(dockmirror(mirror, "sync", "--json")))
    return dict(rule)


def begins(mirror: Mirror, outcome: str) -> None:
    """Give a running mirror the rule, and wait for what it makes of that."""
    mirror.configure(sync=[RULE])
    succeeded(dockmirror(mirror, "reload"))
    wait_until(lambda: bool(rule_of(mirror)["outcome"] == outcome), f"the rule is {outcome}")


def expire_turn(sharing: Sharing) -> None:
    """Let the only turn end now that a mirror has, instead of an hour later."""
    listed = sharing.keys()
    [key] = [each for each in listed if each.startswith(str(layout.SYNC_TURNS))]
    turn = json.loads(bytes(sharing.store.get(key).bytes()))
    assert turn["until"] > time.time()
    sharing.store.put(key, json.dumps({**turn, "until": 0}).encode())


def test_a_mirror_takes_over_from_one_that_was_killed(sharing: Sharing) -> None:
    """The other one waits until then; the first one leaves it at that when it is back."""
    pushed = image("synced")
    sharing.registry.push(NAME, pushed, "latest")
    sharing.patch = HURRIES
    first, second = sharing.add(), sharing.add()
    sharing.upstream.fault = stall = Stall()
    begins(first, "running")
    begins(second, "elsewhere")
    assert rule_of(second)["message"] == "another mirror of the bucket runs it"
    first.kill()
    expire_turn(sharing)
    sharing.upstream.fault = None
    stall.over.set()
    wait_until(lambda: bool(rule_of(second)["outcome"] == "done"), "the second mirror has run the rule")
    assert rule_of(second)["pinned"] == [f"docker.io/{NAME}:latest"]
    assert holds(second.cache, f"docker.io/{NAME}", pushed)
    [shown] = status(second)["sync"]
    assert (shown["outcome"], shown["matched"], shown["pinned"]) == ("done", 1, 1)
    first.start()
    wait_until(lambda: bool(rule_of(first)["outcome"] == "elsewhere"), "the first mirror leaves it at that")
    assert rule_of(first)["message"] == "another mirror of the bucket has run it"
    assert rule_of(first)["pinned"] == []
