"""``dockmirror check`` before real registries, and before none."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeMachine
from .parts.accounts import ALICE
from .parts.authority import Authority
from .parts.command import dockmirror
from .parts.mirror import Mirror
from .parts.process import free_port
from .parts.registry import Registry
from .parts.tokens import Tokens

pytestmark = pytest.mark.integration

WELL = ["token", "login", "basic", "alice", "open", "tls"]
WRONG = {
    "guess": "token",
    "realm": "token",
    "stranger": "TLS",
    "other": "TLS",
    "refused": "connection",
    "proxied": "connection",
    "nowhere": "name",
}
"""The step at which each fails."""
OURS = [*WELL, *WRONG]


@pytest.fixture
def settings(
    tmp_path: Path,
    make_machine: MakeMachine,
    authority: Authority,
    tokens: Tokens,
    token_registry: Registry,
    basic_registry: Registry,
    open_registry: Registry,
    tls_registry: Registry,
) -> Mirror:
    """A mirror that does not run, and whose settings name registries of every kind."""
    password = tmp_path / "password"
    password.write_text(f"{ALICE.password}\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed\n")
    here = {"addresses": {"tls.test": ["127.0.0.1"], "wrong.test": ["127.0.0.1"]}}
    trusting = {"ca_file": str(authority.certificate), **here}
    account = {"username": ALICE.name, "password_file": str(password)}
    upstreams: dict[str, dict[str, Any]] = {
        "token": {"url": token_registry.url, "realms": [tokens.url]},
        "login": {"url": token_registry.url, "realms": [tokens.url], **account},
        "guess": {"url": basic_registry.url, "username": ALICE.name, "password_file": str(wrong)},
        "realm": {"url": token_registry.url, **account},
        "basic": {"url": basic_registry.url},
        "alice": {"url": basic_registry.url, **account},
        "open": {"url": open_registry.url},
        "tls": {"url": f"https://tls.test:{tls_registry.port}", **trusting},
        "stranger": {"url": f"https://tls.test:{tls_registry.port}", **here},
        "other": {"url": f"https://wrong.test:{tls_registry.port}", **trusting},
        "refused": {"url": f"http://127.0.0.1:{free_port()}"},
        "proxied": {"url": open_registry.url, "proxy": f"http://127.0.0.1:{free_port()}"},
        "nowhere": {"url": "http://nowhere.invalid"},
    }
    directory = tmp_path / "mirror"  # in which no password lies
    directory.mkdir()
    return Mirror(directory, make_machine(), upstreams)


def test_every_kind(settings: Mirror) -> None:
    """Upstreams that work are listed so, and the others with the step that failed and the reason."""
    done = dockmirror(settings, "check", "--json", *OURS)
    assert done.returncode == 1, done.stderr
    examined = {each["upstream"]: each for each in json.loads(done.stdout)}
    last = {name: each["steps"][-1] for name, each in examined.items()}
    assert [name for name, each in examined.items() if each["ok"]] == WELL
    assert {name: last[name]["name"] for name in WRONG} == WRONG
    assert [step["name"] for step in examined["token"]["steps"]] == [
        "name", "connection", "TLS", "/v2/", "token",
    ]  # fmt: skip
    assert examined["tls"]["addresses"] == ["127.0.0.1"]
    assert "anonymously" in last["token"]["result"]
    assert "own account" in last["login"]["result"]
    assert "'realms'" in last["realm"]["result"]
    assert "another name" in last["other"]["result"]
    assert "an untrusted authority" in last["stranger"]["result"]
    assert "refused" in last["refused"]["result"]
    assert "proxy http://127.0.0.1" in last["proxied"]["result"]
    assert "nowhere.invalid" in last["nowhere"]["result"]
    assert ALICE.password not in done.stdout + done.stderr


def test_for_people(settings: Mirror) -> None:
    """A line for each step, and the status of the worst."""
    done = dockmirror(settings, "check", "open")
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:3]] == ["127.0.0.1", "directly"]
    assert done.stdout.count("✓") == 5
    refused = dockmirror(settings, "check", "open", "refused")
    assert refused.returncode == 1
    assert refused.stdout.count("✗") == 1


def test_unknown(settings: Mirror) -> None:
    """A name that is no upstream is refused as a wrong option."""
    done = dockmirror(settings, "check", "nothing")
    assert done.returncode == 2
    assert "there is no upstream nothing" in done.stderr


def test_the_settings(settings: Mirror) -> None:
    """``config --check`` finds all that would prevent a start."""
    well = dockmirror(settings, "config", "--check")
    assert (well.returncode, well.stdout) == (0, "✓ the mirror can start with these settings\n"), well.stderr
    with socket.create_server(("127.0.0.1", settings.port)):
        ill = dockmirror(settings, "config", "--check", "--json")
    assert ill.returncode == 1, ill.stderr
    found = json.loads(ill.stdout)
    assert found == {
        "problems": [f"listen: another program has port {settings.port} of 127.0.0.1"],
        "questions": [],
        "offline": [],
    }
