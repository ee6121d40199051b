"""The operator's choices: file, environment and command line made into one frozen value."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from .known import KNOWN, Known
from .settings import ConfigurationError, Settings
from .values import listed

PREFIX = "DOCKMIRROR_"
PASSWORD_PREFIX = f"{PREFIX}PASSWORD_"
"""Of variables that hold passwords; these are no settings, so that no setting holds a password."""


def load(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """What is in force: the command line over the environment over the file over the defaults.

    :param options: what the command line gave, by key; ``config`` names the file.
    :raises ConfigurationError: naming the key, where it stood, and what was expected.
    """
    variables = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and not key.startswith(PASSWORD_PREFIX)
    }
    path = options.get("config") or variables.pop("config", None)
    variables.pop("config", None)
    sources = [
        (str(path), _read(Path(path)) if path else {}),
        _with_upstreams("the environment", variables),
        _with_upstreams("the command line", {k: v for k, v in options.items() if v and k != "config"}),
    ]
    merged: dict[str, Any] = {"cache": _default_cache(environ)}
    upstreams: dict[str, Any] = {known.name: _known(known) for known in KNOWN}
    for source, values in sources:
        for name, table in _tables(source, values).items():
            upstreams[name] = {**upstreams.get(name, {}), **table}
        merged.update({key: value for key, value in values.items() if key != "upstreams"})
    try:
        settings = Settings.model_validate({**merged, "upstreams": upstreams})
    except ValidationError as error:
        raise _explained(error, sources) from None
    _check_who_may_come(settings)
    return settings


def _check_who_may_come(settings: Settings) -> None:
    shared = [name for name, upstream in settings.upstreams.items() if upstream.username is not None]
    if shared and "networks" not in settings.model_fields_set:
        raise ConfigurationError(
            f"networks: is not named, and has to be: whoever reaches the mirror pulls from {shared[0]} with"
            f" the account of 'upstreams.{shared[0]}.username'"
        )


def _default_cache(environ: Mapping[str, str]) -> Path:
    """systemd's ``CacheDirectory=``, the system's place for root, or the user's own (XDG)."""
    if given := environ.get("CACHE_DIRECTORY"):
        return Path(given.partition(":")[0])
    if os.getuid() == 0:
        return Path("/var/cache/dockmirror")
    home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    return Path(home) / "dockmirror"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None


def _tables(source: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables = values.get("upstreams", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(
            f"{source}: upstreams: expected a table for each, such as [upstreams.docker]"
        )
    return tables


def _with_upstreams(source: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``upstream``, a list of NAME=URL, made a table as the file has it."""
    rest = dict(values)
    pairs = [_pair(source, text) for text in listed(rest.pop("upstream", ""))]
    return source, {"upstreams": {name: {"url": url} for name, url in pairs}, **rest}


def _pair(source: str, text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{source}: upstream: expected NAME=URL, not {text!r}")
    return name, url


def _known(known: Known) -> dict[str, Any]:
    return {
        "url": known.url,
        "registry": known.registry,
        "realms": known.realms,
        "aliases": known.aliases,
        "short_names": known.short_names,
    }


def _explained(
    error: ValidationError, sources: Sequence[tuple[str, Mapping[str, Any]]]
) -> ConfigurationError:
    """The first thing that is wrong, in a line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    stood = path[:-1] if first["type"] == "missing" else path
    where = next((f"{source}: " for source, values in reversed(sources) if _holds(values, stood)), "")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    elif first["type"] == "missing":
        message = "is missing"
    return ConfigurationError(f"{where}{'.'.join(path) + ': ' if path else ''}{message}")


def _holds(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict):
            return True
        if key not in values:
            return False
        values = values[key]
    return bool(path)
