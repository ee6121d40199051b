"""The upstream down, at its limit, or failing: complete images are served stale."""

from __future__ import annotations

import pytest

from dockmirror.body.bodies import CorruptContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    Denied,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    UpstreamRefusal,
)
from dockmirror.oci.media import OCI_INDEX

from .mirrors import CONFIG, DAY, GRANTED, LAYER, NAME, PRIVATE, STALE, TAG, TTL, Mirror, header
from .origin import Origin, index

OUTAGES = [
    Unreachable(),
    TimedOut(),
    TooManyRequests(retry_after="7"),
    RegistryError(status=500),
    RegistryError(status=503),
    Unavailable("the upstream answered with a web page", upstream_status=200),
]
outages = pytest.mark.parametrize("error", OUTAGES, ids=lambda e: f"{type(e).__name__}-{e.status}")


@outages
@pytest.mark.parametrize("age", [TTL, 2 * DAY, STALE - 1])
def test_it_is_pulled_whole(warm: Mirror, manifest: bytes, error: RegistryError, age: float) -> None:
    """With ``/v2/`` and a token, for a week, before and after a restart."""
    warm.origin.trouble = error
    warm.clock.advance(age)
    for mirror in (warm, warm.restarted()):
        assert mirror.docker(NAME) == [manifest, CONFIG, LAYER]
        assert mirror.pull(NAME, "somebody") == [manifest, CONFIG, LAYER]


