"""An upstream at several addresses: who is asked for what, and who is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.body.bodies import BytesBody, CorruptContent, json_body
from dockmirror.concurrency.backoff import FIRST, RequestCircuitBreaker
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.middleware.blob_fetch import ResumingRegistry
from dockmirror.middleware.failover import (
    Failover,
    FallbackMirror,
    UpstreamFailover,
    UpstreamFallback,
    can_use_fallback,
    share_of_timeout,
)
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from dockmirror.oci.header_fields import ContentRange, Hop, Range
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.oci.token import Credentials, TokenRequest
from dockmirror.pullthrough.authorization import GrantCache, PublicRepositories
from dockmirror.pullthrough.upstream_gateway import TIMEOUT_WITH_STALE, UpstreamGateway
from dockmirror.system.request_context import current_hops

from ..answering import FakeRegistry, Pieces, Recorder, now, watch
from ..store.memory import MemoryDocuments

DATA = random.Random(3).randbytes(40)
DIGEST = Digest.of(DATA)
USER = Credentials.basic("alice", "s3cret")
OUTAGES = [Unreachable("down"), TimedOut("late"), Unavailable("useless"), TooManyRequests("enough")]
REFUSALS = [
    Unauthorized("who?"),
    Denied("no"),
    ManifestUnknown("none"),
    BlobUnknown("none"),
    CorruptContent("wrong"),
]
MAKES: list[Callable[..., IRegistry]] = [
    lambda registries, clock: Failover(registries, clock),
    lambda registries, clock: FallbackMirror(registries[0], registries[1:], clock),
]
each_make = pytest.mark.parametrize("make", MAKES, ids=["replicas", "elsewhere"])
each_outage = pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)


def asked(path: str, credentials: Credentials | None = None) -> RegistryRequest:
    return RegistryRequest(parse_target(f"/v2/{path}".encode()), credentials=credentials)


BLOB = asked(f"library/nginx/blobs/{DIGEST}")
BY_DIGEST = [BLOB, asked(f"library/nginx/manifests/{DIGEST}"), evolve(BLOB, head=True)]
ITS_OWN = [
    *(asked(path) for path in ("", "_catalog", "a/manifests/latest", "a/tags/list", f"a/referrers/{DIGEST}")),
    *(evolve(request, credentials=USER) for request in BY_DIGEST),
]
each_own = pytest.mark.parametrize("request_", ITS_OWN, ids=str)


def giving(text: bytes) -> Answer:
    return Answer(BytesBody(text, Descriptor(size=len(text))))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@each_make
@pytest.mark.parametrize("request_", BY_DIGEST)
def test_the_first_address_is_asked_first(
    make: Callable[..., IRegistry], clock: Clock, request_: RegistryRequest
) -> None:
    first, second = FakeRegistry(giving(b"1")), FakeRegistry(giving(b"2"))
    answer = now(make([first, second], clock).fetch(request_))
    assert (answer.body.descriptor.size, answer.from_other_host) == (1, False)
    assert (first.requests, second.requests) == ([request_], [])


@implementer(IRegistry)
class HopRegistry:
    """A registry that notes which mirrors its requests have passed, and never answers."""

    def __init__(self) -> None:
        self.hops: list[tuple[Hop, ...]] = []

    async def fetch(self, _: RegistryRequest) -> Answer:
        self.hops.append(current_hops.get())
        return await Deferred()


@each_make
def test_each_address_is_told_which_mirrors_the_request_has_passed(
    make: Callable[..., IRegistry], clock: Clock
) -> None:
    """Also one that is asked because another one is silent."""
    hop, registries = Hop("a" * 32, ""), (HopRegistry(), HopRegistry())

    async def ask() -> Answer:
        current_hops.set((hop,))
        return await make(registries, clock).fetch(BLOB)

    asking = Deferred.fromCoroutine(ask())
    clock.advance(share_of_timeout(2))
    assert [each.hops for each in registries] == [[(hop,)], [(hop,)]]
    asking.addErrback(lambda failure: failure.trap(CancelledError))
    asking.cancel()


@each_outage
@each_make
@pytest.mark.parametrize("request_", BY_DIGEST)
def test_a_request_that_fails_goes_to_the_next_address(
    make: Callable[..., IRegistry], clock: Clock, request_: RegistryRequest, outage: RegistryError
) -> None:
    """Answers of a fallback are marked, as they do not decide who may have what else."""
    registries = FakeRegistry(outage), FakeRegistry(outage), FakeRegistry(giving(b"333"))
    registry = make(registries, clock)
    answer = now(registry.fetch(request_))
    assert (answer.body.descriptor.size, answer.from_other_host) == (3, isinstance(registry, FallbackMirror))
    assert [registry.requests for registry in registries] == [[request_]] * 3


@each_make
@pytest.mark.parametrize("request_", BY_DIGEST)
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_refusal_is_final(
    make: Callable[..., IRegistry], clock: Clock, request_: RegistryRequest, refusal: RegistryError
) -> None:
    second = FakeRegistry(giving(b"2"))
    with pytest.raises(type(refusal)):
        now(make([FakeRegistry(refusal), second], clock).fetch(request_))
    assert second.requests == []


@each_own
@each_outage
def test_replicas_are_asked_for_anything_and_fallbacks_for_digests(
    clock: Clock, request_: RegistryRequest, outage: RegistryError
) -> None:
    """Fallbacks are never asked for tags, and never with credentials; requests are passed on unchanged."""
    first, other = FakeRegistry(outage), FakeRegistry(giving(b"2"))
    assert can_use_fallback(request_) is None
    with pytest.raises(type(outage)):
        now(FallbackMirror(first, [other], clock).fetch(request_))
    assert (first.requests, other.requests) == ([request_], [])
    answer = now(Failover([first, other], clock).fetch(request_))
    assert (answer.body.descriptor.size, answer.from_other_host) == (1, False)
    assert other.requests == [request_]


@pytest.mark.parametrize("refusal", [*REFUSALS, *OUTAGES], ids=lambda error: type(error).__name__)
@each_outage
def test_a_refusal_of_a_fallback_means_nothing(
    clock: Clock, outage: RegistryError, refusal: RegistryError
) -> None:
    """The registry's own failure is raised, also during its pause."""
    first = FakeRegistry(outage)
    registry = FallbackMirror(first, [FakeRegistry(refusal)], clock)
    for _ in range(2):
        with pytest.raises(type(outage)) as raised:
            now(registry.fetch(BLOB))
        assert str(raised.value) == str(outage)


