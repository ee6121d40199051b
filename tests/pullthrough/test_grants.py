"""Stored content is served only to clients to whom the upstream gave it."""

from __future__ import annotations

from typing import Any

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, RegistryError, Unauthorized

from .mirrors import CONFIG, GRANTED, LAYER, Mirror
from .origin import CHALLENGE, EVERYBODY, Origin

DIGEST = Digest.of(LAYER)
BLOB = f"me/private/blobs/{DIGEST}"


def paths(manifest: bytes) -> list[str]:
    return [f"me/private/manifests/{Digest.of(manifest)}", BLOB, f"me/private/blobs/{Digest.of(CONFIG)}"]


def refused(mirror: Mirror, path: str, who: str | None, **details: Any) -> type[RegistryError]:
    with pytest.raises(RegistryError) as caught:
        mirror.ask(path, who, **details)
    return type(caught.value)


def test_who_was_given_it_is_given_it_again(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """Without a question, as long as the upstream's consent is fresh."""
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
    """Whatever they ask for, with wrong credentials or with none, by the upstream's own challenge."""
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
