"""Budgets of images, for each client network."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from dockmirror.app.usage_limits import BudgetCounters, make_budgets, read_budgets
from dockmirror.config.load import load
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import Answer as RegistryAnswer
from dockmirror.interfaces import IRegistry
from dockmirror.middleware.filters import BudgetFilter
from dockmirror.oci.errors import ManifestUnknown
from dockmirror.oci.request import RegistryRequest
from dockmirror.status import BudgetStatus, NetworkShare
from dockmirror.system.networks import ClientAddress, parse_address
from tests.answering import Pieces
from tests.fake_registry import MANIFEST, digest
from tests.fakes import Reply
from tests.house import Answer, House
from tests.internet import LAYER, Internet
from tests.stacks import Outcome, asked

HOST, UPSTREAM = "k8s.mirror.example", "registry.k8s.io"
CLIENT, OTHER = "10.0.0.1", "10.0.0.2"
INDEX = "application/vnd.oci.image.index.v1+json"
TAG = "/v2/team/image/manifests/1"
BLOB = f"/v2/team/image/blobs/{digest(LAYER)}"


def limited(*budgets: dict[str, Any], **access: Any) -> House:
    """Return a mirror with these budgets."""
    listed = [{"images": "**", "window": 60, **each} for each in budgets]
    house = House(Internet(), budget=listed, access=access)
    manifest = Reply(200, b"{}", (("Content-Type", MANIFEST),))
    for name in ("team/image", "team/other", "apps/image"):
        house.world.reply(UPSTREAM, f"/v2/{name}/manifests/1", manifest)
        house.world.reply(UPSTREAM, f"/v2/{name}/blobs/{digest(LAYER)}", Reply(200, LAYER))
    return house


def ask(house: House, path: str = TAG, peer: str = CLIENT, host: str = HOST) -> Answer:
    """Return the answer to a client at that address, which closes its connection."""
    client = house.connect(peer).ask("GET", host, path)
    client.leave()
    return client.answer


def statuses(house: House, *paths: str) -> list[int]:
    return [ask(house, path).status for path in paths]


def test_each_image_has_a_budget_for_each_network() -> None:
    """It is the same on the virtual host and on the mirror's own."""
    house = limited({"requests": 2})
    assert statuses(house, TAG, TAG, TAG) == [200, 200, 429]
    own = ask(house, "/v2/registry.k8s.io/team/image/manifests/1", host="mirror.example")
    assert own.error == (429, "TOOMANYREQUESTS")
    assert statuses(house, "/v2/team/other/manifests/1") == [200]
    assert ask(house, peer=OTHER).status == 200
    house.pass_time(60)
    assert ask(house).status == 200


def test_images_may_share_a_budget() -> None:
    house = limited({"images": "registry.k8s.io/team/*", "each": "network", "requests": 2})
    names = ("team/image", "team/other", "team/image", "apps/image")
    assert statuses(house, *[f"/v2/{name}/manifests/1" for name in names]) == [200, 200, 429, 200]


def test_a_pull_that_has_begun_may_be_completed() -> None:
    """If pulls are used up, only manifests are refused."""
    house = limited({"pulls": 1})
    assert statuses(house, TAG, BLOB, TAG, BLOB) == [200, 200, 429, 200]


def test_neither_a_head_nor_an_index_is_a_pull() -> None:
    house = limited({"pulls": 1})
    house.world.reply(UPSTREAM, "/v2/team/image/manifests/2", Reply(200, b"{}", (("Content-Type", INDEX),)))
    assert house.connect(CLIENT).ask("HEAD", HOST, TAG).answer.status == 200
    index, absent = "/v2/team/image/manifests/2", "/v2/team/image/manifests/absent"
    assert statuses(house, index, absent, TAG, TAG) == [200, 404, 200, 429]


def test_bytes_are_counted_while_they_are_sent() -> None:
    house = limited({"bytes": "50KB"})
    house.world.reply(UPSTREAM, BLOB, Reply(200, LAYER).cut(100_000, end="stalled"))
    client = house.connect(CLIENT).ask("GET", HOST, BLOB)
    assert statuses(house, BLOB, f"/v2/team/other/blobs/{digest(LAYER)}") == [429, 200]
    house.pass_time(60)
    assert statuses(house, TAG) == [200]
    client.leave()


