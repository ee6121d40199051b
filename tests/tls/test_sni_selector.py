"""Which certificate is shown to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.tls.certificate_folder import read_certificate_folder
from dockmirror.tls.sni_selector import SniSelector
from tests.issued import Issued, issue, shown

OWN, EXACT, WILD = issue("m.example", "10.0.0.1"), issue("ghcr.m.example"), issue("*.m.example")
OLDER, NEWER = issue("twice.m.example", days=30), issue("twice.m.example", days=90)


def choice(directory: Path, domain: str, *issued: Issued) -> SniSelector:
    """Of these, in this order."""
    paths = []
    for number, each in enumerate(issued):
        paths.append(directory / f"{number}.pem")
        paths[-1].write_bytes(each.certificate + each.key)
    return SniSelector(read_certificate_folder(paths).served, domain)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.example", OWN),
        ("ghcr.m.example", EXACT),
        ("GHCR.M.Example", EXACT),
        ("docker.m.example", WILD),
        ("twice.m.example", NEWER),
        ("a.b.m.example", OWN),
        ("other.example", OWN),
        ("localhost", OWN),
        (None, OWN),
    ],
)
def test_by_name(tmp_path: Path, name: str | None, expected: Issued) -> None:
    """The very name stands before the wildcard, the later end before the earlier, the domain's for others."""
    chosen = choice(tmp_path, "m.example", WILD, NEWER, EXACT, OWN, OLDER)
    assert shown(chosen.context, name) == [expected.serial]


@pytest.mark.parametrize(("domain", "expected"), [("x.m.example", WILD), ("localhost", EXACT)])
def test_no_name(tmp_path: Path, domain: str, expected: Issued) -> None:
    """Whoever asks for none is shown the wildcard for the domain, or the first where nothing is for it."""
    chosen = choice(tmp_path, domain, EXACT, WILD)
    assert shown(chosen.context, None) == [expected.serial]