@pytest.mark.parametrize("second", [Unreachable("2"), ManifestUnknown("2")])
def test_the_error_of_a_replica(clock: Clock, second: RegistryError) -> None:
    """A replica's refusal is final; if all fail, the first one's error is raised."""
    registry = Failover([FakeRegistry(Unavailable("1")), FakeRegistry(second)], clock)
    with pytest.raises(RegistryError, match="2" if isinstance(second, ManifestUnknown) else "1"):
        now(registry.fetch(BY_DIGEST[1]))


@each_outage
@each_make
def test_a_failed_address_is_skipped_for_a_while(
    make: Callable[..., IRegistry], clock: Clock, outage: RegistryError
) -> None:
    """The next requests do not wait for it."""
    first = FakeRegistry(outage)
    registry = make([first, FakeRegistry(giving(b"2"))], clock)
    for seconds, times in ((0, 1), (FIRST - 0.1, 1), (60.1, 2)):
        clock.advance(seconds)
        now(registry.fetch(BY_DIGEST[1]))
        assert len(first.requests) == times


@each_make
def test_an_address_that_answers_again_is_first_again(make: Callable[..., IRegistry], clock: Clock) -> None:
    first, second = FakeRegistry(Unreachable(), giving(b"1")), FakeRegistry(giving(b"22"))
    registry = make([first, second], clock)
    sizes = []
    for _ in range(3):
        sizes.append(now(registry.fetch(BLOB)).body.descriptor.size)
        clock.advance(FIRST)
    assert sizes == [2, 1, 1]


@each_make
def test_a_refusal_ends_a_pause(make: Callable[..., IRegistry], clock: Clock) -> None:
    """An address that refuses is reachable: after its next failure the pause is short."""
    first = FakeRegistry(Unreachable(), ManifestUnknown(), Unreachable(), giving(b"1"))
    registry = make([first, FakeRegistry(giving(b"22"))], clock)
    now(registry.fetch(BY_DIGEST[1]))
    clock.advance(FIRST)
    with pytest.raises(ManifestUnknown):
        now(registry.fetch(BY_DIGEST[1]))
    now(registry.fetch(BY_DIGEST[1]))
    clock.advance(FIRST)
    assert now(registry.fetch(BY_DIGEST[1])).body.descriptor.size == 1


