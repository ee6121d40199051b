"""Cached lists of tags and referrers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dockmirror.body.bodies import json_body
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import (
    Denied,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from dockmirror.pullthrough.pull_through import LIST_LIMIT

from ..answering import Feed, Pieces, Recorder, watch
from .mirrors import DAY, GRANTED, NAME, PATIENCE, STALE, TTL, Mirror, body, header
from .origin import Origin

TAGS = f"{NAME}/tags/list"
REFERRERS = f"{NAME}/referrers/{Digest.of(b'')}"
lists = pytest.mark.parametrize("path", [TAGS, REFERRERS])


@pytest.fixture(autouse=True)
def warm(origin: Origin, mirror: Mirror) -> None:
    """The lists of a public and a private repository are cached."""
    origin.shelf(NAME).publish(b"c", b"l")
    origin.shelf("me/private", {"alice"}).publish(b"c", b"l")
    for path in (TAGS, REFERRERS):
        mirror.get(path)
    mirror.get("me/private/tags/list", "alice")
    origin.take()


def listed(mirror: Mirror, path: str, who: str | None = None, **details: Any) -> Any:
    return json.loads(mirror.get(path, who, **details))


@lists
def test_a_fresh_list_is_served(origin: Origin, mirror: Mirror, path: str) -> None:
    """With its next page and its age."""
    origin.shelf(NAME).publish(b"c", b"l", tag="new")
    mirror.clock.advance(TTL - 1)
    answer = mirror.ask(path)
    assert (answer.status, answer.next_page) == (200, (("last", "x"),))
    assert (header(answer, "Cache-Status"), header(answer, "Age")) == ("dockmirror; hit", "59")
    assert answer.body.descriptor.media_type == "application/json"
    assert "new" not in body(answer).decode()
    head = mirror.ask(path, head=True)
    assert head.body.descriptor.size == answer.body.descriptor.size
    assert origin.take() == []
    mirror.clock.advance(1)
    assert ("new" in listed(mirror, path).get("tags", ["new"])) is True
    assert origin.take() == [f"nobody: GET {path}"]


@lists
def test_a_fresh_list_is_fetched_again_on_demand(origin: Origin, mirror: Mirror, path: str) -> None:
    mirror.get(path, revalidate=True)
    assert origin.take() == [f"nobody: GET {path}"]


def test_each_query_is_another_list(origin: Origin, mirror: Mirror) -> None:
    """A page is no other page, and filtered referrers are not all of them."""
    queries = [(TAGS, ()), (TAGS, (("n", "1"),)), (TAGS, (("n", "1"), ("last", "a"))),
               (REFERRERS, ()), (REFERRERS, (("artifactType", "a/b"),))]  # fmt: skip
    for path, query in queries:
        for asked in (query, tuple(reversed(query))):
            answer = listed(mirror, path, query=asked)
            assert path == TAGS or answer["query"] == dict(query)
    assert len(origin.take()) == 3


@lists
def test_a_query_of_other_parameters_is_not_remembered(origin: Origin, mirror: Mirror, path: str) -> None:
    """A client cannot fill the cache with copies of one list: unknown parameters are only passed on."""
    before = set(mirror.store.documents.documents)
    queries = [(("x", str(n)),) for n in range(3)] + [
        (("n", "1"), ("n", "2")),
        (("last", "a"), ("page", "b")),
    ]
    for query in queries:
        answer = mirror.ask(path, query=query)
        assert header(answer, "Cache-Status") == "dockmirror; fwd=bypass"
        body(answer)
    assert len(origin.take()) == len(queries)
    assert set(mirror.store.documents.documents) == before


def test_a_private_list_is_requested_each_time(origin: Origin, mirror: Mirror) -> None:
    mirror.get("me/private/tags/list", "alice")
    assert origin.take() == ["alice: GET me/private/tags/list"]
    with pytest.raises(Unauthorized):
        mirror.ask("me/private/tags/list")


@lists
@pytest.mark.parametrize("error", [Unreachable(), TooManyRequests(), RegistryError(status=500)])
def test_a_list_is_served_stale_in_an_outage(mirror: Mirror, path: str, error: RegistryError) -> None:
    """For a week, with a warning; a second request is not sent upstream."""
    mirror.origin.trouble = error
    mirror.clock.advance(2 * DAY)
    for asked in ([f"nobody: GET {path}"], []):
        answer = mirror.ask(path)
        assert header(answer, "Warning") == f'299 - "served stale: {error}"'
        assert header(answer, "Cache-Status") == "dockmirror; fwd=stale; detail=upstream"
        assert answer.next_page == (("last", "x"),)
        assert mirror.origin.take() == asked
    mirror.origin.trouble = None
    mirror.clock.advance(STALE - 3 * DAY)
    mirror.pull(NAME)
    mirror.clock.advance(DAY)
    mirror.origin.trouble = error
    with pytest.raises(type(error)):
        mirror.ask(path)


def test_a_slow_upstream_gets_three_seconds(origin: Origin, mirror: Mirror) -> None:
    """The timeout is short if a cached list may be served to this client."""
    mirror.clock.advance(TTL)
    origin.held_up = True
    known, unknown = mirror.later(TAGS), mirror.later(TAGS, query=(("n", "1"),))
    mirror.clock.advance(PATIENCE)
    assert (len(known), unknown) == (1, [])
    mirror.clock.advance(GRANTED)
    private = mirror.later("me/private/tags/list", "alice")
    mirror.clock.advance(PATIENCE)
    assert private == []


def test_a_private_list_is_served_stale_to_clients_with_a_grant(origin: Origin, mirror: Mirror) -> None:
    origin.trouble = Unreachable()
    assert listed(mirror, "me/private/tags/list", "alice")["tags"] == ["latest"]
    with pytest.raises(Unreachable):
        mirror.ask("me/private/tags/list", "bob")
    mirror.clock.advance(GRANTED)
    with pytest.raises(Unreachable):
        mirror.ask("me/private/tags/list", "alice")


@pytest.mark.parametrize("error", [NameUnknown(), Unauthorized(), Denied()])
def test_a_refusal_is_given_on(origin: Origin, mirror: Mirror, error: RegistryError) -> None:
    """A 404 stays one: clients look for a tag of the digest's name then."""
    mirror.clock.advance(TTL)
    origin.trouble = error
    with pytest.raises(type(error)) as caught:
        mirror.ask(REFERRERS)
    assert caught.value is error