class Received(ServerRequest):
    """A request that a client at ``CLIENT`` has sent, and whose response has not ended."""

    def __init__(self) -> None:
        self.admitted_client = ClientAddress(parse_address(CLIENT), "http", HOST)
        self.sentLength = 0

    def notifyFinish(self) -> Deferred[None]:
        return Deferred()


@implementer(IRegistry)
class SlowRegistry:
    """A registry that answers when the test says so.

    :ivar waiting: fire when a request is answered, in order.
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []
        self.bodies: list[Pieces] = []

    async def fetch(self, _: RegistryRequest) -> RegistryAnswer:
        self.waiting.append(Deferred())
        await self.waiting[-1]
        self.bodies.append(Pieces([b"{}"]))
        return RegistryAnswer(self.bodies[-1])


class Slow:
    """A slow registry behind a budget, of which many requests are sent at once."""

    def __init__(self, **budget: Any) -> None:
        settings = load({"domain": "mirror.example", "budget": [{"images": "**", **budget}]}, {})
        house = House(Internet())
        budgets = make_budgets(settings, house.clock, BudgetCounters(house.memory), house.metrics)
        self.registry = SlowRegistry()
        self._filter = BudgetFilter(self.registry, UPSTREAM, budgets)

    def send(self, count: int) -> list[Outcome]:
        request = partial(asked, TAG)
        return [Outcome(self._filter.fetch(request(received=Received()))) for _ in range(count)]


@pytest.mark.parametrize(
    ("budget", "fetched"),
    [({"requests": 3}, 3), ({"requests": 3, "each": "network"}, 3), ({"pulls": 3}, 9)],
)
def test_requests_that_are_sent_at_once_use_a_budget_together(budget: dict[str, Any], fetched: int) -> None:
    """A manifest is known to be a pull once it is there."""
    slow = Slow(**budget)
    outcomes = slow.send(9)
    assert len(slow.registry.waiting) == fetched
    for each in slow.registry.waiting:
        each.callback(None)
    refused = [each for each in outcomes if isinstance(each[0], Failure)]
    assert len(refused) == 6
    assert all("rate limit exceeded for " in str(each.error) for each in refused)
    assert [each.discarded for each in slow.registry.bodies] == [False] * 3 + [True] * (fetched - 3)


def test_a_request_that_fails_uses_nothing_up() -> None:
    slow = Slow(requests=1)
    slow.send(1)
    slow.registry.waiting[0].errback(ManifestUnknown())
    assert [bool(each) for each in slow.send(2)] == [False, True]


def test_every_budget_that_matches_applies() -> None:
    """A request that one budget refuses does not count in another."""
    house = limited({"requests": 3, "each": "network"}, {"images": "**/image", "requests": 1})
    assert statuses(house, *[TAG] * 5) == [200, *[429] * 4]
    assert statuses(house, *["/v2/team/other/manifests/1"] * 3) == [200, 200, 429]


def test_budgets_of_the_same_images_count_apart() -> None:
    """A short window does not reset a long one, and nothing counts twice."""
    house = limited({"requests": 2}, {"requests": 3, "window": 600})
    assert statuses(house, TAG, TAG, TAG) == [200, 200, 429]
    house.pass_time(60)
    assert statuses(house, TAG, TAG) == [200, 429]
    house.pass_time(60)
    assert statuses(house, TAG) == [429]


def test_images_that_do_not_exist_take_no_room() -> None:
    house = limited({"requests": 1})
    assert statuses(house, "/v2/made/up/manifests/1", "/v2/made/up/manifests/1") == [404, 404]


def test_the_refusal_says_why_how_long_and_whom_to_ask() -> None:
    house = limited({"requests": 1}, contact="https://example.com/limits")
    ask(house)
    house.pass_time(20)
    answer = ask(house)
    assert answer["Retry-After"] == "40"
    assert answer.message == (
        "rate limit exceeded for registry.k8s.io/team/image from your network; try again in 40 s;"
        " to have the limit raised, see https://example.com/limits"
    )
    assert house.metrics.registry.get_sample_value("dockmirror_limited_total", {"limit": "**"}) == 1
    assert house.lines[-1].endswith(f'"{answer.message}"')


@pytest.mark.parametrize("exempt", ["10.0.0.0/8", "private"])
def test_the_operators_networks_have_no_budget(exempt: str) -> None:
    house = limited({"requests": 1}, exempt=[exempt])
    assert statuses(house, TAG, TAG, TAG) == [200] * 3


def usage(house: House, **settings: Any) -> Sequence[BudgetStatus]:
    """Return the use of the budgets, with settings that decide how clients are named."""
    used = house.serving.settings.model_copy(update={"history": Path("/history"), **settings})
    return read_budgets(used, BudgetCounters(house.memory), house.clock.seconds())


def named(house: House, **settings: Any) -> list[str]:
    (budget,) = usage(house, **settings)
    return [each.client for each in budget.most]


def test_the_use_of_a_budget_is_that_of_each_network() -> None:
    """If each image is counted by itself, the one of which a network has used most counts."""
    house = limited({"requests": 2, "pulls": 9})
    house.pass_time(100)
    assert statuses(house, TAG, BLOB, BLOB, "/v2/team/other/manifests/1") == [200, 200, 429, 200]
    house.pass_time(10)
    ask(house, peer="fd00::5")
    (budget,) = usage(house)
    assert (budget.images, budget.each, budget.requests, budget.pulls) == ("**", "image", 2, 9)
    assert (budget.networks, budget.used_up, budget.refused) == (2, 1, 1)
    assert budget.most == (
        NetworkShare(CLIENT, 1.0, 2, 1, 2 + len(LAYER), 160.0),
        NetworkShare("fd00::/64", 0.5, 1, 1, 2, 170.0),
    )
    house.pass_time(50)
    (budget,) = usage(house)
    assert (budget.networks, budget.used_up, budget.refused) == (1, 0, 1)


def test_the_use_of_budgets_of_the_same_images_is_told_apart() -> None:
    """So it is after the settings were read again, unless a budget is another one then."""
    budgets = [{"images": "**", "requests": 1}, {"images": "**", "requests": 4, "each": "network"}]
    house = limited(*budgets)
    assert statuses(house, TAG, TAG, "/v2/team/other/manifests/1") == [200, 429, 200]
    assert [(each.used_up, each.refused, each.most[0].share) for each in usage(house)] == [
        (1, 1, 1.0), (0, 0, 0.5),
    ]  # fmt: skip
    house.serving.apply(limited(budgets[0], {"images": "**", "requests": 4}).serving.settings)
    assert [each.networks for each in usage(house)] == [1, 0]


def test_a_budget_keeps_its_counts_when_others_are_added_or_removed() -> None:
    one, other = {"images": "**", "requests": 1}, {"images": "registry.k8s.io/team/*", "requests": 1}
    house = limited(one)
    assert statuses(house, TAG, TAG) == [200, 429]
    house.serving.apply(limited(other, one).serving.settings)
    assert [each.used_up for each in usage(house)] == [0, 1]
    assert statuses(house, TAG) == [429]


def test_five_networks_are_listed_and_all_are_counted() -> None:
    house = limited({"requests": 10})
    for number in range(1, 8):
        for _ in range(number):
            ask(house, peer=f"10.0.0.{number}")
    (budget,) = usage(house)
    assert (budget.networks, budget.used_up) == (7, 0)
    assert [each.client for each in budget.most] == [f"10.0.0.{number}" for number in (7, 6, 5, 4, 3)]


def test_networks_are_named_as_the_history_names_clients() -> None:
    """They are counted all the same where it keeps no addresses."""
    house = limited({"requests": 10})
    ask(house)
    assert named(house) == ["10.0.0.1"]
    assert named(house, history_addresses="network") == ["10.0.0.0/24"]
    assert named(house, history_addresses="region") == ["private"]
    assert named(house, history_addresses="none") == named(house, history=None) == [""]


def test_without_budgets_nothing_is_counted_or_read() -> None:
    house = House(Internet())
    house.world.reply(
        UPSTREAM, "/v2/team/image/manifests/1", Reply(200, b"{}", (("Content-Type", MANIFEST),))
    )
    assert statuses(house, TAG) == [200]
    assert usage(house) == ()
    assert not any(house.memory.budget_counters)