@each_make
def test_no_address_is_asked_while_all_pause(make: Callable[..., IRegistry], clock: Clock) -> None:
    registries = FakeRegistry(Unreachable("1")), FakeRegistry(Unreachable("2"))
    registry = make(registries, clock)
    for _ in range(3):
        with pytest.raises(Unreachable, match="1"):
            now(registry.fetch(BY_DIGEST[1]))
    assert [len(each.requests) for each in registries] == [1, 1]


SHARE = share_of_timeout(2)


def begin(registry: IRegistry) -> tuple[Deferred[Answer], list[Answer | BaseException]]:
    """Begin a request, and return it with the list that will have its outcome."""
    asking = Deferred.fromCoroutine(registry.fetch(BLOB))
    return asking, watch(asking)


def sizes(outcome: list[Answer | BaseException]) -> list[object]:
    return [each.body.descriptor.size if isinstance(each, Answer) else type(each) for each in outcome]


@each_make
@pytest.mark.parametrize("addresses", [2, 3, 5])
def test_all_addresses_are_asked_before_stored_content_is_served(
    make: Callable[..., IRegistry], clock: Clock, addresses: int
) -> None:
    """The others are silent, and then cancelled; the next request does not wait for them."""
    silent = [FakeRegistry(Deferred()) for _ in range(addresses - 1)]
    last = FakeRegistry(giving(b"22"))
    registry = make([*silent, last], clock)
    _, outcome = begin(registry)
    for _ in silent:
        assert not outcome
        clock.advance(share_of_timeout(addresses))
    assert sizes(outcome) == [2]
    assert clock.seconds() < TIMEOUT_WITH_STALE
    assert now(registry.fetch(BLOB)).body.descriptor.size == 2
    assert [len(each.requests) for each in (*silent, last)] == [1] * len(silent) + [2]
    assert clock.getDelayedCalls() == []


@each_make
@pytest.mark.parametrize("seconds", [SHARE - 0.1, SHARE])
def test_a_slow_address_may_answer_before_the_next_one(
    make: Callable[..., IRegistry], clock: Clock, seconds: float
) -> None:
    """The next one, if it was asked meanwhile, is cancelled, which does not count against it."""
    late: Deferred[Answer] = Deferred()
    cancelled: list[object] = []
    first = FakeRegistry(late, Unreachable())
    second = FakeRegistry(Deferred(cancelled.append), giving(b"22"))
    registry = make([first, second], clock)
    _, outcome = begin(registry)
    clock.advance(seconds)
    late.callback(giving(b"1"))
    assert sizes(outcome) == [1]
    assert len(cancelled) == len(second.requests) == (seconds == SHARE)
    assert clock.getDelayedCalls() == []


@each_make
def test_an_answer_that_comes_too_late_is_discarded(make: Callable[..., IRegistry], clock: Clock) -> None:
    body = Pieces([])
    late: Deferred[Answer] = Deferred(lambda cancelled: cancelled.callback(Answer(body)))
    _, outcome = begin(make([FakeRegistry(late), FakeRegistry(giving(b"22"))], clock))
    clock.advance(SHARE)
    assert sizes(outcome) == [2]
    assert body.discarded


@each_make
def test_a_silent_address_is_waited_for_if_the_next_one_fails(
    make: Callable[..., IRegistry], clock: Clock
) -> None:
    """If it fails at last, its error is raised."""
    silent: Deferred[Answer] = Deferred()
    registry = make([FakeRegistry(silent), FakeRegistry(Unreachable("2"))], clock)
    _, outcome = begin(registry)
    clock.advance(60)
    assert not outcome
    silent.errback(TimedOut("1"))
    assert [str(each) for each in outcome] == [str(TimedOut("1"))]


@each_make
def test_an_address_that_fails_late_is_not_retried(make: Callable[..., IRegistry], clock: Clock) -> None:
    """The one that was asked after it may still answer."""
    first, second = Deferred[Answer](), Deferred[Answer]()
    _, outcome = begin(make([FakeRegistry(first), FakeRegistry(second)], clock))
    clock.advance(SHARE)
    first.errback(Unreachable())
    assert not outcome
    second.callback(giving(b"22"))
    assert sizes(outcome) == [2]


