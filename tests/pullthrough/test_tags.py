"""Tags: served while fresh, then confirmed by a HEAD, fetched if they have moved, forgotten if deleted."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    Denied,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    Unauthorized,
    Unreachable,
)
from dockmirror.oci.header_fields import format_etag
from dockmirror.oci.media import EVERYTHING
from dockmirror.oci.request import RegistryRequest, Tag
from dockmirror.pullthrough.manifest_store import HEAD_TTL

from ..answering import watch
from .mirrors import CONFIG, DAY, LAYER, NAME, PRIVATE, TAG, TTL, Mirror, body, header
from .origin import Origin, repository


def moved(origin: Origin) -> bytes:
    """Move the tag to a new manifest."""
    return origin.shelf(NAME).publish(CONFIG, b"a new layer")


def test_a_fresh_tag_is_served(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A public tag is served by GET and HEAD with its age, although it has moved."""
    moved(origin)
    warm.clock.advance(TTL - 1)
    answer = warm.ask(TAG)
    assert body(answer) == manifest
    assert (header(answer, "Age"), header(answer, "Cache-Status")) == ("59", "dockmirror; hit")
    assert warm.ask(TAG, head=True).body.descriptor.digest == Digest.of(manifest)
    assert origin.take() == []


def test_a_fresh_tag_is_confirmed_on_demand(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    newest = moved(origin)
    assert warm.get(TAG) == manifest
    assert warm.get(TAG, revalidate=True) == newest
    assert warm.get(TAG) == newest


def test_a_stale_tag_is_confirmed_by_a_head(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """It is conditional and accepts all types; then the tag is fresh again."""
    warm.clock.advance(TTL)
    answer = warm.ask(TAG)
    (asked,) = origin.asked
    assert (str(asked), asked.request.accept) == (f"nobody: HEAD {TAG}", EVERYTHING)
    assert asked.request.if_none_match == format_etag(Digest.of(manifest))
    assert (body(answer), header(answer, "Age")) == (manifest, "0")
    assert header(answer, "Cache-Status") == "dockmirror; fwd=stale; detail=confirmed"
    origin.take()
    warm.clock.advance(TTL - 1)
    assert warm.get(TAG) == manifest
    assert origin.take() == []


def test_an_upstream_may_know_no_conditions(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A HEAD that tells the digest says the same; one that does not leads to a GET."""
    shelf = origin.shelf(NAME)
    shelf.conditional = False
    warm.clock.advance(TTL)
    assert warm.get(TAG) == manifest
    assert origin.take() == [f"nobody: HEAD {TAG}"]
    shelf.tells = False
    warm.clock.advance(TTL)
    assert warm.get(TAG) == manifest
    assert origin.take() == [f"nobody: HEAD {TAG}", f"nobody: GET {TAG}"]


def test_removed_while_it_is_confirmed(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A manifest that is removed meanwhile is fetched and kept anew, not answered and forgotten."""
    warm.clock.advance(TTL)
    origin.held_up = True
    outcome = warm.later(TAG)
    warm.store.contents.links.clear()
    warm.store.contents.held.clear()
    origin.go_on()
    (answer,) = outcome
    assert (body(answer), header(answer, "Cache-Status")) == (manifest, "dockmirror; fwd=miss; stored")
    assert origin.take() == [f"nobody: HEAD {TAG}", f"nobody: GET {TAG}"]
    assert warm.store.contents.held == {Digest.of(manifest): manifest}


@pytest.mark.parametrize("head", [False, True])
def test_what_is_new_is_fetched(origin: Origin, warm: Mirror, head: bool) -> None:
    """Once, also for a HEAD, as the client requests the manifest next; the tag names it from then on."""
    new = moved(origin)
    warm.clock.advance(TTL)
    answer = warm.ask(TAG, head=head)
    assert (body(answer), header(answer, "Cache-Status")) == (
        b"" if head else new,
        "dockmirror; fwd=miss; stored",
    )
    assert answer.body.descriptor.digest == Digest.of(new)
    assert origin.take() == [f"nobody: HEAD {TAG}", f"nobody: GET {TAG}"]
    assert warm.get(TAG) == warm.get(f"{NAME}/manifests/{Digest.of(new)}") == new
    assert origin.take() == []


def test_what_it_named_before_is_not_fetched(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A tag that is set back costs a HEAD: the manifest is held."""
    moved(origin)
    warm.clock.advance(TTL)
    warm.get(TAG)
    origin.shelf(NAME).tags["latest"] = Digest.of(manifest)
    warm.clock.advance(TTL)
    origin.take()
    answer = warm.ask(TAG)
    assert (body(answer), header(answer, "Age")) == (manifest, "0")
    assert warm.get(TAG) == manifest
    assert origin.take() == [f"nobody: HEAD {TAG}"]


def test_many_share_one_head(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """Conditional or not; and what it costs if one of them leaves is nothing."""
    warm.clock.advance(TTL)
    origin.held_up = True
    requests = [
        warm.request(TAG, if_none_match=value) for value in (None, '"x"', format_etag(Digest.of(manifest)))
    ]
    leaving = now_or_later(warm, requests[0])
    waiting = [watch(warm.registry.fetch(request)) for request in [*requests, *requests]]
    leaving.cancel()
    origin.go_on()
    assert origin.take() == [f"nobody: HEAD {TAG}"]
    assert [answer.status for (answer,) in waiting if isinstance(answer, Answer)] == [200, 200, 304] * 2


def now_or_later(mirror: Mirror, request: RegistryRequest) -> Deferred[Answer]:
    asking = Deferred.fromCoroutine(mirror.registry.fetch(request))
    watch(asking)
    return asking


def test_concurrent_requests_share_one_fetch(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Each set of credentials has its own."""
    origin.held_up = True
    waiting = [mirror.later(TAG, who) for who in (None, "x", None, "x")]
    origin.go_on()
    assert origin.take()[:2] == [f"nobody: GET {TAG}", f"x: GET {TAG}"]
    assert [body(answer) for (answer,) in waiting if isinstance(answer, Answer)] == [manifest] * 4


def test_a_client_may_have_it_already(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Cold or warm: 304, without a body; cold it is kept all the same."""
    for _ in range(2):
        answer = mirror.ask(TAG, if_none_match=format_etag(Digest.of(manifest)))
        assert (answer.status, body(answer)) == (304, b"")
        assert answer.body.descriptor.digest == Digest.of(manifest)
    assert origin.take() == [f"nobody: GET {TAG}"]


def test_a_private_tag_is_confirmed_each_time(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    for who in ("alice", "alice", "bob"):
        assert warm.get(PRIVATE, who) == manifest
        assert origin.take()[:1] == [f"{who}: HEAD {PRIVATE}"]
    with pytest.raises(Unauthorized):
        warm.ask(PRIVATE, "mallory")


def test_without_a_ttl_every_request_is_confirmed(origin: Origin, manifest: bytes) -> None:
    mirror = Mirror(origin, tag_ttl=0)
    mirror.pull(NAME)
    origin.take()
    assert mirror.get(TAG) == manifest
    assert origin.take() == [f"nobody: HEAD {TAG}"]


def test_a_clock_that_was_ahead_makes_no_tag_last(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """One that was confirmed at a time to come is confirmed anew."""
    warm.clock.rightNow -= 10
    mirror = warm.restarted()
    mirror.get(f"{NAME}/tags/list")
    origin.take()
    answer = mirror.ask(TAG)
    assert (body(answer), header(answer, "Age")) == (manifest, "0")
    assert origin.take() == [f"nobody: HEAD {TAG}"]


def test_a_pull_by_head_and_digest_stores_the_tag(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """As docker and containerd pull: they can pull again during an outage."""
    mirror.pull(NAME)
    origin.trouble = Unreachable()
    mirror.clock.advance(DAY)
    assert mirror.pull(NAME)[0] == manifest


def test_several_tags_may_be_asked_for_before_their_manifest(mirror: Mirror, manifest: bytes) -> None:
    """All of them are known then, the one that it is fetched by, too."""
    tags = [Tag("1"), Tag("1.36"), Tag("latest")]
    for tag in tags:
        mirror.origin.shelf(NAME).tags[str(tag)] = Digest.of(manifest)
    for tag in tags[:2]:
        mirror.ask(f"{NAME}/manifests/{tag}", head=True)
    mirror.get(TAG)
    for tag in tags:
        named = mirror.store.tags.tags[repository(NAME), tag]
        assert (named.digest, named.confirmed) == (Digest.of(manifest), mirror.clock.seconds())


def test_what_a_head_told_long_ago_does_not_count(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """A request for the digest an hour later confirms no tag."""
    mirror.ask(TAG, head=True)
    mirror.clock.advance(3600)
    mirror.get(f"{NAME}/manifests/{Digest.of(manifest)}")
    assert mirror.store.tags.tags == {}


def test_the_latest_head_counts(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Also if another client still requests the old digest."""
    mirror.ask(TAG, head=True)
    new = moved(origin)
    mirror.ask(TAG, head=True)
    for data in (new, manifest):
        assert mirror.get(f"{NAME}/manifests/{Digest.of(data)}") == data
    assert mirror.get(TAG) == new


def test_a_head_of_another_tag_makes_none_last(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Each tag that a HEAD reported expires by itself."""
    origin.shelf(NAME).tags["stable"] = origin.shelf(NAME).tags["latest"]
    mirror.ask(TAG, head=True)
    new = moved(origin)
    for _ in range(3):
        mirror.clock.advance(HEAD_TTL - 1)
        mirror.ask(f"{NAME}/manifests/stable", head=True)
    assert mirror.get(f"{NAME}/manifests/{Digest.of(manifest)}") == manifest
    assert mirror.get(TAG) == new


def test_a_head_of_a_stored_manifest_confirms_the_tag(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    origin.shelf("library/fork").publish(CONFIG, LAYER)
    warm.ask("library/fork/manifests/latest", head=True)
    origin.take()
    assert warm.get("library/fork/manifests/latest") == manifest
    assert origin.take() == []


@pytest.mark.parametrize("error", [ManifestUnknown(), NameUnknown()])
def test_a_tag_that_vanished_is_forgotten(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    """The 404 is given on; later failures are not answered with what was there."""
    warm.clock.advance(TTL)
    origin.trouble = error
    with pytest.raises(type(error)):
        warm.ask(TAG)
    origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        warm.ask(TAG)


def test_strangers_cannot_purge(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A 404 of a private repository counts only for authorized clients."""
    for who in ("mallory", None):
        origin.troubles[who or "nobody"] = ManifestUnknown()
        with pytest.raises(ManifestUnknown):
            warm.ask(PRIVATE, who)
    assert warm.get(PRIVATE, "alice") == manifest
    assert origin.take()[-1] == f"alice: HEAD {PRIVATE}"
    origin.troubles["alice"] = ManifestUnknown()
    with pytest.raises(ManifestUnknown):
        warm.ask(PRIVATE, "alice")
    del origin.troubles["alice"]
    warm.get(PRIVATE, "alice")
    assert f"alice: GET {PRIVATE}" in origin.take()


def test_what_vanished_may_be_kept(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """``keep_deleted_upstream`` serves the whole image with a warning to authorized clients."""
    keeping = warm.restarted(keep_deleted_upstream=True)
    for age in (TTL, 2 * DAY, 6 * DAY):
        origin.trouble = None
        keeping.get(f"{NAME}/blobs/{Digest.of(LAYER)}")
        keeping.clock.advance(age)
        origin.trouble = ManifestUnknown("no such manifest")
        origin.take()
        answer = keeping.ask(TAG)
        assert origin.take() == [f"nobody: HEAD {TAG}"]
        assert body(answer) == manifest
        assert header(answer, "Warning") == '299 - "served stale: no such manifest"'
        assert keeping.pull(NAME) == keeping.pull(NAME, "somebody") == [manifest, CONFIG, LAYER]
    origin.trouble = None
    origin.troubles["mallory"] = Denied(status=404)
    with pytest.raises(Denied):
        keeping.ask(PRIVATE, "mallory")
