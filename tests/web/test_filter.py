"""Answers to the challenges of certificate authorities."""

# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.tls.acme_renewal import AcmeStore
from tests.house import House
from tests.internet import Internet

PATH = "/.well-known/acme-challenge/"
STRANGER = "203.0.113.9"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A mirror for private networks and known names only that asks for certificates."""
    users = tmp_path / "htpasswd"
    users.write_text("")
    access = {"htpasswd": str(users), "keys": str(tmp_path / "keys"), "requests": 1}
    return House(Internet(), acme="a@m.example", certificates=str(tmp_path / "certificates"), access=access)


def test_a_known_token(house: House, tmp_path: Path) -> None:
    """A known token is answered on every host, to everybody, any number of times."""
    with AcmeStore(tmp_path / "certificates").publish_proofs() as prove:
        prove("token", "token.thumbprint")
        for host in ("docker.mirror.example", "mirror.example", "nobody.example", "192.0.2.1"):
            answer = house.connect(STRANGER).ask("GET", host, f"{PATH}token").answer
            assert (answer.status, answer.body) == (200, b"token.thumbprint")
        assert house.connect(STRANGER).ask("POST", "x", f"{PATH}token").answer.error == (405, "UNSUPPORTED")
    assert house.connect(STRANGER).ask("GET", "mirror.example", f"{PATH}token").answer.status == 403


@pytest.mark.parametrize("token", ["", "unknown", "..%2faccount", "../account"])
def test_other_tokens(house: House, tmp_path: Path, token: str) -> None:
    """Lead to what is there for those who are let in."""
    AcmeStore(tmp_path / "certificates").account_key(lambda: b"secret")
    answer = house.connect(STRANGER).ask("GET", "mirror.example", f"{PATH}{token}").answer
    assert answer.error == (403, "DENIED")
    assert b"secret" not in answer.body


def test_a_mirror_that_wants_no_certificates(tmp_path: Path) -> None:
    """Without ACME the path does not exist."""
    house = House(Internet(), certificates=str(tmp_path))
    with AcmeStore(tmp_path).publish_proofs() as prove:
        prove("token", "proof")
        assert house.get("mirror.example", f"{PATH}token").status == 404
