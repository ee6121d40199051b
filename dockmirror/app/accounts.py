"""The accounts that the mirror has at its upstreams."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from ..config.load import PREFIX
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..interfaces import IAccount
from ..oci.login import Login
from ..system.external_program import ProcessResult
from ..upstream.credential_helper import CredentialHelper
from ..upstream.login_attempts import FixedAccount
from .client_facing import registry_names
from .passwords import own_credentials

Ask = Callable[[Sequence[str], Mapping[str, str], bytes], Awaitable[ProcessResult]]
"""Runs a command in an environment, with some input."""
_HUB = "https://index.docker.io/v1/"
"""By what credential helpers know Docker Hub; all others by host and port."""


def accounts(
    settings: Settings, environ: Mapping[str, str], ask: Ask, clock: IReactorTime
) -> dict[str, IAccount]:
    """By the name of the upstream, for those that have one.

    :param environ: in which helpers run, without the mirror's own variables: these may be passwords.
    :raises ConfigurationError: see ``own_credentials``; for a helper that is not there, or not alone.
    """
    found: dict[str, IAccount] = {
        name: FixedAccount(Login(credentials))
        for name, credentials in own_credentials(settings, environ).items()
    }
    theirs = {key: value for key, value in environ.items() if not key.startswith(PREFIX)}
    for name, upstream in settings.upstreams.items():
        if upstream.credential_helper is not None:
            program = _program(name, upstream, upstream.credential_helper, theirs)
            found[name] = _helped(name, upstream, program, theirs, ask, clock)
    return found


def _helped(
    name: str,
    upstream: UpstreamSettings,
    program: str,
    environ: Mapping[str, str],
    ask: Ask,
    clock: IReactorTime,
) -> IAccount:
    server = _HUB if registry_names(upstream)[0] == "docker.io" else urlsplit(upstream.url).netloc
    return CredentialHelper(name, server, lambda said: ask([program, "get"], environ, said), clock)


def _program(name: str, upstream: UpstreamSettings, helper: str, environ: Mapping[str, str]) -> str:
    """The program's path."""
    key = f"upstreams.{name}.credential_helper"
    if upstream.username is not None:
        raise ConfigurationError(f"{key}: expected no 'username' beside it")
    command = helper if "/" in helper else f"docker-credential-{helper}"
    found = shutil.which(command, path=environ.get("PATH"))
    if found is None:
        raise ConfigurationError(f"{key}: expected a program, and {command} is none that can be run")
    return found