@each_make
def test_a_client_that_leaves_soon_proves_nothing(make: Callable[..., IRegistry], clock: Clock) -> None:
    """An address counts as slow only if it was silent for its share of the time."""
    cancelled: list[object] = []
    first = FakeRegistry(Deferred(cancelled.append), giving(b"1"))
    registry = make([first, FakeRegistry(giving(b"22"))], clock)
    asking, outcome = begin(registry)
    clock.advance(SHARE - 0.1)
    asking.cancel()
    assert sizes(outcome) == [CancelledError]
    assert len(cancelled) == 1
    assert clock.getDelayedCalls() == []
    assert now(registry.fetch(BLOB)).body.descriptor.size == 1


def test_a_silent_first_address_does_not_open_the_circuit_of_the_upstream(clock: Clock) -> None:
    """While stored content could be served, a replica's answer comes within the short timeout."""
    first, second = FakeRegistry(Deferred(), Deferred()), FakeRegistry(giving(b"22"))
    registry = UpstreamFailover([first, second], clock)
    public = PublicRepositories(lambda _: "hub", MemoryDocuments(), clock, lambda _: True)
    breaker = RequestCircuitBreaker(clock)
    gateway = UpstreamGateway(registry, registry, GrantCache(clock), public, breaker, clock)
    tag = asked("a/manifests/latest")
    for _ in range(2):
        outcome = watch(gateway.fetch(tag, have_stale=True))
        clock.advance(TIMEOUT_WITH_STALE)
        assert sizes(outcome) == [2]
        assert gateway.open_circuit(tag) is None
        clock.advance(600)


class Tokens(FakeRegistry):
    """A registry whose token service fails, or gives this."""

    def __init__(self, given: bytes | RegistryError, *answers: Answer | RegistryError) -> None:
        super().__init__(*answers)
        self.given = given

    async def token(self, request: TokenRequest) -> Answer:
        self.token_requests.append(request)
        if isinstance(self.given, RegistryError):
            raise self.given
        return Answer(json_body(self.given))


def test_a_token_comes_from_an_address_that_answers(clock: Clock) -> None:
    """A replica's own service is asked if the first, or its service, is down."""
    request = TokenRequest(credentials=USER)
    first, second = Tokens(b"{1}", Unreachable()), Tokens(b"{22}", giving(b"2"))
    registry = UpstreamFailover([first, second], clock)
    assert now(registry.token(request)).body.descriptor.size == 3
    now(registry.fetch(asked("a/manifests/latest", USER)))
    assert now(registry.token(request)).body.descriptor.size == 4
    assert (first.token_requests, second.token_requests) == ([request], [request])
    clock.advance(FIRST)
    first.given = Unavailable()
    assert now(registry.token(request)).body.descriptor.size == 4


def test_a_refused_login_is_not_retried_elsewhere(clock: Clock) -> None:
    """A password goes to one replica, unless that is down."""
    second = Tokens(b"{}")
    with pytest.raises(Unauthorized):
        now(UpstreamFailover([Tokens(Unauthorized()), second], clock).token(TokenRequest(credentials=USER)))
    assert second.token_requests == []


def test_fallbacks_are_not_asked_for_tokens(clock: Clock) -> None:
    """A client's login is for the registry itself."""
    other = Tokens(b"{}")
    with pytest.raises(Unreachable):
        now(UpstreamFallback(Tokens(Unreachable()), [other], clock).token(TokenRequest(credentials=USER)))
    assert other.token_requests == []


@each_make
def test_the_rest_of_a_blob_may_come_from_the_next_address(
    make: Callable[..., IRegistry], clock: Clock
) -> None:
    """The blob is right, or it is cut off."""
    beginning = Answer(Pieces([DATA[:7]], Descriptor(size=40), Unreachable()))
    for rest, expected in ((DATA[7:], [None]), (b"x" * 33, [CorruptContent])):
        first = FakeRegistry(beginning, Unreachable())
        second = FakeRegistry(Answer(Pieces([rest]), 206, ContentRange(7, 39, 40)))
        recorder = Recorder()
        answer = now(ResumingRegistry(make([first, second], clock), clock).fetch(BLOB))
        outcome = watch(answer.body.deliver(recorder))
        clock.advance(0)
        assert [None if each is None else type(each) for each in outcome] == expected
        assert recorder.data == (DATA if expected == [None] else b"")
        assert second.requests == [evolve(BLOB, range=Range.starting_at(7))]
