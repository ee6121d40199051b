"""The pages that browsers get in place of an error in JSON."""

# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path

import bcrypt
import pytest

from tests.house import House
from tests.internet import PASSWORD, USER, Internet

OWN = "mirror.example:8080"
HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture
def guarded(internet: Internet, tmp_path: Path) -> House:
    """A mirror with a user."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{USER}:{hashed}\n")
    return House(internet, access={"htpasswd": f"{tmp_path}/htpasswd", "keys": f"{tmp_path}/keys"})


@pytest.mark.parametrize(
    ("path", "language", "title"),
    [("/", "en", "Log in first"), ("/images/", "zh", "请先登录"), (f"/?{'a&' * 100}", "en", "Log in first")],
)
def test_a_browser_without_a_login_gets_a_page(guarded: House, path: str, language: str, title: str) -> None:
    """With the challenge, so that it asks for a name and a password."""
    answer = guarded.get(OWN, path, HTML, f"Accept-Language: {language}")
    assert (answer.status, answer["WWW-Authenticate"]) == (401, f'Basic realm="{OWN}"')
    assert (answer["Content-Type"], answer["Cache-Control"]) == ("text/html; charset=utf-8", "no-store")
    assert str(answer["Content-Security-Policy"]).startswith("default-src 'none';")
    assert f"<h1>{title}</h1>" in answer.body.decode()


def test_the_page_says_why(house: House) -> None:
    answer = house.get(OWN, "/client/nothing", HTML)
    assert answer.status == 404
    assert b"<h1>Not found</h1>" in answer.body
    assert b"unknown client; expected one of: docker" in answer.body
    assert house.ask("HEAD", OWN, "/client/nothing", HTML)["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/client/nothing", ()),
        ("/client/nothing", ("Accept: */*",)),
        ("/client/nothing", ("Accept: application/json",)),
        ("/v2/quay.io/BAD/manifests/x", (HTML,)),
        ("/quay.io/v2/BAD/manifests/x", (HTML,)),
    ],
)
def test_programs_and_registry_paths_get_json(house: House, path: str, headers: tuple[str, ...]) -> None:
    assert house.get(OWN, path, *headers)["Content-Type"] == "application/json"
