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
def house(internet: Internet, tmp_path: Path) -> House:
    """A mirror with access rules that asks for certificates."""
    users = tmp_path / "htpasswd"
    users.write_text("")
    access = {"htpasswd": str(users), "keys": str(tmp_path / "keys"), "requests": 1}
    return House(internet, acme="a@m.example", certificates=str(tmp_path / "certificates"), access=access)


def test_a_known_token_is_answered_on_every_host_to_everybody(house: House, tmp_path: Path) -> None:
    with AcmeStore(tmp_path / "certificates").publish_proofs() as prove:
        prove("token", "token.thumbprint")
        for host in ("docker.mirror.example", "mirror.example", "nobody.example", "192.0.2.1"):
            answer = house.connect(STRANGER).ask("GET", host, f"{PATH}token").answer
            assert (answer.status, answer.body) == (200, b"token.thumbprint")
        assert house.connect(STRANGER).ask("POST", "x", f"{PATH}token").answer.error == (405, "UNSUPPORTED")
    assert house.connect(STRANGER).ask("GET", "mirror.example", f"{PATH}token").answer.status == 403


@pytest.mark.parametrize("token", ["", "unknown", "..%2faccount", "../account"])
def test_other_tokens_are_subject_to_the_access_rules(house: House, tmp_path: Path, token: str) -> None:
    AcmeStore(tmp_path / "certificates").account_key(lambda: b"secret")
    answer = house.connect(STRANGER).ask("GET", "mirror.example", f"{PATH}{token}").answer
    assert answer.error == (403, "DENIED")
    assert b"secret" not in answer.body


def test_without_acme_the_path_does_not_exist(internet: Internet, tmp_path: Path) -> None:
    house = House(internet, certificates=str(tmp_path))
    with AcmeStore(tmp_path).publish_proofs() as prove:
        prove("token", "proof")
        assert house.get("mirror.example", f"{PATH}token").status == 404
