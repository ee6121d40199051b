"""The accounts that the mirror has, by password or by a credential helper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.app.accounts import accounts
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.interfaces import IAccount
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.login import Login
from dockmirror.system.external_program import ProcessResult
from tests.programs import program
from tests.stacks import now


class Asked(list[tuple[Sequence[str], Mapping[str, str], bytes]]):
    """What would be run; each is answered alike."""

    async def __call__(
        self, command: Sequence[str], environ: Mapping[str, str], said: bytes
    ) -> ProcessResult:
        """Runs it."""
        self.append((command, environ, said))
        return ProcessResult(0, b'{"Username":"AWS","Secret":"s3cret"}')


def found(asked: Asked, environ: dict[str, str], **upstreams: dict[str, Any]) -> dict[str, IAccount]:
    """The accounts of a mirror of these."""
    settings = load({"networks": ["private"], "upstreams": upstreams}, environ)
    return accounts(settings, environ, asked, Clock())


def test_a_password() -> None:
    """Is the account's for good, and no program's business."""
    asked = Asked()
    own = found(asked, {"DOCKMIRROR_PASSWORD_DOCKER": "s3cret"}, docker={"username": "alice"})
    assert list(own) == ["docker"]
    assert now(own["docker"].login()) == Login(Credentials.basic("alice", "s3cret"))
    assert asked == []


@pytest.mark.parametrize("by_path", [True, False])
def test_a_helper(tmp_path: Path, by_path: bool) -> None:
    """Is found by its name, or by its path; it is asked for the registry's host and port."""
    path = program(tmp_path / "docker-credential-ecr-login", "")
    asked = Asked()
    upstream = {
        "url": "https://registry.example:5000",
        "credential_helper": path if by_path else "ecr-login",
    }
    own = found(asked, {"PATH": str(tmp_path)}, work=upstream)
    assert now(own["work"].login()) == Login(Credentials.basic("AWS", "s3cret"))
    assert asked == [([path, "get"], {"PATH": str(tmp_path)}, b"registry.example:5000")]


def test_docker_hub(tmp_path: Path) -> None:
    """Has a name of its own among helpers."""
    asked = Asked()
    path = program(tmp_path / "helper", "")
    now(found(asked, {}, docker={"credential_helper": path})["docker"].login())
    assert [said for _, _, said in asked] == [b"https://index.docker.io/v1/"]


def test_a_helpers_environment(tmp_path: Path) -> None:
    """Is the mirror's, without what is the mirror's own: other upstreams' passwords stand there."""
    asked = Asked()
    environ = {
        "HOME": "/h",
        "AWS_PROFILE": "p",
        "DOCKMIRROR_PASSWORD_GHCR": "s3cret",
        "DOCKMIRROR_GRACE": "1",
    }
    upstreams = {
        "docker": {"credential_helper": program(tmp_path / "helper", "")},
        "ghcr": {"username": "alice"},
    }
    now(found(asked, environ, **upstreams)["docker"].login())
    assert [environ for _, environ, _ in asked] == [{"HOME": "/h", "AWS_PROFILE": "p"}]


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"credential_helper": "none"}, "expected a program, and docker-credential-none is none"),
        ({"credential_helper": "/nowhere/helper"}, "expected a program, and /nowhere/helper is none"),
        ({"credential_helper": "/etc/passwd"}, "expected a program, and /etc/passwd is none"),
        ({"credential_helper": "/bin/true", "username": "alice"}, "expected no 'username' beside it"),
    ],
)
def test_what_cannot_be(upstream: dict[str, Any], message: str) -> None:
    """Is said at start, with the key."""
    environ = {"PATH": "/usr/bin", **({"DOCKMIRROR_PASSWORD_DOCKER": "x"} if "username" in upstream else {})}
    with pytest.raises(ConfigurationError, match=f"^upstreams.docker.credential_helper: {message}"):
        found(Asked(), environ, docker=upstream)
