"""Policies and recalls that decide on exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.admission.lock_file import LockedImage, LockFile
from dockmirror.admission.recalls import Recall, write_statement
from dockmirror.app.local_admission import ExportGates
from dockmirror.app.naming import parse_image_name
from dockmirror.config.load import load
from dockmirror.config.settings import Settings
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied
from dockmirror.oci.request import Repository, Tag

PLACE = Repository("docker.io/library/nginx")
LOCKED, OTHER = Digest.of(b"locked"), Digest.of(b"other")
NOW = 1_700_000_000.0


def settings(tmp_path: Path) -> Settings:
    """Settings with a policy that locks images."""
    lock = tmp_path / "lock"
    lock.write_text(str(LockFile.of([LockedImage(PLACE, Tag(tag), LOCKED) for tag in ("1", "2")])))
    path = tmp_path / "dockmirror.toml"
    path.write_text(f'[[policy]]\nimages = "**"\nlock = "{lock}"\n')
    return load({"config": str(path)}, {"CACHE_DIRECTORY": str(tmp_path / "cache"), "STATE_DIRECTORY": "/s"})


def test_the_images_of_an_export_share_what_was_read(tmp_path: Path) -> None:
    """The lock file is read for the first image, and the recalls when the export begins."""
    given, notes = settings(tmp_path), list[str]()
    gates = ExportGates(given, tmp_path / "cache", NOW, notes.append)
    assert gates.make(parse_image_name("nginx:1", given)).choose(OTHER) == LOCKED
    assert notes[0].startswith(f"docker.io/library/nginx:1: {LOCKED} in its place")
    (tmp_path / "lock").unlink()
    write_statement(tmp_path / "cache", Recall(LOCKED, "malicious", NOW, NOW))
    gate = gates.make(parse_image_name("nginx:2", given))
    assert gate.choose(OTHER) == LOCKED
    gate.check_digests([LOCKED])


def test_a_recalled_digest_is_not_exported(tmp_path: Path) -> None:
    given = settings(tmp_path)
    write_statement(tmp_path / "cache", Recall(LOCKED, "malicious", NOW, NOW))
    gates = ExportGates(given, tmp_path / "cache", NOW)
    with pytest.raises(Denied, match="malicious"):
        gates.make(parse_image_name("nginx:1", given)).check_digests([OTHER, LOCKED])
