"""Traces of a run: where its mirrors left something, and the tokens that nothing may be left of."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .mirror import Mirror
from .tokens import Tokens

_FILES = "traces-of-*.json"


class Traces:
    """The mirrors' directories and the tokens of all workers of a run; of the others, those that have ended.

    :param shared: a directory that all workers of the run have.
    """

    def __init__(self, shared: Path) -> None:
        self._shared = shared

    def save(self) -> None:
        """Write what this worker has, when it ends; without workers there is nobody to read it."""
        if worker := os.environ.get("PYTEST_XDIST_WORKER"):
            own = {"directories": [str(each) for each in Mirror.directories], "tokens": Tokens.given}
            (self._shared / _FILES.replace("*", worker)).write_text(json.dumps(own))

    def directories(self) -> list[Path]:
        """Logs, settings and stores of all mirrors."""
        return [*Mirror.directories, *(Path(each) for each in self._others("directories"))]

    def tokens(self) -> set[str]:
        """All tokens that were issued."""
        return {*Tokens.given, *self._others("tokens")}

    def _others(self, key: str) -> list[str]:
        files = self._shared.glob(_FILES) if "PYTEST_XDIST_WORKER" in os.environ else ()
        return [each for file in files for each in json.loads(file.read_text())[key]]
