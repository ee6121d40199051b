"""Directories that several listeners share."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.certificates.directories import Directories
from dockmirror.certificates.directory import NoCertificate
from tests.issued import NOW, issue

ISSUED = issue("m.example", days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory with a certificate."""
    (tmp_path / "m.pem").write_bytes(ISSUED.key + ISSUED.certificate)
    return tmp_path


def test_open(path: Path) -> None:
    """A directory is opened once, by name or because none is named; when its certificates end is known."""
    directories = Directories(path, "m.example", Clock())
    assert directories.ends() == {}
    assert directories.open(None) is directories.open(path)
    assert directories.ends() == {str(path / "m.pem"): NOW.timestamp() + 86_400}


def test_none(tmp_path: Path) -> None:
    """Where no directory is named, or nothing is in it, that is told."""
    with pytest.raises(NoCertificate, match="the key 'certificates' names"):
        Directories(None, "m.example", Clock()).open(None)
    directories = Directories(None, "m.example", Clock())
    with pytest.raises(NoCertificate, match="there is no certificate"):
        directories.open(tmp_path)
    assert directories.ends() == {}