def test_one_pull_is_enough(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """A token that was relayed to a client without credentials says nothing: the mirror asks for itself."""
    mirror.docker(NAME)
    assert all(line.startswith("token-1: ") for line in origin.take()[1:] if "HEAD" not in line)
    origin.trouble = Unreachable()
    mirror.clock.advance(GRANTED)
    assert mirror.docker(NAME) == [manifest, CONFIG, LAYER]


@outages
def test_a_stale_answer_has_a_warning(warm: Mirror, manifest: bytes, error: RegistryError) -> None:
    """The warning states the reason, and ``Age`` the age."""
    warm.origin.trouble = error
    warm.clock.advance(TTL)
    for head in (False, True):
        answer = warm.ask(TAG, head=head)
        assert header(answer, "Warning") == f'299 - "served stale: {error}"'
        assert header(answer, "Cache-Status") == "dockmirror; fwd=stale; detail=upstream"
        assert header(answer, "Age") == "60"
        assert answer.body.descriptor.digest == Digest.of(manifest)


def test_an_upstreams_words_stay_out_of_the_warning(warm: Mirror) -> None:
    """They may repeat a secret of the client's."""
    body = b'{"errors": [{"code": "UNAVAILABLE", "message": "no token hunter2"}]}'
    warm.origin.trouble = UpstreamRefusal(503, body).error()
    warm.clock.advance(TTL)
    assert header(warm.ask(TAG), "Warning") == '299 - "served stale: the upstream answered 503 UNAVAILABLE"'


@outages
def test_private_content_is_served_stale_while_a_grant_lasts(
    origin: Origin, warm: Mirror, manifest: bytes, error: RegistryError
) -> None:
    """Only to that client, and by no other path."""
    origin.trouble = error
    assert warm.pull("me/private", "alice") == [manifest, CONFIG, LAYER]
    layer = f"me/private/blobs/{Digest.of(LAYER)}"
    paths = [PRIVATE, layer, f"me/private/manifests/{Digest.of(manifest)}"]
    for path in paths:
        for who in ("bob", None):
            with pytest.raises(type(error)):
                warm.ask(path, who)
    warm.clock.advance(GRANTED)
    for path in paths:
        with pytest.raises(type(error)):
            warm.ask(path, "alice")


@outages
@pytest.mark.parametrize("who", ["mallory", None])
def test_a_guess_is_refused_in_an_outage_too(warm: Mirror, error: RegistryError, who: str | None) -> None:
    """Stored content is not served from a public repository that was never seen to have it."""
    manifest = warm.origin.shelf("me/private").publish(b"another configuration", b"secret")
    warm.pull("me/private", "alice")
    warm.origin.trouble = error
    for path in (f"blobs/{Digest.of(b'secret')}", f"manifests/{Digest.of(manifest)}"):
        for _ in range(2):
            with pytest.raises(type(error)):
                warm.ask(f"{NAME}/{path}", who)


@pytest.mark.parametrize("error", [Unauthorized(), Denied(), RegistryError(status=403), CorruptContent()])
def test_refusals_are_no_outage(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    origin.trouble = error
    warm.clock.advance(TTL)
    with pytest.raises(type(error)) as caught:
        warm.ask(TAG)
    assert caught.value is error


def test_incomplete_images_are_not_served_stale(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """Neither by tag nor, once the circuit is open, by digest: clients turn to another mirror."""
    warm.store.evict(Digest.of(LAYER))
    origin.trouble = Unreachable()
    warm.clock.advance(TTL)
    for path in (TAG, f"{NAME}/manifests/{Digest.of(manifest)}"):
        with pytest.raises(Unreachable):
            warm.ask(path)
    origin.trouble = None
    warm.clock.advance(TTL)
    assert warm.pull(NAME) == [manifest, CONFIG, LAYER]


def test_an_incomplete_image_is_not_served_by_a_fresh_tag(warm: Mirror, manifest: bytes) -> None:
    """Once the circuit is open, clients turn to another mirror."""
    warm.store.evict(Digest.of(LAYER))
    warm.origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        warm.ask("library/other/manifests/latest")
    with pytest.raises(Unreachable):
        warm.ask(TAG)


def test_what_is_whole_elsewhere_is_not_whole_here(origin: Origin, warm: Mirror) -> None:
    """A layer that lies in the store for another repository could not be given from this one."""
    origin.shelf("library/fork").publish(CONFIG, LAYER)
    warm.get("library/fork/manifests/latest")
    origin.trouble = Unreachable()
    warm.clock.advance(TTL)
    with pytest.raises(Unreachable):
        warm.ask("library/fork/manifests/latest")


def test_an_index_is_complete_with_one_platform(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    shelf = origin.shelf(NAME)
    other = shelf.publish(b"other configuration", b"other layer", tag="other")
    data = index(other, manifest)
    shelf.put(data, OCI_INDEX, "all")
    shelf.put(index(other), OCI_INDEX, "others")
    warm.get(f"{NAME}/manifests/other")
    for tag in ("all", "others"):
        warm.get(f"{NAME}/manifests/{tag}")
    origin.trouble = Unreachable()
    warm.clock.advance(TTL)
    assert warm.get(f"{NAME}/manifests/all") == data
    with pytest.raises(Unreachable):
        warm.ask(f"{NAME}/manifests/others")


def test_a_limit_on_fetching_is_an_outage_too(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A HEAD is free and tells that there is something new; if that cannot be had, what is held is served."""
    origin.shelf(NAME).publish(CONFIG, b"new")
    warm.clock.advance(TTL)
    origin.held_up = True
    waiting = [warm.later(TAG, head=head) for head in (False, True)]
    origin.go_on_once()
    origin.troubles["nobody"] = TooManyRequests()
    origin.go_on()
    assert origin.take() == [f"nobody: HEAD {TAG}", f"nobody: GET {TAG}"]
    for (answer,) in waiting:
        assert answer.body.descriptor.digest == Digest.of(manifest)
        assert header(answer, "Warning")


@outages
def test_a_tag_is_not_served_stale_after_a_week(warm: Mirror, error: RegistryError) -> None:
    warm.clock.advance(STALE - DAY)
    warm.get(f"{NAME}/blobs/{Digest.of(LAYER)}")
    warm.clock.advance(DAY)
    warm.origin.trouble = error
    with pytest.raises(type(error)) as caught:
        warm.ask(TAG)
    assert (caught.value.status, caught.value.retry_after) == (error.status, error.retry_after)
    assert warm.get(f"{NAME}/blobs/{Digest.of(LAYER)}") == LAYER


def test_what_was_confirmed_at_a_time_to_come_is_served(origin: Origin, warm: Mirror) -> None:
    """A machine without a clock of its own, which starts in an outage; its age is not negative."""
    warm.clock.rightNow -= 10
    warm.pull("me/private", "alice")
    warm.clock.rightNow -= 10
    warm.get(f"me/private/blobs/{Digest.of(LAYER)}", "alice")
    origin.trouble = Unreachable()
    answer = warm.ask(PRIVATE, "alice")
    assert (bool(header(answer, "Warning")), header(answer, "Age")) == (True, "0")


def test_an_outage_is_not_reported_as_unknown_content(origin: Origin, warm: Mirror) -> None:
    origin.trouble = Unreachable("it cannot be reached")
    for path in ("library/never/manifests/latest", f"{NAME}/blobs/{Digest.of(b'never')}"):
        with pytest.raises(Unreachable) as caught:
            warm.ask(path)
        assert str(caught.value) == "it cannot be reached"
