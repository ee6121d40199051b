"""After all the others: what the whole run has left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.parts.accounts import ACCOUNTS
from tests.integration.parts.kept import leaks
from tests.integration.parts.traces import Traces

from .rows import Record, hardship
from .test_hostile_access import CAROL

pytestmark = pytest.mark.integration


def _secrets(traces: Traces) -> set[str]:
    """Every password, in each form that it travels in, and every token."""
    accounts = (*ACCOUNTS, CAROL)
    passwords = {each.password for each in accounts}
    encoded = {each.basic.removeprefix("Basic ") for each in accounts}
    return {*passwords, *encoded, *traces.tokens()}


@hardship("hostile: secrets in any log or store of the whole run")
def test_none_is_left(traces: Traces, came: Record, tmp_path: Path) -> None:
    """No log, no store and no file's name has a secret; the search finds one that is there."""
    secrets, directories = _secrets(traces), traces.directories()
    files = [file for each in directories for file in each.rglob("*") if file.is_file()]
    assert [leak for each in directories for leak in leaks(each, secrets)] == []
    for number, secret in enumerate(secrets):
        (tmp_path / str(number)).write_text(f"a line with {secret} in it")
    assert len(leaks(tmp_path, secrets)) == len(secrets)
    came(f"none, of {len(secrets)}, in {len(files)} files of {len(directories)} mirrors")
