"""Settings in the documents are settings that the mirror accepts, and edits of its files find their lines."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.config.load import load

from .test_docs import DOCUMENTS, ROOT, text

_BLOCK = re.compile(r"^```(toml|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_OTHER_PROGRAMS = re.compile(r"^(server = |\[host|\[\[?registry|\[plugins|version = |root = )", re.MULTILINE)
_FILES = re.compile(r'(?<=")/(?:etc|run)/[\w/.-]+(?=")')
_DIRECTORIES = re.compile(r'(?<=certificates = ")[^"]+(?=")')


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield each block of code in that language with the name of its document."""
    for document in DOCUMENTS:
        for found, code in _BLOCK.findall(document.read_text("utf-8")):
            if found == language:
                yield f"{document.relative_to(ROOT)}:{code.splitlines()[0]}", code


SETTINGS = [pytest.param(code, id=name) for name, code in blocks("toml") if not _OTHER_PROGRAMS.search(code)]


@pytest.mark.parametrize("code", SETTINGS)
def test_settings_are_accepted(code: str, tmp_path: Path) -> None:
    """Files that they name need only exist."""
    (tmp_path / "file").write_text("secret\n")
    (tmp_path / "directory").mkdir()
    file = tmp_path / "dockmirror.toml"
    code = _DIRECTORIES.sub(str(tmp_path / "directory"), code)
    file.write_text(_FILES.sub(str(tmp_path / "file"), code))
    load({"config": file, "networks": ["private"]}, {})


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in blocks("json")])
def test_json_is_json(code: str) -> None:
    json.loads(code)


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=name) for name, code in blocks("toml") if _OTHER_PROGRAMS.search(code)]
)
def test_files_of_other_programs_are_toml(code: str) -> None:
    tomllib.loads(code)


@pytest.mark.parametrize(
    ("document", "changed"),
    [
        ("docs/tutorials/company-server.md", "SupplementaryGroups=dockmirror-tls"),
        ("docs/how-to/backup-and-upgrade.md", "Exec(Start|Reload)=/opt/dockmirror-new/bin/"),
    ],
)
def test_the_unit_is_edited(document: str, changed: str, tmp_path: Path) -> None:
    """The sed of the document changes such lines, and no others that count."""
    (command,) = re.findall(r"^# (sed .*)$", text(document), re.MULTILINE)
    unit = text("docs/examples/dockmirror.service")
    (tmp_path / "dockmirror.service").write_text(unit)
    command = command.replace("/etc/systemd/system/", f"{tmp_path}/")
    subprocess.run(["/bin/sh", "-euc", command], check=True)  # noqa: S603
    edited = (tmp_path / "dockmirror.service").read_text()
    lines = _directives(edited) - _directives(unit)
    assert lines
    assert all(re.match(changed, each) for each in lines)


def _directives(unit: str) -> set[str]:
    return {line for line in unit.splitlines() if not line.startswith("#")}
