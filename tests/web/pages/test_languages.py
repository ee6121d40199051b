"""The languages of the pages."""

from __future__ import annotations

import re

import pytest

from dockmirror.client_config.clients import CLIENTS
from dockmirror.client_config.snippet import MirrorAddress, MirroredRegistry
from dockmirror.web.pages.page import LANGUAGES

ENGLISH = LANGUAGES["en"]


def test_english_comes_first() -> None:
    """It is what is spoken to who asks for none that there is."""
    assert next(iter(LANGUAGES)) == "en"
    assert "zh" in LANGUAGES


@pytest.mark.parametrize("code", LANGUAGES)
def test_all_say_the_same(code: str) -> None:
    """The same phrases, with the same values and code in them."""
    words = LANGUAGES[code].words
    assert list(words) == list(ENGLISH.words)
    for key, phrase in words.items():
        assert set(re.findall(r"\{\w+\}", phrase)) == set(re.findall(r"\{\w+\}", ENGLISH.words[key])), key
        assert set(re.findall("`[^`]*`", phrase)) == set(re.findall("`[^`]*`", ENGLISH.words[key])), key


def test_every_snippet_has_a_phrase() -> None:
    """Clients by their names, and what they are shown besides by its own as well."""
    mirror = MirrorAddress(
        "http", "m", (MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io"),)
    )
    for client in CLIENTS.values():
        _, *others = client.snippets(mirror)
        for key in (client.name, *(f"{client.name}.{each.name}" for each in others)):
            assert key in ENGLISH.words
