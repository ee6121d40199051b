"""Questions about values that can hardly be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.config.consistency import question_settings
from dockmirror.config.load import load

DISK = 10**12


def questions(tmp_path: Path, text: str, disk: int | None = DISK) -> list[str]:
    """Return the questions about settings in a file."""
    path = tmp_path / "dockmirror.toml"
    path.write_text(text)
    return list(question_settings(load({"config": path}, {}), disk))


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("cache_size = 200", 'cache_size: 200 bytes are less than any image has; is "200GB" meant?'),
        ("min_free = 20", 'min_free: 20 bytes are less than any image has; is "20GB" meant?'),
        ("[access]\nbytes = 5", 'access.bytes: 5 bytes are less than any image has; is "5GB" meant?'),
        ('cache_size = "2TB"', "cache_size: 2.0 TB are more than the disk has, 1.0 TB"),
        ('min_free = "100%"', "min_free: 1.0 TB are all that the disk has, 1.0 TB: the cache keeps nothing"),
        ('grace = "7d"', "grace: a stop may take 7d; a number without a unit is in seconds"),
        ("tag_ttl = 8640000", "tag_ttl: tags may be 100d old; a number without a unit is in seconds"),
        (
            '[upstreams.docker]\ntag_ttl = {"library/*" = "90d"}',
            "upstreams.docker.tag_ttl.library/*: tags may be 90d old; a number without a unit is in seconds",
        ),
        (
            'stale_while_revalidate = "10m"',
            "stale_while_revalidate: 10m are more than tag_ttl, 1m: tags are stale for longer than they are"
            " fresh",
        ),
        (
            '[upstreams.docker]\nstale_while_revalidate = "10m"\ntag_ttl = {"a" = 1, "b" = 5}',
            "upstreams.docker.stale_while_revalidate: 10m are more than tag_ttl, 5s: tags are stale for"
            " longer than they are fresh",
        ),
        (
            '[[policy]]\nimages = "dokcer.io/**"\nmin_age = "7d"',
            "policy.0.images: no upstream has the registry 'dokcer.io', so the pattern matches nothing; is"
            " 'docker.io' meant?",
        ),
        (
            '[[policy]]\nimages = "library/nginx:1.*"\nmin_age = "7d"',
            "policy.0.images: no upstream has the registry 'library', so the pattern matches nothing",
        ),
        (
            '[[budget]]\nimages = "team/**"\nrequests = 5',
            "budget.0.images: no upstream has the registry 'team', so the pattern matches nothing",
        ),
        (
            '[[policy]]\nimages = "**"\nmin_age = 7',
            "policy.0.min_age: a tag waits for 7s only; a number without a unit is in seconds",
        ),
    ],
)
def test_a_value_that_can_hardly_be_meant_is_questioned(tmp_path: Path, text: str, question: str) -> None:
    assert questions(tmp_path, text) == [question]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'stale_while_revalidate = "1m"',
        "cache_size = 0",
        'cache_size = "100%"',
        'grace = "5m"',
        "min_free = 0",
        '[[policy]]\nimages = "docker.io/**"\nmin_age = "7d"',
        '[[policy]]\nimages = "**"\nmin_age = "7d"',
        '[[policy]]\nimages = "*/team/*"\nmin_age = "7d"',
        '[upstreams.lan]\nurl = "https://lan.example:5000"\n'
        '[[policy]]\nimages = "lan.example:5000/**"\nmin_age = "7d"',
    ],
)
def test_sensible_values_raise_no_question(tmp_path: Path, text: str) -> None:
    """The defaults are sensible, and 0 turns a limit off."""
    assert questions(tmp_path, text) == []


def test_nothing_is_compared_with_an_unknown_disk(tmp_path: Path) -> None:
    assert questions(tmp_path, 'cache_size = "2TB"', disk=None) == []
