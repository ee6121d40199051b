"""Tags that the mirror asks about before a client has to wait: ahead of their end, or behind an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from dockmirror.admission.recall_filter import RecallContext, RecallFilter, RunningDeliveries
from dockmirror.admission.recalls import Recall, Recalled, Recalls
from dockmirror.interfaces import Answer, Sighting
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import ManifestUnknown, TooManyRequests, Unauthorized, Unreachable
from dockmirror.oci.header_fields import CacheResult
from dockmirror.oci.request import Manifest
from dockmirror.pullthrough.tag_refresh import (
    EARLIEST,
    LATEST,
    LIMIT_PAUSE,
    PER_SECOND,
    RefreshContext,
    TagRefresher,
)

from .mirrors import CONFIG, LAYER, NAME, PRIVATE, TAG, TTL, Mirror, body, header
from .origin import Origin

WINDOW = 30.0
"""Seconds after its time to live for which a tag is served at once, where the test says so."""
HEAD = f"nobody: HEAD {TAG}"


class Refreshing:
    """A mirror that refreshes tags.

    :ivar counted: the outcomes of refreshes.
    :ivar is_claimed: True if another process refreshes tags.
    :ivar claiming: turns are given when this fires.
    """

    def __init__(
        self,
        origin: Origin,
        clock: Clock | None = None,
        *,
        ahead: bool = False,
        stale: float = 0.0,
        writable: bool = False,
    ) -> None:
        self.mirror = Mirror(origin, clock, stale_while_revalidate=stale, writable=writable)
        self.counted: list[str] = []
        self.account = ""
        self.is_claimed = False
        self.turns = 0
        self.claiming: Deferred[None] | None = None
        self._context = RefreshContext(
            lambda _: TTL, ahead, self._claim, self.mirror.gateway.open_circuit,
            lambda _: self.account, self.counted.append, self.mirror.clock,
        )  # fmt: skip
        self.refresher = TagRefresher(self.mirror.registry, self._context)
        self.mirror.registry = self.refresher

    async def _claim(self, _: Manifest) -> Callable[[], None] | None:
        if self.is_claimed:
            return None
        self.turns += 1
        if self.claiming is not None:
            await self.claiming
        return self._release

    def _release(self) -> None:
        self.turns -= 1

    def advance(self, seconds: float) -> None:
        self.mirror.clock.advance(seconds)


class DistantOrigin(Origin):
    """A registry whose answers take 200 ms."""

    clock: Clock

    async def _wait(self) -> None:
        await deferLater(self.clock, 0.2)


@pytest.fixture
def stale(origin: Origin, manifest: bytes) -> Refreshing:
    """A mirror that serves stale tags while it revalidates them, and whose tag is stale."""
    refreshing = Refreshing(origin, stale=WINDOW)
    refreshing.mirror.pull(NAME)
    refreshing.advance(TTL + 1)
    origin.take()
    return refreshing


@pytest.fixture
def ahead(origin: Origin, manifest: bytes) -> Refreshing:
    """A mirror that refreshes tags ahead, and whose tag was just confirmed."""
    refreshing = Refreshing(origin, ahead=True)
    refreshing.mirror.pull(NAME)
    origin.take()
    return refreshing


def test_a_stale_tag_is_served_at_once(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    """The answer comes before the upstream is asked, and says what it is; the next one is newer."""
    new = origin.shelf(NAME).publish(CONFIG, b"a new layer")
    answer = stale.mirror.ask(TAG)
    assert origin.take() == []
    assert (body(answer), header(answer, "Age")) == (manifest, "61")
    assert header(answer, "Cache-Status") == "dockmirror; hit; detail=stale-while-revalidate"
    stale.advance(0)
    assert origin.take() == [HEAD, f"nobody: GET {TAG}"]
    answer = stale.mirror.ask(TAG)
    assert (body(answer), header(answer, "Age")) == (new, "0")
    assert header(answer, "Cache-Status") == "dockmirror; hit"
    assert stale.counted == ["moved"]


def test_one_revalidation_at_a_time(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    origin.held_up = True
    for who in (None, "alice", None):
        assert stale.mirror.get(TAG, who) == manifest
        stale.advance(0.1)
    assert origin.take() == [HEAD]
    assert stale.turns == 1
    origin.go_on()
    stale.advance(1)
    assert (stale.counted, stale.turns) == (["confirmed"], 0)
    assert header(stale.mirror.ask(TAG), "Age") == "1"
    assert origin.take() == []


def test_another_process_revalidates(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    """While it does, this one serves and asks nothing; later it asks again."""
    stale.is_claimed = True
    assert stale.mirror.get(TAG) == manifest
    stale.advance(1)
    assert origin.take() == []
    stale.is_claimed = False
    assert stale.mirror.get(TAG) == manifest
    stale.advance(1)
    assert origin.take() == [HEAD]


def test_the_window_has_an_end(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    stale.advance(WINDOW - 1)
    assert header(stale.mirror.ask(TAG), "Cache-Status") == "dockmirror; fwd=stale; detail=confirmed"
    assert origin.take() == [HEAD]


def test_no_cache_waits(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    new = origin.shelf(NAME).publish(CONFIG, b"a new layer")
    assert stale.mirror.get(TAG, revalidate=True) == new


def test_no_cache_shares_the_request_of_a_revalidation(
    origin: Origin, stale: Refreshing, manifest: bytes
) -> None:
    origin.held_up = True
    stale.mirror.get(TAG)
    stale.advance(0)
    waiting = stale.mirror.later(TAG, revalidate=True)
    assert (origin.take(), waiting) == ([HEAD], [])
    origin.go_on()
    assert [body(answer) for answer in waiting if isinstance(answer, Answer)] == [manifest]


def test_private_tags_always_wait(origin: Origin, manifest: bytes) -> None:
    """A repository that is not public is never answered before the upstream is asked."""
    refreshing = Refreshing(origin, stale=WINDOW, ahead=True)
    refreshing.mirror.get(PRIVATE, "alice")
    refreshing.advance(TTL + 1)
    origin.take()
    assert refreshing.mirror.get(PRIVATE, "alice") == manifest
    assert origin.take() == [f"alice: HEAD {PRIVATE}"]
    with pytest.raises(Unauthorized):
        refreshing.mirror.ask(PRIVATE, "mallory")
    origin.take()
    refreshing.advance(TTL * EARLIEST * 2)
    assert origin.take() == []


def test_a_refusal_behind_counts(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    """A repository that is public no more is served to nobody once the upstream has said so."""
    stale.mirror.get(TAG)
    origin.shelf(NAME).readers = {"alice"}
    stale.advance(0)
    assert stale.counted == ["failed"]
    with pytest.raises(Unauthorized):
        stale.mirror.ask(TAG)
    assert stale.mirror.get(TAG, "alice") == manifest


def test_a_tag_that_vanished_behind_is_forgotten(origin: Origin, stale: Refreshing, manifest: bytes) -> None:
    stale.mirror.get(TAG)
    del origin.shelf(NAME).tags["latest"]
    stale.advance(0)
    with pytest.raises(ManifestUnknown):
        stale.mirror.ask(TAG)


def test_while_the_upstream_is_down_the_answer_says_so(
    origin: Origin, stale: Refreshing, manifest: bytes
) -> None:
    origin.trouble = Unreachable("no route")
    assert header(stale.mirror.ask(TAG), "Warning") is None
    stale.advance(0)
    assert header(stale.mirror.ask(TAG), "Warning") == '299 - "served stale: no route"'
    assert stale.counted == ["failed"]


def test_where_clients_write_nothing_is_stale(origin: Origin, manifest: bytes) -> None:
    refreshing = Refreshing(origin, stale=WINDOW, writable=True)
    refreshing.mirror.pull(NAME)
    refreshing.advance(TTL + 1)
    assert header(refreshing.mirror.ask(TAG), "Cache-Status") == "dockmirror; fwd=stale; detail=confirmed"


@pytest.mark.parametrize("is_recalled", [False, True])
def test_what_was_recalled_is_not_served_stale(stale: Refreshing, manifest: bytes, is_recalled: bool) -> None:
    """A recall counts at once: the filter sees each answer, stale or not."""
    at = stale.mirror.clock.seconds()
    recalls = Recalls.of([Recall(Digest.of(manifest), "CVE-1", at, at)] if is_recalled else [])

    async def sightings(*_: object) -> Sequence[Sighting]:
        return ()

    context = RecallContext(
        lambda: recalls, RunningDeliveries(), sightings, lambda _: None, stale.mirror.clock
    )
    stale.mirror.registry = RecallFilter(stale.refresher, context)
    if is_recalled:
        with pytest.raises(Recalled):
            stale.mirror.ask(TAG)
    else:
        answer = stale.mirror.ask(TAG)
        assert header(answer, "Cache-Status") == "dockmirror; hit; detail=stale-while-revalidate"


@pytest.mark.parametrize("who", [None, "alice"])
def test_no_pull_waits_for_a_distant_upstream(who: str | None) -> None:
    """A tag that is pulled every second is fresh for an hour, although the upstream is 200 ms away.

    It costs a HEAD for each 70% to 85% of its time to live.
    """
    origin, clock = DistantOrigin(), Clock()
    clock.advance(1_700_000_000.0)
    origin.clock = clock
    image = origin.shelf(NAME).publish(CONFIG, LAYER)
    refreshing = Refreshing(origin, clock, ahead=True)
    first = refreshing.mirror.later(TAG)
    clock.advance(0.2)
    assert len(first) == 1
    origin.take()
    for second in range(3600):
        answer = refreshing.mirror.ask(TAG, who)
        assert answer.cache is not None
        assert answer.cache.result is CacheResult.HIT, second
        assert body(answer) == image
        clock.pump([0.2] * 5)
    assert set(origin.take()) == {HEAD}
    assert 3600 / TTL / LATEST - 2 <= len(refreshing.counted) <= 3600 / TTL / EARLIEST + 1
    assert set(refreshing.counted) == {"confirmed"}


def test_a_tag_in_use_is_refreshed_before_its_end(origin: Origin, ahead: Refreshing, manifest: bytes) -> None:
    """The manifest that it names now is there before anybody asks for it."""
    ahead.mirror.get(TAG)
    new = origin.shelf(NAME).publish(CONFIG, b"a new layer")
    ahead.advance(TTL * EARLIEST - 1)
    assert origin.take() == []
    ahead.advance(TTL * (LATEST - EARLIEST) + 1)
    assert origin.take() == [HEAD, f"nobody: GET {TAG}"]
    assert ahead.mirror.get(TAG) == new


def test_a_tag_that_nobody_asks_for_again_is_left_alone(origin: Origin, ahead: Refreshing) -> None:
    """One request after its last use at most, and none after a single pull."""
    ahead.advance(10 * TTL)
    assert origin.take() == []
    ahead.mirror.get(TAG)
    ahead.mirror.get(TAG)
    origin.take()
    for _ in range(100):
        ahead.advance(TTL / 10)
    assert origin.take() == [HEAD]


def test_what_others_have_refreshed_is_not_asked_about(
    origin: Origin, ahead: Refreshing, manifest: bytes
) -> None:
    """Another process has confirmed the tag meanwhile: the cache shows it."""
    ahead.mirror.get(TAG)
    ahead.advance(TTL * EARLIEST - 1)
    ahead.mirror.restarted().get(TAG, revalidate=True)
    assert origin.take() == [HEAD]
    ahead.advance(TTL * (LATEST - EARLIEST) + 1)
    assert (origin.take(), ahead.counted) == ([], [])


def test_refreshes_are_limited(origin: Origin) -> None:
    """A limited number of tags is asked about in a second, whatever number is due."""
    refreshing = Refreshing(origin, stale=WINDOW)
    names = [f"library/many{number}" for number in range(3 * PER_SECOND)]
    for name in names:
        origin.shelf(name).publish(CONFIG, LAYER)
        refreshing.mirror.pull(name)
    refreshing.advance(TTL + 1)
    for name in names:
        refreshing.mirror.get(f"{name}/manifests/latest")
    origin.take()
    refreshing.advance(0)
    counts = []
    for _ in range(3):
        refreshing.mirror.clock.pump([0.1] * 10)
        counts.append(len(origin.take()))
    assert counts == pytest.approx([PER_SECOND] * 3, abs=1)
    assert sum(counts) + 1 >= len(names)


@pytest.mark.parametrize("retry_after", [None, "1"])
def test_after_a_429_nothing_is_refreshed(
    origin: Origin, ahead: Refreshing, manifest: bytes, retry_after: str | None
) -> None:
    """For ten minutes, also if the upstream asks for less; clients ask as before."""
    ahead.mirror.get(TAG)
    origin.trouble = TooManyRequests(retry_after=retry_after)
    ahead.advance(TTL * LATEST)
    assert origin.take() == [HEAD]
    origin.trouble = None
    ahead.advance(TTL)
    assert ahead.mirror.get(TAG) == manifest
    assert origin.take() == [HEAD]
    for _ in range(int((LIMIT_PAUSE - 2 * TTL * LATEST) / TTL)):
        assert ahead.mirror.get(TAG) == manifest
        ahead.advance(TTL - 1)
        assert origin.take() == []
        ahead.advance(1)
        ahead.mirror.get(TAG)
        origin.take()
    ahead.advance(LIMIT_PAUSE)
    ahead.mirror.get(TAG)
    ahead.mirror.get(TAG)
    origin.take()
    ahead.advance(TTL * LATEST)
    assert origin.take() == [HEAD]


def test_a_reload_ends_what_is_planned(origin: Origin, ahead: Refreshing) -> None:
    ahead.mirror.get(TAG)
    ahead.refresher.stop()
    ahead.mirror.get(TAG)
    assert ahead.mirror.clock.getDelayedCalls() == []


def test_a_reload_ends_what_runs(origin: Origin, manifest: bytes) -> None:
    """Before it asks the upstream, which is asked with other settings from then on."""
    refreshing, claiming = Refreshing(origin, ahead=True), Deferred[None]()
    refreshing.claiming = claiming
    refreshing.mirror.pull(NAME)
    refreshing.mirror.get(TAG)
    origin.take()
    refreshing.advance(TTL * LATEST)
    assert refreshing.turns == 1
    refreshing.refresher.stop()
    assert claiming.called
    assert (origin.take(), refreshing.counted) == ([], [])


def test_a_failed_refresh_is_no_clients(origin: Origin, ahead: Refreshing) -> None:
    """The tag is served as long as it is fresh."""
    ahead.mirror.get(TAG)
    origin.trouble = Unreachable()
    ahead.advance(TTL * LATEST)
    assert header(ahead.mirror.ask(TAG), "Cache-Status") == "dockmirror; hit"
    assert ahead.counted == ["failed"]


def test_a_429_to_one_account_does_not_stop_the_refreshes_of_another(
    origin: Origin, ahead: Refreshing
) -> None:
    ahead.mirror.get(TAG)
    origin.trouble = TooManyRequests(retry_after="1")
    ahead.advance(TTL * LATEST)
    origin.trouble, ahead.account = None, "team-a"
    ahead.advance(TTL)
    for _ in range(2):
        ahead.mirror.get(TAG)
    origin.take()
    ahead.advance(TTL * LATEST)
    assert origin.take() == [HEAD]
