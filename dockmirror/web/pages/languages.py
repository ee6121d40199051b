"""The languages of the pages: each is a file in ``languages``, and a further one is one more file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

from attrs import field, frozen

ENGLISH = "en"


@frozen
class Language:
    """What the pages say in a language.

    :ivar code: its tag (RFC 5646).
    """

    code: str
    words: Mapping[str, str] = field(repr=False)

    def __call__(self, key: str, **values: object) -> str:
        """A phrase with these values in it."""
        return self.words[key].format(**values)

    @property
    def name(self) -> str:
        """As those who speak it write it."""
        return self.words["language"]


def _read() -> dict[str, Language]:
    found = (
        file for file in files(__package__).joinpath("languages").iterdir() if file.name.endswith(".json")
    )
    codes = {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in found}
    order = sorted(codes, key=lambda code: (code != ENGLISH, code))
    return {code: Language(code, codes[code]) for code in order}


LANGUAGES: Mapping[str, Language] = _read()
"""By their codes, English first."""
