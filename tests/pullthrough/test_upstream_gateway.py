"""Requests to the upstream: circuit breakers after a failure, and short timeouts if the cache can answer."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.concurrency.backoff import FIRST
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import (
    ManifestUnknown,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from dockmirror.oci.media import OCI_MANIFEST

from ..answering import Feed, watch
from .mirrors import (
    CONFIG,
    DAY,
    GRANTED,
    LAYER,
    NAME,
    PATIENCE,
    PRIVATE,
    STALE,
    TAG,
    TTL,
    Mirror,
    body,
    header,
)
from .origin import Origin

OTHER = "library/alpine/manifests/latest"
NEW = "library/new/manifests/latest"


@pytest.fixture
def expired(origin: Origin, mirror: Mirror, manifest: bytes) -> Mirror:
    """A mirror that has pulled two images, whose tags are not fresh any more."""
    for name in ("library/alpine", "library/new"):
        origin.shelf(name).publish(CONFIG, LAYER)
    mirror.docker(NAME)
    mirror.docker("library/alpine")
    mirror.clock.advance(TTL)
    origin.take()
    return mirror


@pytest.mark.parametrize("error", [Unreachable(), TimedOut(), TooManyRequests(), RegistryError(status=502)])
def test_a_second_stale_answer_asks_nobody(expired: Mirror, manifest: bytes, error: RegistryError) -> None:
    """It is there at once, with the same warning."""
    expired.origin.trouble = error
    first = expired.ask(TAG)
    assert expired.origin.take() == [f"nobody: HEAD {TAG}"]
    second = expired.ask(TAG)
    assert expired.origin.take() == []
    assert body(first) == body(second) == manifest
    assert header(first, "Warning") == header(second, "Warning")


def test_a_slow_upstream_opens_the_circuit(expired: Mirror, manifest: bytes) -> None:
    """Other stored images are served at once, too."""
    expired.origin.held_up = True
    expired.later(TAG)
    expired.clock.advance(PATIENCE)
    expired.origin.take()
    assert expired.get(TAG) == expired.get(OTHER) == manifest
    assert expired.origin.take() == []


def test_the_upstream_is_asked_again_after_a_pause(origin: Origin, expired: Mirror, manifest: bytes) -> None:
    """The pause grows with each failure, and is reset by an answer."""
    origin.trouble = Unreachable()
    for length in (FIRST, 2 * FIRST, 4 * FIRST):
        expired.get(TAG)
        assert origin.take() == [f"nobody: HEAD {TAG}"]
        expired.clock.advance(length - 1)
        expired.get(OTHER)
        assert origin.take() == []
        expired.clock.advance(1)
    origin.trouble = None
    answer = expired.ask(TAG)
    assert header(answer, "Warning") is None
    origin.trouble = Unreachable()
    for _ in range(2):
        origin.take()
        expired.get(OTHER)
        assert origin.take() == [f"nobody: HEAD {OTHER}"]
        expired.clock.advance(FIRST)


def test_any_answer_ends_the_rest(origin: Origin, expired: Mirror, manifest: bytes) -> None:
    """One to what was asked before it began."""
    origin.held_up = True
    waiting = expired.later(NEW)
    origin.held_up, origin.trouble = False, Unreachable()
    assert header(expired.ask(TAG), "Warning")
    origin.trouble = None
    origin.go_on()
    assert len(waiting) == 1
    assert header(expired.ask(TAG), "Warning") is None


def test_an_unreachable_upstream_is_not_asked(origin: Origin, expired: Mirror) -> None:
    """Requests for missing content fail at once."""
    origin.trouble = Unreachable("it cannot be reached")
    expired.get(TAG)
    origin.take()
    for path in (NEW, f"library/new/blobs/{Digest.of(b'x')}", "library/new/tags/list", "_catalog"):
        with pytest.raises(Unreachable, match="it cannot be reached"):
            expired.ask(path, "alice")
    assert origin.take() == []


def test_a_failing_repository_does_not_affect_others(
    origin: Origin, expired: Mirror, manifest: bytes
) -> None:
    origin.shelf(NAME).broken = RegistryError(status=500)
    assert header(expired.ask(TAG), "Warning")
    assert header(expired.ask(OTHER), "Warning") is None
    assert expired.get(NEW) == manifest


def test_a_rate_limit_applies_to_one_client(origin: Origin, expired: Mirror, manifest: bytes) -> None:
    origin.troubles = {"alice": TooManyRequests(), "nobody": TooManyRequests()}
    for who in ("alice", None):
        with pytest.raises(TooManyRequests):
            expired.ask(NEW, who)
    origin.take()
    for who in ("alice", None):
        with pytest.raises(TooManyRequests):
            expired.ask(NEW, who)
        assert header(expired.ask(TAG, who), "Warning")
    assert origin.take() == []
    assert expired.get(NEW, "bob") == manifest
    assert header(expired.ask(TAG, "bob"), "Warning") is None


def test_a_rate_limit_is_passed_on_with_its_duration(origin: Origin, mirror: Mirror) -> None:
    origin.trouble = TooManyRequests(retry_after="30")
    for _ in range(2):
        with pytest.raises(TooManyRequests) as caught:
            mirror.ask(TAG)
        assert caught.value.retry_after == "30"
    assert len(origin.take()) == 1


@pytest.mark.parametrize("error", [Unauthorized(), ManifestUnknown()])
def test_a_refusal_resets_the_pause(
    origin: Origin, expired: Mirror, manifest: bytes, error: RegistryError
) -> None:
    origin.trouble = Unreachable()
    expired.get(TAG)
    expired.clock.advance(FIRST)
    origin.trouble = error
    with pytest.raises(type(error)):
        expired.ask(NEW)
    origin.trouble = Unreachable()
    expired.get(OTHER)
    expired.clock.advance(FIRST)
    origin.take()
    expired.get(OTHER)
    assert origin.take() == [f"nobody: HEAD {OTHER}"]


def test_a_client_that_leaves_is_asked_for_no_more(origin: Origin, mirror: Mirror) -> None:
    """A list that nobody waits for is not waited for; nothing is noted of it as failed."""
    origin.shelf(NAME).publish(CONFIG, LAYER)
    origin.held_up = True
    asking = Deferred.fromCoroutine(mirror.registry.fetch(mirror.request(f"{NAME}/tags/list")))
    outcome = watch(asking)
    asking.cancel()
    assert [type(error) for error in outcome] == [CancelledError]
    origin.go_on()
    assert mirror.ask(f"{NAME}/tags/list").status == 200


def test_an_answer_is_discarded_if_the_client_leaves(origin: Origin, mirror: Mirror) -> None:
    feed = Feed(Descriptor(OCI_MANIFEST))
    origin.says = Answer(feed, consents=True)
    mirror.store.faults.stalled = True
    asking = Deferred.fromCoroutine(mirror.registry.fetch(mirror.request(f"{NAME}/tags/list")))
    outcome = watch(asking)
    assert outcome == []
    asking.cancel()
    assert [type(error) for error in outcome] == [CancelledError]
    assert feed.state == "discarded"


LIST = f"{NAME}/tags/list"


def test_a_slow_upstream_gets_three_seconds(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """Then the stored manifest is served stale."""
    warm.clock.advance(TTL)
    origin.held_up = True
    waiting = warm.later(TAG)
    warm.clock.advance(PATIENCE - 0.1)
    assert waiting == []
    warm.clock.advance(0.1)
    (answer,) = waiting
    assert body(answer) == manifest
    assert header(answer, "Warning") == '299 - "served stale: the upstream did not answer within 3 s"'


@pytest.mark.parametrize("evicted", [True, False])
def test_a_slow_fetch_gets_three_seconds_too(warm: Mirror, manifest: bytes, evicted: bool) -> None:
    """After a HEAD that reported a new manifest; not if the stored image is incomplete."""
    new = warm.origin.shelf(NAME).publish(CONFIG, b"new")
    if evicted:
        warm.store.evict(Digest.of(LAYER))
    warm.clock.advance(TTL)
    warm.origin.held_up = True
    waiting = warm.later(TAG)
    warm.origin.go_on_once()
    warm.clock.advance(PATIENCE)
    assert len(waiting) == (not evicted)
    warm.origin.go_on()
    (answer,) = waiting
    assert (body(answer), bool(header(answer, "Warning"))) == (new if evicted else manifest, not evicted)


def test_a_slow_check_gets_three_seconds_too(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """For content that was public recently; a check for private content has no such timeout."""
    warm.clock.advance(2 * DAY)
    origin.held_up = True
    paths = [f"blobs/{Digest.of(LAYER)}", f"manifests/{Digest.of(manifest)}"]
    known = [warm.later(f"{NAME}/{path}") for path in paths]
    unknown = [warm.later(f"me/private/{path}", "alice") for path in paths]
    warm.clock.advance(PATIENCE)
    assert [body(answer) for (answer,) in known] == [LAYER, manifest]
    assert unknown == [[], []]


def test_a_check_of_what_is_held_for_others_has_time(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """The store cannot answer for a repository that is not known to have it."""
    origin.shelf("library/fork").publish(CONFIG, LAYER)
    warm.get("library/fork/tags/list")
    origin.held_up = True
    paths = [f"blobs/{Digest.of(LAYER)}", f"manifests/{Digest.of(manifest)}"]
    waiting = [warm.later(f"library/fork/{path}") for path in paths]
    warm.clock.advance(30)
    assert waiting == [[], []]
    origin.go_on()
    assert [body(answer) for (answer,) in waiting] == [LAYER, manifest]
    assert all(line.startswith("nobody: ") for line in origin.take()[1:])


@pytest.mark.parametrize(
    ("path", "who"), [(PRIVATE, "bob"), (PRIVATE, None), ("library/new/manifests/latest", None)]
)
def test_where_it_cannot_answer_the_upstream_has_time(warm: Mirror, path: str, who: str | None) -> None:
    """The content may not be for this client, or is not stored."""
    warm.origin.shelf("library/new").publish(CONFIG, LAYER)
    warm.origin.shelf("me/private").readers |= {"bob", "nobody"}
    warm.clock.advance(GRANTED)
    warm.origin.held_up = True
    waiting = warm.later(path, who)
    warm.clock.advance(30)
    assert waiting == []
    warm.origin.go_on()
    assert [type(answer).__name__ for answer in waiting] == ["Answer"]


def test_there_is_no_short_timeout_for_expired_content(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    warm.get(LIST)
    warm.clock.advance(STALE - DAY)
    warm.get(f"{NAME}/blobs/{Digest.of(CONFIG)}")
    warm.clock.advance(DAY)
    origin.held_up = True
    waiting = [warm.later(TAG), warm.later(LIST)]
    warm.clock.advance(30)
    assert waiting == [[], []]
    origin.go_on()
    assert body(waiting[0][0]) == manifest
