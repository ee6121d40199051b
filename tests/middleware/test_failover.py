"""An upstream at several addresses: who is asked for what, and who is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import BytesBody, json_body
from dockmirror.body.verified import CorruptContent
from dockmirror.concurrency.circuit_breaker import FIRST
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.middleware.failover import SLOW, Failover, FallbackMirror, can_use_fallback
from dockmirror.middleware.resuming_registry import ResumingRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
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
from dockmirror.oci.ranges import ContentRange, Range
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.oci.token import TokenRequest

from ..answering import FakeRegistry, Pieces, Recorder, now, watch

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
    """A request for what stands below ``/v2/``."""
    return RegistryRequest(parse_target(f"/v2/{path}".encode()), credentials=credentials)


BLOB = asked(f"library/nginx/blobs/{DIGEST}")
BY_DIGEST = [BLOB, asked(f"library/nginx/manifests/{DIGEST}"), evolve(BLOB, head=True)]
ITS_OWN = [
    *(asked(path) for path in ("", "_catalog", "a/manifests/latest", "a/tags/list", f"a/referrers/{DIGEST}")),
    *(evolve(request, credentials=USER) for request in BY_DIGEST),
]
each_own = pytest.mark.parametrize("request_", ITS_OWN, ids=str)


def giving(text: bytes) -> Answer:
    """An answer."""
    return Answer(BytesBody(text, Descriptor(size=len(text))))


@pytest.fixture
def clock() -> Clock:
    """By which those that have failed rest."""
    return Clock()


@each_make
def test_it_is_a_registry(make: Callable[..., IRegistry], clock: Clock) -> None:
    """In front of several."""
    assert verifyObject(IRegistry, make([FakeRegistry(), FakeRegistry()], clock))


@each_make
@pytest.mark.parametrize("request_", BY_DIGEST)
def test_the_first_is_asked_first(
    make: Callable[..., IRegistry], clock: Clock, request_: RegistryRequest
) -> None:
    """And nobody else, while it answers."""
    first, second = FakeRegistry(giving(b"1")), FakeRegistry(giving(b"2"))
    answer = now(make([first, second], clock).fetch(request_))
    assert (answer.body.descriptor.size, answer.from_other_host) == (1, False)
    assert (first.requests, second.requests) == ([request_], [])


@each_outage
@each_make
@pytest.mark.parametrize("request_", BY_DIGEST)
def test_what_it_cannot_answer_is_asked_of_the_next(
    make: Callable[..., IRegistry], clock: Clock, request_: RegistryRequest, outage: RegistryError
) -> None:
    """And of the one after that."""
    registries = FakeRegistry(outage), FakeRegistry(outage), FakeRegistry(giving(b"333"))
    answer = now(make(registries, clock).fetch(request_))
    assert answer.body.descriptor.size == 3
    assert [registry.requests for registry in registries] == [[request_]] * 3


@each_make
@pytest.mark.parametrize("request_", BY_DIGEST)
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_its_refusal_counts(
    make: Callable[..., IRegistry], clock: Clock, request_: RegistryRequest, refusal: RegistryError
) -> None:
    """It has answered."""
    second = FakeRegistry(giving(b"2"))
    with pytest.raises(type(refusal)):
        now(make([FakeRegistry(refusal), second], clock).fetch(request_))
    assert second.requests == []


@each_own
@each_outage
def test_others_are_asked_for_contents_only(
    clock: Clock, request_: RegistryRequest, outage: RegistryError
) -> None:
    """Not what a tag names, and nothing with credentials."""
    first, other = FakeRegistry(outage), FakeRegistry(giving(b"2"))
    assert can_use_fallback(request_) is None
    with pytest.raises(type(outage)):
        now(FallbackMirror(first, [other], clock).fetch(request_))
    assert (first.requests, other.requests) == ([request_], [])


@each_own
@each_outage
def test_replicas_are_asked_for_everything(
    clock: Clock, request_: RegistryRequest, outage: RegistryError
) -> None:
    """As it was asked."""
    first, second = FakeRegistry(outage), FakeRegistry(giving(b"2"))
    answer = now(Failover([first, second], clock).fetch(request_))
    assert (answer.body.descriptor.size, answer.from_other_host) == (1, False)
    assert second.requests == [request_]


def test_what_another_gives_is_told(clock: Clock) -> None:
    """It says nothing of who may have what else."""
    assert now(
        FallbackMirror(FakeRegistry(Unreachable()), [FakeRegistry(giving(b"2"))], clock).fetch(BLOB)
    ).from_other_host


@pytest.mark.parametrize("refusal", [*REFUSALS, *OUTAGES], ids=lambda error: type(error).__name__)
@each_outage
def test_what_another_does_not_give_says_nothing(
    clock: Clock, outage: RegistryError, refusal: RegistryError
) -> None:
    """That the registry itself could not answer stays true; while it rests, too."""
    first = FakeRegistry(outage)
    registry = FallbackMirror(first, [FakeRegistry(refusal)], clock)
    for _ in range(2):
        with pytest.raises(type(outage)) as raised:
            now(registry.fetch(BLOB))
        assert str(raised.value) == str(outage)


def test_where_all_fail_the_first_says_why(clock: Clock) -> None:
    """Of replicas."""
    registry = Failover([FakeRegistry(Unavailable("1")), FakeRegistry(Unreachable("2"))], clock)
    with pytest.raises(Unavailable, match="1"):
        now(registry.fetch(BLOB))


def test_a_replicas_refusal_counts(clock: Clock) -> None:
    """It is the same registry."""
    registry = Failover([FakeRegistry(Unreachable()), FakeRegistry(ManifestUnknown())], clock)
    with pytest.raises(ManifestUnknown):
        now(registry.fetch(BY_DIGEST[1]))


@each_outage
@each_make
def test_one_that_has_failed_rests(
    make: Callable[..., IRegistry], clock: Clock, outage: RegistryError
) -> None:
    """The next requests do not wait for it; after a while it is asked again."""
    first = FakeRegistry(outage)
    registry = make([first, FakeRegistry(giving(b"2"))], clock)
    for seconds, times in ((0, 1), (FIRST - 0.1, 1), (60.1, 2)):
        clock.advance(seconds)
        now(registry.fetch(BY_DIGEST[1]))
        assert len(first.requests) == times


@each_make
def test_one_that_answers_again_is_the_first_again(make: Callable[..., IRegistry], clock: Clock) -> None:
    """After its rest."""
    first, second = FakeRegistry(Unreachable(), giving(b"1")), FakeRegistry(giving(b"22"))
    registry = make([first, second], clock)
    sizes = []
    for _ in range(3):
        sizes.append(now(registry.fetch(BLOB)).body.descriptor.size)
        clock.advance(FIRST)
    assert sizes == [2, 1, 1]


@each_make
def test_a_refusal_ends_a_rest(make: Callable[..., IRegistry], clock: Clock) -> None:
    """One that says no can be reached: when it fails again, its rest is a short one."""
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
def test_while_all_rest_nobody_is_asked(make: Callable[..., IRegistry], clock: Clock) -> None:
    """Where none could be connected to."""
    registries = FakeRegistry(Unreachable("1")), FakeRegistry(Unreachable("2"))
    registry = make(registries, clock)
    for _ in range(3):
        with pytest.raises(Unreachable, match="1"):
            now(registry.fetch(BY_DIGEST[1]))
    assert [len(each.requests) for each in registries] == [1, 1]


@each_make
def test_one_that_was_given_up_was_too_slow(make: Callable[..., IRegistry], clock: Clock) -> None:
    """Who asks next is not kept waiting by it; one who left at once says nothing of it."""
    first = FakeRegistry(Deferred(), Deferred(), Deferred())
    registry = make([first, FakeRegistry(giving(b"2"))], clock)
    for seconds in (SLOW - 1, SLOW):
        leaving = Deferred.fromCoroutine(registry.fetch(BY_DIGEST[1]))
        outcome = watch(leaving)
        clock.advance(seconds)
        leaving.cancel()
        assert [type(error) for error in outcome] == [CancelledError]
    assert now(registry.fetch(BY_DIGEST[1])).body.descriptor.size == 1
    assert len(first.requests) == 2


class Tokens(FakeRegistry):
    """A registry whose token service has failed, or gives this."""

    def __init__(self, given: bytes | RegistryError, *answers: Answer | RegistryError) -> None:
        super().__init__(*answers)
        self.given = given

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        self.token_requests.append(request)
        if isinstance(self.given, RegistryError):
            raise self.given
        return Answer(json_body(self.given))


def test_a_token_is_of_the_registry_that_can_be_asked(clock: Clock) -> None:
    """A replica's own service is asked where the first, or its service, cannot be."""
    request = TokenRequest(credentials=USER)
    first, second = Tokens(b"{1}", Unreachable()), Tokens(b"{22}", giving(b"2"))
    registry = Failover([first, second], clock)
    assert now(registry.token(request)).body.descriptor.size == 3
    now(registry.fetch(asked("a/manifests/latest", USER)))
    assert now(registry.token(request)).body.descriptor.size == 4
    assert (first.token_requests, second.token_requests) == ([request], [request])
    clock.advance(FIRST)
    first.given = Unavailable()
    assert now(registry.token(request)).body.descriptor.size == 4


def test_a_refused_login_is_refused(clock: Clock) -> None:
    """A password goes to one replica, unless that cannot answer."""
    second = Tokens(b"{}")
    with pytest.raises(Unauthorized):
        now(Failover([Tokens(Unauthorized()), second], clock).token(TokenRequest(credentials=USER)))
    assert second.token_requests == []


def test_others_are_not_asked_for_tokens(clock: Clock) -> None:
    """A client's login is for the registry itself."""
    other = Tokens(b"{}")
    with pytest.raises(Unreachable):
        now(FallbackMirror(Tokens(Unreachable()), [other], clock).token(TokenRequest(credentials=USER)))
    assert other.token_requests == []


@each_make
def test_the_rest_of_a_blob_may_come_from_the_next(make: Callable[..., IRegistry], clock: Clock) -> None:
    """Where the first breaks off and cannot be asked any more; the whole is right, or is cut off."""
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
