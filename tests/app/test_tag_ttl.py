"""For how long what a tag names is believed: by pattern, by upstream, or for all."""

from __future__ import annotations

from typing import Any

import pytest

from dockmirror.app.tag_ttl import tag_ttl
from dockmirror.config.load import load
from dockmirror.oci.request import Manifest, Tags, parse_target

PATTERNS = {"library/*:latest": 10, "library/*": 600, "**": 60.5}


def seconds(told: Any, path: str) -> float:
    """Those of what stands below ``/v2/``, where Docker Hub's ``tag_ttl`` is this and that of all is 7."""
    upstream = {} if told is None else {"tag_ttl": told}
    settings = load({"tag_ttl": 7, "upstreams": {"docker": upstream}}, {})
    target = parse_target(f"/v2/{path}".encode())
    assert isinstance(target, Manifest | Tags)
    return tag_ttl(settings.upstreams["docker"], settings)(target)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("library/nginx/manifests/latest", 10),
        ("library/nginx/manifests/1.27", 600),
        ("library/nginx/tags/list", 600),
        ("team/a/b/manifests/latest", 60.5),
        ("team/a/tags/list", 60.5),
    ],
)
def test_by_pattern(path: str, expected: float) -> None:
    """A list has that of the repository; a pattern of tags is not of it."""
    assert seconds(PATTERNS, path) == expected


def test_the_first_that_fits_is_in_force() -> None:
    """In the order in which they are written, however narrow a later one is."""
    assert seconds(dict(reversed(PATTERNS.items())), "library/nginx/manifests/latest") == 60.5


def test_what_no_pattern_names() -> None:
    """Has the seconds of all upstreams."""
    assert seconds({"library/*": 600}, "team/a/manifests/latest") == 7


def test_one_for_an_upstream() -> None:
    """Stands above that of all, also where it is nought."""
    assert [seconds(told, "library/nginx/manifests/latest") for told in (None, 5, 0)] == [7, 5, 0]
