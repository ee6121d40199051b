"""The mirror's own credentials for its upstreams, read at start and at SIGHUP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..config.load import PASSWORD_PREFIX
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..oci.credentials import Credentials


def own_credentials(settings: Settings, environ: Mapping[str, str]) -> dict[str, Credentials]:
    """By the name of the upstream, for those that have any.

    :param environ: may hold passwords, which stand above those in files.
    :raises ConfigurationError: for a name without a password, and for a password without a name.
    """
    variables = {key: value for key, value in environ.items() if key.startswith(PASSWORD_PREFIX)}
    found = dict(_each(settings, variables))
    unused = variables.keys() - {_variable(name) for name in found}
    if unused:
        raise ConfigurationError(
            f"the environment: {min(unused)}: expected an upstream of that name with a 'username'"
        )
    return found


def _each(settings: Settings, variables: Mapping[str, str]) -> Iterator[tuple[str, Credentials]]:
    for name, upstream in settings.upstreams.items():
        key, variable = f"upstreams.{name}", _variable(name)
        if upstream.username is None:
            if upstream.password_file is not None:
                raise ConfigurationError(f"{key}.password_file: expected a 'username' beside it")
            continue
        password = variables.get(variable) or _read(key, upstream)
        if not password:
            raise ConfigurationError(
                f"{key}.username: expected a password for it, in 'password_file' or in {variable}"
            )
        yield name, Credentials.basic(upstream.username, password)


def _variable(name: str) -> str:
    return PASSWORD_PREFIX + name.upper().replace("-", "_")


def _read(key: str, upstream: UpstreamSettings) -> str:
    path: Path | None = upstream.password_file
    try:
        return path.read_bytes().removesuffix(b"\n").decode() if path else ""
    except OSError as error:
        raise ConfigurationError(f"{key}.password_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{key}.password_file: expected text in UTF-8") from None
