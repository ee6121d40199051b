"""Timeouts of requests upstream: short if stored content can be served instead."""

from __future__ import annotations

import pytest

from dockmirror.oci.digest import Digest

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


def test_what_is_too_old_has_time_too(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """It would not be served."""
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
