"""Rules that are run on a schedule, and their pins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from attrs import define, evolve, field
from obstore.store import MemoryStore
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.app.sync_rules import LEASE, SyncRule, SyncTurns
from dockmirror.app.sync_runner import LOOK, POLL, QUOTA_PAUSE, RETRY, SyncContext, SyncRunner, is_quota_low
from dockmirror.body.bodies import BytesBody
from dockmirror.concurrency.coroutines import RunInThread
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied, NameUnknown, RegistryError, TooManyRequests, Unreachable
from dockmirror.oci.request import Manifest, RegistryRequest, Tag, Tags
from dockmirror.pull import HELD_PAUSES
from dockmirror.status import Quota
from dockmirror.store import files, layout, pins, sync_states
from dockmirror.store.pins import Pin
from dockmirror.store.sync_states import SyncState
from dockmirror.system.times import CronSchedule, Interval, Schedule

from ..shelf import AMD, FOR_AMD, FOR_ARM, PLACE, SIGNATURE, Shelf
from ..store.bucket.machines import BucketThreads, bucket
from ..store.threads import CountedThread, inline

EPOCH = 1_700_000_000.0
EVERY = 6 * 3600.0
RULE = SyncRule(
    "k", "docker: library/nginx", "docker", "docker.io", ("library/nginx",), ("1.*",),
    schedule=Interval(EVERY, 0.1),
)  # fmt: skip


@implementer(IRegistry)
@define
class Library:
    """A mirror's own host: a shelf of images with a list of tags.

    :ivar tags: the images, by their tags; other tags are listed, and not found.
    :ivar refusal: the error with which the list of tags is refused, if there is one.
    :ivar missing: the repositories that do not exist.
    :ivar limited: the tags whose manifests are refused because of a rate limit; ``denied``, by a policy.
    :ivar quota: the rate limit that the upstream has told last.
    :ivar on_manifest: is called when a tag's manifest is requested.
    :ivar accounts: the accounts of repositories; ``quotas`` are their own rate limits.
    """

    tags: dict[str, bytes]
    shelf: Shelf = field(factory=Shelf)
    refusal: RegistryError | None = None
    missing: set[str] = field(factory=set)
    limited: set[str] = field(factory=set)
    denied: set[str] = field(factory=set)
    quota: Quota | None = None
    next_quota: Quota | None = None
    on_manifest: Callable[[], object] = tuple
    accounts: dict[str, str] = field(factory=dict)
    quotas: dict[str, Quota] = field(factory=dict)

    async def fetch(self, request: RegistryRequest) -> Answer:
        target = request.target
        if isinstance(target, Tags):
            if self.refusal is not None:
                raise self.refusal
            if target.repository.name in self.missing:
                raise NameUnknown("the upstream answered 404")
            data = json.dumps({"tags": list(self.tags)}).encode()
            return Answer(BytesBody(data, Descriptor(None, None, len(data))))
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            self.quota = self.next_quota or self.quota
            self.on_manifest()
            if target.reference.name in self.limited:
                raise TooManyRequests("rate limit exceeded")
            if target.reference.name in self.denied:
                raise Denied("it is not signed")
            for name, data in self.tags.items():
                if data:
                    self.shelf.put(data, Tag(name))
        return await self.shelf.fetch(request)


class Site:
    """A process that keeps images in sync."""

    def __init__(
        self,
        root: Path,
        library: Library,
        *rules: SyncRule,
        clock: Clock,
        turns: SyncTurns | None = None,
        in_thread: RunInThread = inline,
    ) -> None:
        self.root, self.clock, self.library = root, clock, library
        self.rules: Sequence[SyncRule] = rules
        context = SyncContext(
            lambda: self.rules,
            lambda: library,
            lambda _, repository: library.accounts.get(repository.name, ""),
            lambda _, account: library.quotas.get(account, library.quota),
            turns or SyncTurns(None, clock),
            lambda: 0.5,
        )
        self.service = SyncRunner(root, clock, in_thread, context)
        self.service.startService()

    def poll(self, seconds: float = 0.0) -> None:
        """Let time pass, and then a check with everything that it begins."""
        self.clock.advance(seconds)
        self.clock.pump([POLL, *HELD_PAUSES])

    @property
    def pinned(self) -> set[str]:
        return {str(pin.reference) for pin, _ in pins.iter_pins(self.root)}

    def state(self, key: str = "k") -> SyncState:
        return sync_states.read_states(self.root)[key]


@pytest.fixture
def clock() -> Clock:
    """A clock that stands long after the epoch."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


