"""Content discovery: tags and referrers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.integration.parts.images import Image, artifact, image, referrers
from tests.integration.parts.media import OCI
from tests.integration.parts.plain import Response

from .asked import Asked, code

pytestmark = pytest.mark.integration

NOTES = "application/vnd.example.notes"
TAGS = ("a", "b", "c", "d", "v1.0")
no_referrers = pytest.mark.lacks("distribution", "2.8 has no referrers")
no_pages = pytest.mark.lacks("distribution", "2.8 lists all tags at once")


def _tags(answer: Response) -> list[str]:
    assert answer.status == 200
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    found: list[str] = json.loads(answer.body)["tags"]
    return found


def _push_tags(registry: Asked) -> None:
    registry.push(image(registry.seed("tags")), *reversed(TAGS))


def test_tags(registry: Asked) -> None:
    """All tags of the repository are listed."""
    _push_tags(registry)
    listed = registry.ask("GET", "tags/list")
    assert set(_tags(listed)) == set(TAGS)
    assert json.loads(listed.body)["name"] == registry.repository


@pytest.mark.lacks("distribution", "2.8 lists tags as the directory does")
def test_order_of_tags(registry: Asked) -> None:
    """Tags are listed in lexical order."""
    _push_tags(registry)
    assert _tags(registry.ask("GET", "tags/list")) == list(TAGS)


@no_pages
def test_parts_of_the_list(registry: Asked) -> None:
    """A list has as many tags as requested, after a given one, which need not exist."""
    _push_tags(registry)
    lists = {"n=2": ["a", "b"], "last=c": ["d", "v1.0"], "n=1&last=bb": ["c"], "n=5&last=z": [], "n=0": []}
    for query, tags in lists.items():
        listed = registry.ask("GET", f"tags/list?{query}")
        assert _tags(listed) == tags
    assert "Link" not in listed.headers


@no_pages
def test_pages(registry: Asked) -> None:
    """Each page leads to the next, to the end, on the same host."""
    _push_tags(registry)
    found, path = [], "tags/list?n=2"
    for _ in range(3):
        page = registry.ask("GET", path)
        found.append(_tags(page))
        if link := page.headers["Link"]:
            match = re.fullmatch(r'<(.*)>; rel="?next"?', link)
            assert match, link
            page.headers["Location"] = match[1]
            path = registry.location(page)
    assert found == [["a", "b"], ["c", "d"], ["v1.0"]]


def test_tags_of_nobody(registry: Asked) -> None:
    """A repository that is not there has no tags."""
    refused = registry.ask("GET", f"/v2/{registry.repository}/nobodys/tags/list")
    assert (refused.status, code(refused)) == (404, "NAME_UNKNOWN")


def test_tag_listed_at_once(registry: Asked) -> None:
    """A list that was asked for has what was pushed since."""
    pushed = image(registry.seed("listed"))
    for count in range(1, 4):
        registry.push(pushed, f"t{count}")
        listed = registry.ask("GET", "tags/list")
        assert set(_tags(listed)) == {f"t{each}" for each in range(1, count + 1)}


def _referring(registry: Asked, digest: str, query: str = "") -> list[dict[str, Any]]:
    answer = registry.ask("GET", f"referrers/{digest}{query}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == OCI.index
    found: list[dict[str, Any]] = json.loads(answer.body)["manifests"]
    return found


def _subject(registry: Asked) -> Image:
    subject = image(registry.seed("subject"), OCI)
    registry.push(subject, "latest")
    return subject


@no_referrers
def test_no_referrers(registry: Asked) -> None:
    """A manifest without referrers has an empty list."""
    assert _referring(registry, _subject(registry).digest) == []
    assert _referring(registry, f"sha256:{'0' * 64}") == []


@no_referrers
def test_subject(registry: Asked) -> None:
    """A client that pushes a manifest with a subject learns that the registry knows subjects."""
    subject = _subject(registry)
    note = artifact(registry.seed("note"), subject)
    registry.push(note)
    put = registry.put(note.manifest, note.digest)
    assert put.headers["OCI-Subject"] == subject.digest


@no_referrers
def test_referrers(registry: Asked) -> None:
    """Manifests with this subject are listed as soon as they are pushed."""
    subject = _subject(registry)
    pushed: list[Image] = []
    for number in range(3):
        assert len(_referring(registry, subject.digest)) == number
        pushed.append(artifact(registry.seed(f"note {number}"), subject))
        registry.push(pushed[-1])
    found = _referring(registry, subject.digest)
    assert {each["digest"] for each in found} == {each.digest for each in pushed}
    assert {each["size"] for each in found} == {len(each.manifest.data) for each in pushed}
    assert {each["artifactType"] for each in found} == {NOTES}


@no_referrers
def test_filter(registry: Asked) -> None:
    """Referrers are filtered by type on request."""
    subject = _subject(registry)
    registry.push(artifact(registry.seed("filtered"), subject))
    answer = registry.ask("GET", f"referrers/{subject.digest}?artifactType={NOTES}")
    assert answer.status == 200
    assert len(json.loads(answer.body)["manifests"]) == 1
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert _referring(registry, subject.digest, "?artifactType=application/vnd.example.other") == []


@no_referrers
def test_subject_comes_later(registry: Asked) -> None:
    """A manifest may refer to what is not there yet."""
    subject = image(registry.seed("late"), OCI)
    note = artifact(registry.seed("early"), subject)
    registry.push(note)
    registry.push(subject, "latest")
    assert [each["digest"] for each in _referring(registry, subject.digest)] == [note.digest]


def test_referrers_by_tag(registry: Asked) -> None:
    """Without the referrers API clients keep an index under a tag of the subject's digest."""
    subject = _subject(registry)
    notes: list[Image] = []
    for number in range(2):
        notes.append(artifact(registry.seed(f"tagged {number}"), subject))
        tag, listed = referrers(subject, *notes)
        registry.push(listed, tag)
        assert registry.ask("GET", f"manifests/{tag}").body == listed.manifest.data
