"""The mirror's own credentials: where a password may stand, and what is said where it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dockmirror.app.passwords import own_credentials
from dockmirror.app.service import mirror
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.oci.credentials import Credentials

VARIABLE = "DOCKMIRROR_PASSWORD_MY_LAN"


def credentials(environ: dict[str, str], **upstream: Any) -> dict[str, Credentials]:
    """Those of a mirror with one upstream more, named ``my-lan``."""
    table = {"url": "https://lan.example", **upstream}
    settings = load({"networks": ["private"], "upstreams": {"my-lan": table}}, environ)
    return own_credentials(settings, environ)


@pytest.mark.parametrize("written", [b"s3cret", b"s3cret\n"])
def test_a_file(tmp_path: Path, written: bytes) -> None:
    """Holds the password, whether or not its line is ended."""
    file = tmp_path / "password"
    file.write_bytes(written)
    found = credentials({}, username="alice", password_file=str(file))
    assert found == {"my-lan": Credentials.basic("alice", "s3cret")}


@pytest.mark.parametrize("password", [" two words ", "line\n", "\r", "pässwörd", "a:b"])
def test_a_password_is_left_as_it_is(tmp_path: Path, password: str) -> None:
    """But for that one end of a line."""
    file = tmp_path / "password"
    file.write_bytes(f"{password}\n".encode())
    found = credentials({}, username="alice", password_file=str(file))
    assert found == {"my-lan": Credentials.basic("alice", password)}


def test_the_environment(tmp_path: Path) -> None:
    """Stands above the file."""
    file = tmp_path / "password"
    file.write_text("other")
    for more in ({}, {"password_file": str(file)}):
        found = credentials({VARIABLE: "s3cret"}, username="alice", **more)
        assert found == {"my-lan": Credentials.basic("alice", "s3cret")}


def test_without_a_name() -> None:
    """There are none."""
    assert credentials({}) == {}


@pytest.mark.parametrize(
    ("environ", "username", "written", "message"),
    [
        ({}, "alice", None, rf"^upstreams\.my-lan\.username: expected a password .* {VARIABLE}$"),
        ({VARIABLE: ""}, "alice", None, r"^upstreams\.my-lan\.username: expected a password"),
        ({}, "alice", b"\n", r"^upstreams\.my-lan\.username: expected a password"),
        ({}, "alice", b"\xff", r"^upstreams\.my-lan\.password_file: expected text"),
        ({}, None, b"s3cret", r"^upstreams\.my-lan\.password_file: expected a 'username'"),
        ({VARIABLE: "s3cret"}, None, None, rf"^the environment: {VARIABLE}: expected an upstream"),
        ({"DOCKMIRROR_PASSWORD_LAN": "s3cret"}, None, None, "^the environment: DOCKMIRROR_PASSWORD_LAN: "),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, environ: dict[str, str], username: str | None, written: bytes | None, message: str
) -> None:
    """Is said in a line that names the key, and not the password."""
    file = tmp_path / "password"
    file.write_bytes(written or b"")
    upstream = {"username": username, "password_file": None if written is None else str(file)}
    with pytest.raises(ConfigurationError, match=message) as raised:
        credentials(environ, **upstream)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_the_service_does_not_start_without_a_password() -> None:
    """It is read before anything listens."""
    settings = load({"networks": ["private"], "upstreams": {"docker": {"username": "alice"}}}, os.environ)
    with pytest.raises(ConfigurationError, match="username: expected a password"):
        mirror(lambda: settings, {})
