"""Public repositories: those that the upstream gave to the mirror's own anonymous request."""

from __future__ import annotations

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, RegistryError, Unauthorized, Unreachable

from .mirrors import CONFIG, DAY, LAYER, Mirror, header
from .origin import EVERYBODY, Origin

BLOB = f"library/busybox/blobs/{Digest.of(LAYER)}"
TAG = "library/busybox/manifests/latest"
MARKER = "anonymous"
SCOPE = "repository:library/busybox:pull"
PUBLIC, PUBLIC_UNASKED, READ_AGAIN = DAY, 7 * DAY, 60.0
LEARNED = 3600.0


def close(origin: Origin, *readers: str) -> None:
    """Allow only these clients."""
    origin.shelf("library/busybox").readers = set(readers)


def test_a_client_without_credentials_is_served_by_the_mirrors_own(mirror: Mirror, manifest: bytes) -> None:
    """It asks for itself, and what it is given everybody is given."""
    assert mirror.pull("library/busybox") == [manifest, CONFIG, LAYER]
    assert all(line.startswith("nobody: ") for line in mirror.origin.take())
    assert mirror.pull("library/busybox", "with any token") == [manifest, CONFIG, LAYER]
    assert mirror.origin.take() == []


def test_it_is_public_for_a_day(origin: Origin, warm: Mirror) -> None:
    """Also after a restart; then the upstream is asked again, and its answer holds for another day."""
    warm.clock.advance(PUBLIC - 1)
    assert warm.restarted().get(BLOB) == warm.get(BLOB) == LAYER
    assert origin.take() == []
    warm.clock.advance(1)
    assert warm.get(BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {BLOB}"]
    warm.clock.advance(PUBLIC - 1)
    assert warm.get(BLOB) == LAYER
    assert origin.take() == []


@pytest.mark.parametrize("error", [Unauthorized(), Denied(), RegistryError(status=403)])
def test_it_is_public_no_more_when_the_mirror_is_refused(
    origin: Origin, warm: Mirror, error: RegistryError
) -> None:
    """At once, for everything in it; and still after a restart."""
    warm.clock.advance(60)
    origin.trouble = error
    with pytest.raises(RegistryError):
        warm.ask(TAG)
    close(origin, "me")
    origin.trouble = None
    for mirror in (warm, warm.restarted()):
        with pytest.raises(Unauthorized):
            mirror.ask(BLOB)
        with pytest.raises(Unauthorized):
            mirror.ask(BLOB, "somebody")


def test_a_clients_refusal_says_nothing_of_others(origin: Origin, warm: Mirror) -> None:
    """A bad token, or one for something else, is this client's trouble."""
    warm.clock.advance(60)
    origin.troubles["bad"] = Unauthorized()
    with pytest.raises(Unauthorized):
        warm.ask(TAG, "bad")
    origin.take()
    assert warm.get(BLOB) == LAYER
    assert origin.take() == []


def test_it_is_public_for_a_week_in_an_outage(origin: Origin, warm: Mirror) -> None:
    origin.trouble = Unreachable()
    warm.clock.advance(PUBLIC_UNASKED - 1)
    assert warm.get(BLOB) == LAYER
    assert warm.get(BLOB, "somebody") == LAYER
    warm.clock.advance(1)
    with pytest.raises(Unreachable):
        warm.ask(BLOB)


@pytest.mark.parametrize("who", [None, "mallory"])
def test_in_an_outage_that_is_over_the_upstream_decides(
    origin: Origin, warm: Mirror, who: str | None
) -> None:
    """Content that was public two days ago is refused, also to a client that reaches its own rate limit."""
    warm.clock.advance(2 * DAY)
    close(origin, "me")
    origin.troubles["mallory"] = RegistryError(status=429)
    for path in (BLOB, TAG):
        with pytest.raises(RegistryError):
            warm.ask(path, who)


def test_another_process_is_heeded(origin: Origin, warm: Mirror) -> None:
    """Other processes on the same store see within a minute that a repository is not public any more."""
    other = warm.restarted()
    assert other.get(BLOB) == LAYER
    close(origin, "me")
    warm.clock.advance(60)
    with pytest.raises(Unauthorized):
        warm.ask(TAG)
    warm.clock.advance(READ_AGAIN)
    with pytest.raises(Unauthorized):
        other.ask(BLOB)


def test_it_is_known_of_one_upstream(origin: Origin, warm: Mirror) -> None:
    """Another entry of the same registry may let in others."""
    staging = Mirror(Origin(), warm.clock, warm.store, entry="docker-staging")
    staging.origin.shelf("library/busybox", {"me"}).publish(CONFIG, LAYER)
    with pytest.raises(Unauthorized):
        staging.ask(BLOB)


def test_nothing_is_public_that_is_given_to_the_mirrors_address(origin: Origin, warm: Mirror) -> None:
    """Neither learnt nor, if it was learnt before, believed: each hit is asked for."""
    warm.learns = False
    for _ in range(2):
        assert warm.get(BLOB) == LAYER
        assert header(warm.ask(BLOB), "Cache-Control") is None
    assert origin.take() == [f"nobody: CHECK {BLOB}"] * 4
    warm.clock.advance(DAY)
    warm.pull("library/busybox")
    warm.learns = True
    origin.take()
    warm.get(BLOB)
    assert origin.take() == [f"nobody: CHECK {BLOB}"]


def test_there_an_outage_is_no_excuse(origin: Origin, warm: Mirror) -> None:
    """Content that cannot be checked is not served anonymously."""
    warm.learns = False
    origin.trouble = Unreachable()
    for path in (BLOB, TAG):
        with pytest.raises(Unreachable):
            warm.ask(path)


def test_a_pull_with_credentials_leads_to_a_question(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """A client's token is opaque: the mirror asks for itself whether everybody is given it, once an hour."""
    mirror.get(TAG, "alice")
    assert origin.take() == [f"alice: GET {TAG}", f"nobody: HEAD {TAG}"]
    assert mirror.token(SCOPE) == MARKER
    origin.shelf("me/private", {"alice"})
    origin.shelf("me/private").publish(CONFIG, LAYER)
    origin.take()
    for _ in range(4):
        mirror.pull("me/private", "alice")
        mirror.clock.advance(LEARNED / 4)
    assert sum(line.startswith("nobody") for line in origin.take()) == 1
    mirror.pull("me/private", "alice")
    assert sum(line.startswith("nobody") for line in origin.take()) == 1
    with pytest.raises(Unauthorized):
        mirror.ask("me/private/manifests/latest")


def test_the_anonymous_check_is_repeated_after_an_outage(mirror: Mirror, manifest: bytes) -> None:
    mirror.origin.troubles["nobody"] = RegistryError(status=429, retry_after="10")
    mirror.get(TAG, "alice")
    del mirror.origin.troubles["nobody"]
    mirror.clock.advance(10)
    mirror.origin.take()
    mirror.get(TAG, "alice")
    assert f"nobody: HEAD {TAG}" in mirror.origin.take()


def test_that_question_keeps_nobody_waiting(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """It is asked behind the client's back, and not at all where nothing is learnt."""
    mirror.learns = False
    mirror.get(TAG, "alice")
    assert origin.take() == [f"alice: GET {TAG}"]


def test_a_clock_that_was_ahead_makes_nothing_public_for_ever(origin: Origin, warm: Mirror) -> None:
    """A confirmation from a time to come counts for nothing, and is replaced."""
    warm.clock.rightNow -= DAY
    assert warm.get(BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {BLOB}"]
    close(origin, "me")
    warm.clock.advance(PUBLIC)
    with pytest.raises(Unauthorized):
        warm.ask(BLOB)


@pytest.mark.parametrize("document", [b"", b"nonsense", b"nan", b"inf", b"-inf", b"\xff", b"1e400"])
def test_a_malformed_document_makes_nothing_public(origin: Origin, warm: Mirror, document: bytes) -> None:
    warm.store.documents.documents["public/docker/library/busybox"] = document
    close(origin, EVERYBODY)
    assert warm.restarted().get(BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {BLOB}"]


def test_public_content_may_be_kept_by_others(warm: Mirror, manifest: bytes) -> None:
    """By its digest for good, where it was given to one without credentials; by its tag not."""
    for path in (BLOB, f"library/busybox/manifests/{Digest.of(manifest)}"):
        assert header(warm.ask(path), "Cache-Control") == "public, max-age=31536000, immutable"
        assert header(warm.ask(path, "alice"), "Cache-Control") is None
    assert header(warm.ask(TAG), "Cache-Control") is None
    warm.store.evict(Digest.of(manifest))
    assert header(warm.ask(TAG), "Cache-Control") is None
    warm.clock.advance(PUBLIC)
    assert header(warm.ask(BLOB), "Cache-Control") == "public, max-age=31536000, immutable"