def test_a_list_that_fails_leaves_tags_alone(origin: Origin, mirror: Mirror) -> None:
    """Registries are known that answer referrers with 500 for ever."""
    mirror.pull(NAME)
    mirror.clock.advance(TTL)
    origin.trouble = RegistryError(status=500)
    assert header(mirror.ask(REFERRERS), "Warning")
    origin.trouble = None
    assert header(mirror.ask(f"{NAME}/manifests/latest"), "Warning") is None


DOCUMENTS = [b'["' + b"x" * LIST_LIMIT + b'"]', b'{"tags":["a', b"\xff", b'"\xff"', b"", b"[" * 100_000]


@pytest.mark.parametrize("data", DOCUMENTS, ids=["large", "cut off", "binary", "no UTF-8", "empty", "deep"])
def test_other_documents_are_passed_on(origin: Origin, mirror: Mirror, data: bytes) -> None:
    """A list that is too large, or no complete JSON, is not cached."""
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    origin.says = Answer(Pieces(pieces, Descriptor("application/json")))
    mirror.clock.advance(TTL)
    assert mirror.get(TAGS) == data
    origin.says = None
    assert listed(mirror, TAGS)["tags"] == ["latest"]
    assert len(origin.take()) == 2


def test_one_that_breaks_off_is_not_remembered(origin: Origin, mirror: Mirror) -> None:
    """The client is told, and the next one asks again."""
    feed = Feed(Descriptor("application/json"))
    origin.says = Answer(feed)
    mirror.clock.advance(TTL)
    outcome = watch(mirror.ask(TAGS).body.deliver(Recorder()))
    feed.send(b"[]")
    feed.break_off()
    assert [type(error) for error in outcome] == [Unreachable]
    origin.says = None
    assert listed(mirror, TAGS)["tags"] == ["latest"]


@pytest.mark.parametrize("answer", [Answer(json_body(b"[]"), 304), Answer(json_body(b""))])
def test_what_is_no_body_is_not_remembered(origin: Origin, mirror: Mirror, answer: Answer) -> None:
    """Answers to conditional requests and HEADs are not cached."""
    mirror.clock.advance(TTL)
    origin.says = answer
    assert mirror.ask(TAGS, head=answer.status == 200).status == answer.status
    origin.says = None
    assert listed(mirror, TAGS)["tags"] == ["latest"]


@pytest.mark.parametrize("document", [b"", b"null", b"[]", b"[1,2]", b"{", b'["x",null,null,"[]"]'])
def test_a_malformed_document_is_ignored(origin: Origin, mirror: Mirror, document: bytes) -> None:
    documents = mirror.store.documents.documents
    documents.update({name: document for name in documents if name.startswith("lists/")})
    assert listed(mirror, TAGS)["tags"] == ["latest"]
    assert origin.take() == [f"nobody: GET {TAGS}"]


def test_a_clock_that_was_ahead_remembers_nothing_for_ever(origin: Origin, mirror: Mirror) -> None:
    """A list from a time to come is asked for anew."""
    mirror.clock.rightNow -= 10
    mirror.ask(f"{NAME}/manifests/latest")
    origin.take()
    mirror.get(TAGS)
    assert origin.take() == [f"nobody: GET {TAGS}"]


def test_a_filtered_list_stays_marked_as_filtered(origin: Origin, mirror: Mirror) -> None:
    """Without the header a client takes the list for that of all referrers."""
    applied = ("OCI-Filters-Applied", "artifactType")
    origin.says = Answer(json_body(b"{}"), headers=(applied,), consents=True, upstream_status=200)
    kind = (("artifactType", "a/b"),)
    for status in ("fwd=miss", "hit"):
        answer = mirror.ask(REFERRERS, query=kind)
        assert header(answer, "Cache-Status") == f"dockmirror; {status}"
        assert (body(answer), header(answer, *applied[:1])) == (b"{}", "artifactType")
    assert header(mirror.ask(TAGS), "OCI-Filters-Applied") is None


def test_the_catalog_is_never_remembered(origin: Origin, mirror: Mirror) -> None:
    """It is asked for each time, and nothing stands in for it."""
    for _ in range(2):
        assert header(mirror.ask("_catalog", "alice"), "Cache-Status") == "dockmirror; fwd=bypass"
    assert origin.take() == ["alice: GET _catalog"] * 2
    origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        mirror.ask("_catalog", "alice")