def images(*tags: str) -> dict[str, bytes]:
    return dict.fromkeys(tags, FOR_AMD)


def test_images_are_pulled_and_pinned_while_they_match(tmp_path: Path, clock: Clock) -> None:
    """A new tag is pulled at the next run, and one that is gone is unpinned."""
    library = Library(images("1.1", "1.2", "2.0"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert site.pinned == {"1.1", "1.2"}
    assert library.shelf.fetched() == sorted(["amd", "base", "a"])
    state = site.state()
    assert (state.outcome, state.matched, state.synced, state.failed, state.fetched) == ("done", 2, 2, 0, 3)
    assert state.next_run - state.ended == EVERY * 1.05, "after the interval and a random part"
    assert {refreshed > EPOCH for _, refreshed in pins.iter_pins(tmp_path)} == {True}

    library.tags = images("1.2", "1.3")
    site.poll(EVERY - 100)
    assert site.pinned == {"1.1", "1.2"}
    site.poll(EVERY * 0.1)
    assert site.pinned == {"1.2", "1.3"}
    assert {str(each.reference) for each in site.state().pins} == {"1.2", "1.3"}


def test_an_operators_pin_stays(tmp_path: Path, clock: Clock) -> None:
    """Neither its platforms are changed, nor is it removed."""
    own = Pin(PLACE, Tag("1.1"), (AMD,))
    pins.add_pin(tmp_path, own)
    library = Library(images("1.1"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    library.tags = {}
    site.poll(EVERY * 1.1)
    assert [pin for pin, _ in pins.iter_pins(tmp_path)] == [own]
    assert site.state().pins == ()


def test_a_removed_rule_unpins_its_images(tmp_path: Path, clock: Clock) -> None:
    """A changed rule, which is another one, takes over those that it wants."""
    library = Library(images("1.1", "1.2"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    site.rules = [evolve(RULE, key="other", tags=("1.2",))]
    library.refusal = Unreachable("down")
    site.poll()
    assert site.pinned == {"1.1", "1.2"}
    library.refusal = None
    site.poll(RETRY)
    assert site.pinned == {"1.2"}
    assert sync_states.read_states(tmp_path).keys() == {"other"}
    site.rules = []
    site.poll()
    assert site.pinned == set()
    assert sync_states.read_states(tmp_path) == {}


def test_an_image_stays_pinned_while_one_of_two_rules_wants_it(tmp_path: Path, clock: Clock) -> None:
    """It is pinned for the platforms of both."""
    narrow = evolve(RULE, key="narrow", tags=("1.1",), platforms=(AMD,), referrers=False)
    index = Library({"1.1": next(d for p, d in Shelf().contents.items() if p.endswith("/latest"))})
    site = Site(tmp_path, index, narrow, evolve(RULE, referrers=False), clock=clock)
    site.poll()
    assert [pin.platforms for pin, _ in pins.iter_pins(tmp_path)] == [()]
    site.rules = [narrow]
    site.poll()
    assert site.pinned == {"1.1"}


def test_an_offline_upstream_is_not_asked(tmp_path: Path, clock: Clock) -> None:
    """Its images stay pinned, since they could not be pulled again."""
    library = Library(images("1.1"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    library.tags, site.rules = images("1.2"), [evolve(RULE, is_offline=True)]
    library.shelf.asked.clear()
    sync_states.request_sync(tmp_path, clock.seconds())
    site.poll(EVERY * 1.1)
    assert (site.pinned, library.shelf.asked) == ({"1.1"}, [])
    site.rules = [RULE]
    site.poll()
    assert site.pinned == {"1.2"}


def test_without_a_list_of_tags_everything_stays(tmp_path: Path, clock: Clock) -> None:
    """The rule is tried again after a while."""
    library = Library(images("1.1"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    library.refusal, library.tags = Unreachable("the upstream is down"), images("1.2")
    site.poll(EVERY * 1.1)
    assert site.pinned == {"1.1"}
    assert (site.state().outcome, site.state().message) == ("failed", "the upstream is down")
    library.refusal = None
    site.poll(RETRY)
    assert site.pinned == {"1.2"}


def test_a_repository_that_is_missing_is_named_and_the_others_are_synced(
    tmp_path: Path, clock: Clock
) -> None:
    """Its images stay pinned; those of the others are unpinned if they match no longer."""
    both = evolve(RULE, repositories=("library/gone", "library/nginx"))
    library = Library(images("1.1", "1.2"), missing={"docker.io/library/gone"})
    site = Site(tmp_path, library, both, clock=clock)
    site.poll()
    state = site.state()
    assert (site.pinned, state.outcome) == ({"1.1", "1.2"}, "failed")
    assert state.message == "docker.io/library/gone: the upstream answered 404"
    assert state.next_run > clock.seconds() + EVERY / 2
    del library.tags["1.1"]
    site.poll(EVERY * 1.1)
    assert site.pinned == {"1.2"}
    library.missing = {"docker.io/library/nginx"}
    site.poll(EVERY * 1.1)
    assert site.pinned == {"1.2"}
    assert site.state().message == "docker.io/library/nginx: the upstream answered 404"


def test_an_image_that_cannot_be_pulled_is_reported(tmp_path: Path, clock: Clock) -> None:
    """The others are pulled, and what no longer matches is unpinned."""
    library = Library({"1.1": b"", "1.2": FOR_AMD})
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert site.pinned == {"1.2"}
    state = site.state()
    assert (state.outcome, state.synced, state.failed) == ("failed", 1, 1)
    assert state.message.startswith("docker.io/library/nginx:1.1: ")
    assert state.next_run - state.ended == EVERY * 1.05


def test_an_image_is_pinned_without_a_signature_that_a_policy_refuses(tmp_path: Path, clock: Clock) -> None:
    signature = f"sha256-{Digest.of(FOR_AMD).hex}.sig"
    library = Library({"1.2": FOR_AMD, signature: SIGNATURE}, denied={signature})
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert site.pinned == {"1.2"}
    assert site.state().outcome == "done"


def test_a_run_pauses_before_the_rate_limit_is_used_up(tmp_path: Path, clock: Clock) -> None:
    """It goes on an hour later, when the upstream tells by HEAD that there is room; nothing is unpinned."""
    library = Library({"1.1": FOR_AMD, "1.2": FOR_ARM})
    library.next_quota = Quota(EPOCH, 100, 20)
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert site.pinned == {"1.1"}
    assert site.state().outcome == "paused"
    assert "left to clients" in site.state().message
    asked = len(library.shelf.asked)
    site.poll(QUOTA_PAUSE)
    assert library.shelf.asked[asked:] == ["HEAD /v2/docker.io/library/nginx/manifests/1.1"]
    library.next_quota = Quota(EPOCH, 100, 99)
    site.poll(QUOTA_PAUSE)
    assert site.pinned == {"1.1", "1.2"}
    assert site.state().outcome == "done"


@pytest.mark.parametrize(
    ("left", "outcome"), [({"team-a": 20, "": 99}, "paused"), ({"team-a": 99, "": 20}, "done")]
)
def test_the_rate_limit_of_an_images_account_counts(
    tmp_path: Path, clock: Clock, left: dict[str, int], outcome: str
) -> None:
    """The upstream is asked for it by HEAD, before the first image of the account."""
    library = Library({"1.1": FOR_AMD})
    library.accounts = {"docker.io/library/nginx": "team-a"}
    library.quotas = {account: Quota(EPOCH, 100, remaining) for account, remaining in left.items()}
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert library.shelf.asked[0] == "HEAD /v2/docker.io/library/nginx/manifests/1.1"
    assert site.state().outcome == outcome
    assert ("of docker, account team-a, is left to clients" in site.state().message) == (outcome == "paused")


def test_a_run_pauses_when_the_rate_limit_is_used_up(tmp_path: Path, clock: Clock) -> None:
    library = Library(images("1.1", "1.2", "1.3"))
    library.limited = {"1.2"}
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert (site.pinned, site.state().outcome) == ({"1.1"}, "paused")
    assert site.state().message == "rate limit exceeded"
    library.limited = set()
    site.poll(QUOTA_PAUSE)
    assert (site.pinned, site.state().outcome) == ({"1.1", "1.2", "1.3"}, "done")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (None, False),
        (Quota(0.0), False),
        (Quota(0.0, 100, 21), False),
        (Quota(0.0, 100, 20), True),
        (Quota(0.0, None, 1), False),
        (Quota(0.0, None, 0), True),
    ],
)
def test_a_fifth_of_the_rate_limit_is_left_to_clients(quota: Quota | None, expected: bool) -> None:
    assert is_quota_low(quota) is expected


def test_a_request_outlives_a_stop(tmp_path: Path, clock: Clock) -> None:
    """The rule that it interrupts is run again after the next start, and those that did not begin, too."""
    other = evolve(RULE, key="other")
    library = Library(images("1.1"))
    site = Site(tmp_path, library, RULE, other, clock=clock)
    site.poll()
    clock.advance(60)
    requested = clock.seconds()

    def stop() -> None:
        raise CancelledError

    library.on_manifest = stop
    sync_states.request_sync(tmp_path, requested)
    clock.advance(POLL)
    site.service.stopService()
    assert (site.state().outcome, site.state("other").outcome) == ("running", "waiting")
    assert not sync_states.is_requested(tmp_path)
    library.on_manifest = tuple
    site = Site(tmp_path, library, RULE, other, clock=clock)
    site.poll()
    for key in ("k", "other"):
        assert (site.state(key).outcome, site.state(key).started > requested) == ("done", True)
    asked = len(library.shelf.asked)
    site.poll(60)
    assert len(library.shelf.asked) == asked


def test_an_interrupted_run_begins_again(tmp_path: Path, clock: Clock) -> None:
    site = Site(tmp_path, Library(images("1.1")), RULE, clock=clock)
    site.service.stopService()
    state = SyncState("k", "n", "running", started=EPOCH, next_run=EPOCH + 10 * EVERY)
    sync_states.write_state(tmp_path, state, EPOCH)
    site = Site(tmp_path, site.library, RULE, clock=clock)
    site.poll()
    assert site.state().outcome == "done"


def test_a_run_that_cannot_pin_has_failed(tmp_path: Path, clock: Clock) -> None:
    """It says why, and is run again after a quarter of an hour."""
    place = tmp_path / layout.PINS
    place.parent.mkdir()
    place.write_text("in the way")
    library = Library(images("1.1"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    path = tmp_path / layout.pin("docker.io/library/nginx:1.1")
    assert (site.state().outcome, site.state().message) == ("failed", f"{path}: Not a directory")
    asked = len(library.shelf.asked)
    clock.pump([POLL] * 10)
    assert len(library.shelf.asked) == asked
    place.unlink()
    site.poll(RETRY)
    assert (site.state().outcome, site.pinned) == ("done", {"1.1"})


@pytest.mark.parametrize("is_requested", [False, True])
def test_a_run_whose_end_cannot_be_written_is_not_repeated_at_once(
    tmp_path: Path, clock: Clock, is_requested: bool
) -> None:
    """It is after a quarter of an hour, or when an operator asks for it."""
    library, temporary = Library(images("1.1")), tmp_path / layout.TEMPORARY

    def block() -> None:
        temporary.rmdir()
        temporary.write_text("in the way")

    library.on_manifest = block
    site = Site(tmp_path, library, RULE, clock=clock)
    clock.advance(POLL)
    library.on_manifest = tuple
    temporary.unlink()
    asked = len(library.shelf.asked)
    clock.pump([POLL] * 10)
    assert (site.state().outcome, len(library.shelf.asked)) == ("running", asked)
    if is_requested:
        sync_states.request_sync(tmp_path, clock.seconds())
    site.poll(0.0 if is_requested else RETRY)
    assert (site.state().outcome, site.pinned) == ("done", {"1.1"})


YEARS = 10 * 365 * 86_400.0


@pytest.mark.parametrize("schedule", [Interval(60.0, 0.1), CronSchedule("0 3 * * *", 0.1)])
@pytest.mark.parametrize(("ahead", "is_run"), [(YEARS, True), (QUOTA_PAUSE - 2 * POLL, False)])
def test_a_rule_that_a_wrong_clock_has_put_off_is_run(
    tmp_path: Path, clock: Clock, schedule: Schedule, ahead: float, is_run: bool
) -> None:
    """A pause for a rate limit may be longer than its interval."""
    state = SyncState("k", "n", "paused", next_run=EPOCH + ahead)
    sync_states.write_state(tmp_path, state, EPOCH)
    site = Site(tmp_path, Library(images("1.1")), evolve(RULE, schedule=schedule), clock=clock)
    site.poll()
    assert (site.state().outcome == "done") is is_run


def test_a_process_whose_clock_was_set_back_runs_its_rules(tmp_path: Path, clock: Clock) -> None:
    library = Library(images("1.1"))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll(YEARS)
    library.tags = images("1.2")
    clock.rightNow = EPOCH
    for call in clock.getDelayedCalls():
        call.reset(0)
    site.poll()
    assert site.pinned == {"1.2"}


def test_one_of_the_processes_runs_a_rule(tmp_path: Path, clock: Clock) -> None:
    sites = [Site(tmp_path, Library(images("1.1")), RULE, clock=clock) for _ in range(2)]
    held = sync_states.lock_sync(tmp_path)
    assert held is not None
    sites[0].poll()
    assert [site.library.shelf.asked for site in sites] == [[], []]
    os.close(held)
    sites[0].poll()
    assert sorted(bool(site.library.shelf.asked) for site in sites) == [False, True]


@pytest.fixture
def pair(tmp_path: Path, clock: Clock) -> tuple[Site, Site]:
    """Two mirrors that share a bucket; the first one has the turn to run the rule."""
    store, threads = MemoryStore(), BucketThreads()
    clock.advance(EVERY - EPOCH % EVERY)
    one, other = (
        Site(
            tmp_path / name, Library(images("1.1")), RULE, clock=clock,
            turns=SyncTurns(bucket(clock, store, threads), clock),
        )
        for name in ("one", "other")
    )  # fmt: skip
    return one, other


def test_one_mirror_of_a_bucket_runs_a_rule(pair: tuple[Site, Site], clock: Clock) -> None:
    """The other one looks again at its next turn; an operator's request is met without a turn."""
    one, other = pair
    one.poll()
    assert (one.state().outcome, other.state().outcome) == ("done", "elsewhere")
    assert (one.pinned, other.pinned) == ({"1.1"}, set())
    sync_states.request_sync(other.root, clock.seconds())
    other.poll()
    assert other.pinned == {"1.1"}
    one.service.stopService()
    other.poll(EVERY * 1.1)
    assert other.state().outcome == "done"


def test_a_mirror_keeps_its_pins_until_another_has_run_the_rule(
    pair: tuple[Site, Site], clock: Clock
) -> None:
    """Then it unpins those that no longer match."""
    one, other = pair
    other.library.tags = images("1.1", "1.2")
    sync_states.request_sync(other.root, clock.seconds())
    one.library.next_quota = Quota(EPOCH, 100, 20)
    one.poll()
    other.poll(EVERY * 1.2)
    assert (one.state().outcome, other.state().outcome) == ("paused", "elsewhere")
    assert other.pinned == {"1.1", "1.2"}
    one.library.next_quota = Quota(EPOCH, 100, 99)
    one.poll(QUOTA_PAUSE)
    assert one.state().outcome == "done"
    other.poll(LOOK)
    assert other.pinned == {"1.1"}
    assert other.state().next_run > clock.seconds() + LOOK


def test_a_mirror_that_pauses_keeps_its_turn(pair: tuple[Site, Site]) -> None:
    one, other = pair
    for each in pair:
        each.library.tags, each.library.next_quota = images("1.1", "1.2"), Quota(EPOCH, 100, 20)
    for _ in range(4):
        one.poll(LOOK)
    assert (one.state().outcome, other.state().outcome) == ("paused", "elsewhere")
    one.poll(LEASE)
    other.poll(LOOK)
    assert (one.state().outcome, other.state().outcome) == ("paused", "elsewhere")


def test_a_run_that_outlasts_its_period_is_the_only_one(pair: tuple[Site, Site], clock: Clock) -> None:
    """It counts for the period in which it ends; the other mirror waits for the next one."""
    one, other = pair
    for each in pair:
        each.library.tags, each.library.next_quota = images("1.1", "1.2"), Quota(EPOCH, 100, 20)
        each.rules = ()
    clock.advance(EVERY - 2 * POLL)
    for each in pair:
        each.rules = (RULE,)
    one.poll()
    one.poll(LOOK)
    assert (one.state().outcome, other.state().outcome) == ("paused", "elsewhere")
    for each in pair:
        each.library.next_quota = Quota(EPOCH, 100, 99)
    one.poll(QUOTA_PAUSE)
    other.poll(LOOK)
    assert (one.state().outcome, other.state().outcome) == ("done", "elsewhere")
    assert other.state().message == "another mirror of the bucket has run it"
    assert other.library.shelf.asked == []


def test_the_turns_of_a_removed_rule_are_deleted(tmp_path: Path, clock: Clock) -> None:
    store = MemoryStore()
    turns = SyncTurns(bucket(clock, store, BucketThreads()), clock)
    site = Site(tmp_path, Library(images("1.1")), RULE, clock=clock, turns=turns)
    site.poll()
    assert len(store.list(str(layout.SYNC_TURNS)).collect()) == 1
    site.rules = []
    site.poll()
    assert store.list(str(layout.SYNC_TURNS)).collect() == []


def test_a_requested_run_goes_on_after_a_pause(pair: tuple[Site, Site], clock: Clock) -> None:
    """It needs no turn, whoever had that."""
    for each in pair:
        each.poll()
        each.library.tags, each.library.next_quota = images("1.1", "1.2"), Quota(EPOCH, 100, 20)
        sync_states.request_sync(each.root, clock.seconds())
        each.poll()
        assert (each.state().outcome, each.pinned) == ("paused", {"1.1"})
    for each in pair:
        each.library.next_quota = Quota(EPOCH, 100, 99)
    one, other = pair
    one.poll(QUOTA_PAUSE)
    assert (one.state().outcome, one.pinned) == ("done", {"1.1", "1.2"})
    assert (other.state().outcome, other.pinned) == ("done", {"1.1", "1.2"})


def test_a_requested_run_that_could_not_list_the_tags_is_tried_again(
    pair: tuple[Site, Site], clock: Clock
) -> None:
    """The turn of the period is the mirror's own, although it is complete."""
    one, _ = pair
    one.poll()
    one.library.refusal, one.library.tags = Unreachable("down"), images("1.2")
    sync_states.request_sync(one.root, clock.seconds())
    one.poll()
    assert one.state().outcome == "failed"
    one.library.refusal = None
    one.poll(RETRY)
    assert (one.state().outcome, one.pinned) == ("done", {"1.2"})


def test_a_mirror_takes_over_the_turn_of_one_that_was_killed(pair: tuple[Site, Site]) -> None:
    one, other = pair
    one.library.refusal = Unreachable("the upstream does not answer")
    one.poll()
    assert (one.state().outcome, other.state().outcome) == ("failed", "elsewhere")
    one.service.stopService()
    other.poll(LEASE - LOOK)
    assert other.state().outcome == "elsewhere"
    other.poll(LOOK)
    assert (other.state().outcome, other.pinned) == ("done", {"1.1"})


def test_while_the_bucket_fails_no_rule_is_run(tmp_path: Path, clock: Clock) -> None:
    threads = BucketThreads()
    threads.down = True
    turns = SyncTurns(bucket(clock, MemoryStore(), threads), clock)
    site = Site(tmp_path, Library(images("1.1")), RULE, clock=clock, turns=turns)
    site.poll()
    assert (site.state().outcome, site.library.shelf.asked) == ("failed", [])
    threads.down = False
    site.poll(RETRY)
    assert site.state().outcome == "done"


def test_a_cron_schedule_sets_the_times(tmp_path: Path, clock: Clock) -> None:
    """A new rule waits for its first time, too, unless an operator asks for it."""
    schedule = CronSchedule("0 3 * * *", 0.1)
    library = Library(images("1.1"))
    site = Site(tmp_path, library, evolve(RULE, schedule=schedule), clock=clock)
    site.poll()
    due = schedule.next_run(EPOCH, 0.5)
    assert (site.state().outcome, site.state().next_run, site.pinned) == ("waiting", due, set())
    site.poll(due - clock.seconds() - POLL)
    assert (site.state().outcome, site.pinned) == ("done", {"1.1"})
    assert site.state().next_run == due + 24 * 3600.0
    library.tags = images("1.2")
    sync_states.request_sync(tmp_path, clock.seconds())
    site.poll()
    assert site.pinned == {"1.2"}
    assert not sync_states.is_requested(tmp_path)


def test_what_stands_is_not_written_again(tmp_path: Path, clock: Clock) -> None:
    """The state is written once for an image that is pinned, and not at all for one that was."""
    library = Library(images("1.1", "1.2", "1.3", "1.4"))
    written: list[object] = []
    path = tmp_path / layout.sync_state("k")
    library.on_manifest = lambda: written.append(files.file_version(path))
    site = Site(tmp_path, library, RULE, clock=clock)
    site.poll()
    assert len(set(written)) == 4
    written.clear()
    site.poll(EVERY * 1.1)
    assert site.state().synced == 4
    assert len(set(written)) == 1


def test_a_mirror_that_waits_needs_no_thread(tmp_path: Path, clock: Clock) -> None:
    """It looks into the states again when one has changed, or when a rule is due."""
    thread, library = CountedThread(), Library(images("1.1"))
    site = Site(tmp_path, library, RULE, clock=clock, in_thread=thread)
    site.poll()
    clock.advance(POLL)
    thread.calls = 0
    clock.pump([POLL] * 10)
    assert thread.calls == 0
    library.tags = images("1.2")
    site.poll(EVERY * 1.1)
    assert site.pinned == {"1.2"}


def test_without_rules_an_idle_process_needs_no_thread(tmp_path: Path, clock: Clock) -> None:
    thread = CountedThread()
    Site(tmp_path, Library({}), clock=clock, in_thread=thread)
    clock.pump([POLL] * 10)
    assert thread.calls == 1
