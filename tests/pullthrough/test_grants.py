"""Stored content is served only after consent: to the same credentials, or, if public, to all clients."""

from __future__ import annotations

from typing import Any

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    RegistryError,
    Unauthorized,
    Unreachable,
)

from .mirrors import CONFIG, DAY, GRANTED, LAYER, TAG, Mirror, header
from .origin import CHALLENGE, EVERYBODY, Origin

DIGEST = Digest.of(LAYER)
BLOB = f"me/private/blobs/{DIGEST}"


def paths(manifest: bytes) -> list[str]:
    return [f"me/private/manifests/{Digest.of(manifest)}", BLOB, f"me/private/blobs/{Digest.of(CONFIG)}"]


def refused(mirror: Mirror, path: str, who: str | None, **details: Any) -> type[RegistryError]:
    with pytest.raises(RegistryError) as caught:
        mirror.ask(path, who, **details)
    return type(caught.value)


def test_a_grant_serves_from_the_cache(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    warm.clock.advance(GRANTED - 1)
    assert [warm.get(path, "alice") for path in paths(manifest)] == [manifest, LAYER, CONFIG]
    assert origin.take() == []


def test_a_grant_ends(origin: Origin, warm: Mirror) -> None:
    """After five minutes, whatever was served meanwhile, the upstream is asked; consent is a new grant."""
    for _ in range(3):
        warm.clock.advance(GRANTED / 3)
        assert warm.get(BLOB, "alice") == LAYER
    assert origin.take() == [f"alice: CHECK {BLOB}"]
    assert warm.get(f"me/private/blobs/{Digest.of(CONFIG)}", "alice") == CONFIG
    assert origin.take() == []


def test_a_grant_ends_with_its_token(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """A token that lives for a minute grants for a minute."""
    origin.token_life = 60
    token = mirror.token("repository:me/private:pull")
    origin.shelf("me/private").readers.add(token)
    mirror.pull("me/private", token)
    origin.take()
    mirror.clock.advance(59)
    assert mirror.get(BLOB, token) == LAYER
    assert origin.take() == []
    origin.shelf("me/private").readers.discard(token)
    mirror.clock.advance(1)
    assert refused(mirror, BLOB, token) is Unauthorized


def test_a_clock_that_is_set_back_draws_out_nothing(origin: Origin, warm: Mirror) -> None:
    """A grant from a time to come is none."""
    warm.clock.rightNow -= 10
    assert warm.get(BLOB, "alice") == LAYER
    assert origin.take() == [f"alice: CHECK {BLOB}"]


def test_the_grant_of_one_is_not_anothers(origin: Origin, warm: Mirror) -> None:
    """The upstream decides with the other's own credentials, and once."""
    assert warm.get(BLOB, "bob") == LAYER
    assert warm.get(f"me/private/blobs/{Digest.of(CONFIG)}", "bob") == CONFIG
    assert origin.take() == [f"bob: CHECK {BLOB}"]


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("who", ["mallory", None])
def test_strangers_are_refused(warm: Mirror, manifest: bytes, who: str | None, head: bool) -> None:
    """The upstream's own challenge is passed on."""
    for path in [*paths(manifest), "me/private/manifests/latest", "me/private/tags/list"]:
        with pytest.raises(Unauthorized) as caught:
            warm.ask(path, who, head=head)
        assert caught.value.challenges == (CHALLENGE,)
    assert all(not line.startswith("alice") for line in warm.origin.take())


@pytest.mark.parametrize("error", [Denied(), Unauthorized(), ManifestUnknown(), RegistryError(status=403)])
def test_a_refusal_is_passed_on_unchanged(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    origin.troubles["bob"] = error
    with pytest.raises(RegistryError) as caught:
        warm.ask(BLOB, "bob")
    assert caught.value is error


@pytest.mark.parametrize("error", [Unauthorized(), Denied(), RegistryError(status=403)])
def test_a_refusal_ends_a_grant(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    """A refusal of a tag ends the grant for the whole repository at once."""
    origin.troubles["alice"] = error
    with pytest.raises(RegistryError):
        warm.ask("me/private/manifests/latest", "alice")
    with pytest.raises(RegistryError):
        warm.ask(BLOB, "alice")
    assert origin.take()[-1] == f"alice: CHECK {BLOB}"


def test_a_refusal_revokes_no_other_grant(origin: Origin, warm: Mirror) -> None:
    refused(warm, "me/private/manifests/latest", "mallory")
    origin.take()
    assert warm.get(BLOB, "alice") == LAYER
    assert origin.take() == []


@pytest.mark.parametrize(
    ("kind", "asked"), [("blobs", ["alice: CHECK"]), ("manifests", ["alice: HEAD", "nobody: HEAD"])]
)
def test_each_repository_needs_its_own_consent(
    origin: Origin, warm: Mirror, manifest: bytes, kind: str, asked: list[str]
) -> None:
    """Content stored for one repository is served from another only if the upstream gives it there."""
    data = LAYER if kind == "blobs" else manifest
    shelf = origin.shelf("me/fork", {"alice"})
    shelf.blobs[DIGEST] = LAYER
    shelf.manifests = origin.shelf("me/private").manifests
    path = f"me/fork/{kind}/{Digest.of(data)}"
    assert warm.get(path, "alice") == data
    assert origin.take() == [f"{each} {path}" for each in asked]
    assert warm.get(path, "alice") == data
    assert origin.take() == []


def test_who_may_pull_elsewhere_must_not_guess(origin: Origin, warm: Mirror) -> None:
    """A grant of one's own repository does not open what another one has."""
    origin.shelf("mallory/own", {"mallory"}).publish(b"c", b"l")
    warm.pull("mallory/own", "mallory")
    for path in (f"mallory/own/blobs/{DIGEST}", f"mallory/own/manifests/{DIGEST}"):
        assert refused(warm, path, "mallory") in (BlobUnknown, ManifestUnknown)
        assert refused(warm, path, "mallory", head=True) in (BlobUnknown, ManifestUnknown)


@pytest.mark.parametrize("who", [None, "mallory"])
def test_a_guess_through_a_public_repository_is_refused(warm: Mirror, who: str | None) -> None:
    """Warm and while it grows, for those with credentials and for those without."""
    warm.origin.shelf("library/other").publish(b"c", b"l")
    warm.pull("library/other", who)
    guess = f"library/other/blobs/{DIGEST}"
    assert refused(warm, guess, who) is BlobUnknown
    warm.store.evict(DIGEST)
    warm.store.downloads.slow = True
    warm.ask(BLOB, "alice")
    assert warm.store.downloads.is_downloading("docker.io", DIGEST)
    assert refused(warm, guess, who) is BlobUnknown
    assert refused(warm, BLOB, who) is Unauthorized


def test_grants_are_of_one_upstream(origin: Origin, warm: Mirror) -> None:
    """Another entry of the same registry shares what is held, and nothing of who may have it."""
    staging = Mirror(Origin(), warm.clock, warm.store, entry="docker-staging")
    with pytest.raises(Unauthorized):
        staging.ask(BLOB, "alice")
    assert staging.origin.take() == [f"alice: CHECK {BLOB}"]


def test_grants_are_forgotten_at_a_restart(origin: Origin, warm: Mirror) -> None:
    assert warm.restarted().get(BLOB, "alice") == LAYER
    assert origin.take() == [f"alice: CHECK {BLOB}"]


def test_made_public_it_is_everybodys(origin: Origin, warm: Mirror) -> None:
    """The upstream's consent to the mirror itself says so."""
    origin.shelf("me/private").readers.add(EVERYBODY)
    assert warm.get(BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {BLOB}"]


PUBLIC_BLOB = f"library/busybox/blobs/{Digest.of(LAYER)}"
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
    assert warm.restarted().get(PUBLIC_BLOB) == warm.get(PUBLIC_BLOB) == LAYER
    assert origin.take() == []
    warm.clock.advance(1)
    assert warm.get(PUBLIC_BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {PUBLIC_BLOB}"]
    warm.clock.advance(PUBLIC - 1)
    assert warm.get(PUBLIC_BLOB) == LAYER
    assert origin.take() == []


@pytest.mark.parametrize("error", [Unauthorized(), Denied(), RegistryError(status=403)])
def test_a_refused_anonymous_request_makes_it_private(
    origin: Origin, warm: Mirror, error: RegistryError
) -> None:
    """At once, for all of its content, and still after a restart."""
    warm.clock.advance(60)
    origin.trouble = error
    with pytest.raises(RegistryError):
        warm.ask(TAG)
    close(origin, "me")
    origin.trouble = None
    for mirror in (warm, warm.restarted()):
        with pytest.raises(Unauthorized):
            mirror.ask(PUBLIC_BLOB)
        with pytest.raises(Unauthorized):
            mirror.ask(PUBLIC_BLOB, "somebody")


def test_a_clients_refusal_says_nothing_of_others(origin: Origin, warm: Mirror) -> None:
    """A bad token, or one for something else, is this client's trouble."""
    warm.clock.advance(60)
    origin.troubles["bad"] = Unauthorized()
    with pytest.raises(Unauthorized):
        warm.ask(TAG, "bad")
    origin.take()
    assert warm.get(PUBLIC_BLOB) == LAYER
    assert origin.take() == []


def test_it_is_public_for_a_week_in_an_outage(origin: Origin, warm: Mirror) -> None:
    origin.trouble = Unreachable()
    warm.clock.advance(PUBLIC_UNASKED - 1)
    assert warm.get(PUBLIC_BLOB) == LAYER
    assert warm.get(PUBLIC_BLOB, "somebody") == LAYER
    warm.clock.advance(1)
    with pytest.raises(Unreachable):
        warm.ask(PUBLIC_BLOB)


@pytest.mark.parametrize("who", [None, "mallory"])
def test_in_an_outage_that_is_over_the_upstream_decides(
    origin: Origin, warm: Mirror, who: str | None
) -> None:
    """Content that was public two days ago is refused, also to a client that reaches its own rate limit."""
    warm.clock.advance(2 * DAY)
    close(origin, "me")
    origin.troubles["mallory"] = RegistryError(status=429)
    for path in (PUBLIC_BLOB, TAG):
        with pytest.raises(RegistryError):
            warm.ask(path, who)


def test_another_process_is_heeded(origin: Origin, warm: Mirror) -> None:
    """Other processes on the same store see within a minute that a repository is not public any more."""
    other = warm.restarted()
    assert other.get(PUBLIC_BLOB) == LAYER
    close(origin, "me")
    warm.clock.advance(60)
    with pytest.raises(Unauthorized):
        warm.ask(TAG)
    warm.clock.advance(READ_AGAIN)
    with pytest.raises(Unauthorized):
        other.ask(PUBLIC_BLOB)


def test_it_is_known_of_one_upstream(origin: Origin, warm: Mirror) -> None:
    """Another entry of the same registry may let in others."""
    staging = Mirror(Origin(), warm.clock, warm.store, entry="docker-staging")
    staging.origin.shelf("library/busybox", {"me"}).publish(CONFIG, LAYER)
    with pytest.raises(Unauthorized):
        staging.ask(PUBLIC_BLOB)


def test_an_upstream_that_trusts_the_address_is_not_public(origin: Origin, warm: Mirror) -> None:
    """Consent is not remembered, and earlier consent is ignored."""
    warm.learns = False
    for _ in range(2):
        assert warm.get(PUBLIC_BLOB) == LAYER
        assert header(warm.ask(PUBLIC_BLOB), "Cache-Control") is None
    assert origin.take() == [f"nobody: CHECK {PUBLIC_BLOB}"] * 4
    warm.clock.advance(DAY)
    warm.pull("library/busybox")
    warm.learns = True
    origin.take()
    warm.get(PUBLIC_BLOB)
    assert origin.take() == [f"nobody: CHECK {PUBLIC_BLOB}"]


def test_there_an_outage_is_no_excuse(origin: Origin, warm: Mirror) -> None:
    """Content that cannot be checked is not served anonymously."""
    warm.learns = False
    origin.trouble = Unreachable()
    for path in (PUBLIC_BLOB, TAG):
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
    assert warm.get(PUBLIC_BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {PUBLIC_BLOB}"]
    close(origin, "me")
    warm.clock.advance(PUBLIC)
    with pytest.raises(Unauthorized):
        warm.ask(PUBLIC_BLOB)


@pytest.mark.parametrize("document", [b"", b"nonsense", b"nan", b"inf", b"-inf", b"\xff", b"1e400"])
def test_a_malformed_document_makes_nothing_public(origin: Origin, warm: Mirror, document: bytes) -> None:
    warm.store.documents.documents["public/docker/library/busybox"] = document
    close(origin, EVERYBODY)
    assert warm.restarted().get(PUBLIC_BLOB) == LAYER
    assert origin.take() == [f"nobody: CHECK {PUBLIC_BLOB}"]


def test_shared_caches_may_keep_public_content(warm: Mirror, manifest: bytes) -> None:
    """Only by digest, and only if it was requested without credentials."""
    for path in (PUBLIC_BLOB, f"library/busybox/manifests/{Digest.of(manifest)}"):
        assert header(warm.ask(path), "Cache-Control") == "public, max-age=31536000, immutable"
        assert header(warm.ask(path, "alice"), "Cache-Control") is None
    assert header(warm.ask(TAG), "Cache-Control") is None
    warm.store.evict(Digest.of(manifest))
    assert header(warm.ask(TAG), "Cache-Control") is None
    warm.clock.advance(PUBLIC)
    assert header(warm.ask(PUBLIC_BLOB), "Cache-Control") == "public, max-age=31536000, immutable"
