"""The languages of the pages; to add one, add a file to ``languages/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

from attrs import field, frozen

ENGLISH = "en"


@frozen
class Language:
    """The phrases of the pages in one language.

    :ivar code: the language tag (RFC 5646).
    """

    code: str
    words: Mapping[str, str] = field(repr=False)

    def __call__(self, key: str, **values: object) -> str:
        """Return a phrase with these values filled in."""
        return self.words[key].format(**values)

    @property
    def name(self) -> str:
        """The language's own name for itself."""
        return self.words["language"]


def _read() -> dict[str, Language]:
    found = (
        file for file in files(__package__).joinpath("languages").iterdir() if file.name.endswith(".json")
    )
    codes = {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in found}
    order = sorted(codes, key=lambda code: (code != ENGLISH, code))
    return {code: Language(code, codes[code]) for code in order}


LANGUAGES: Mapping[str, Language] = _read()
"""Languages by code, English first."""
