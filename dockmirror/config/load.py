"""The operator's choices: file, environment and command line made into one frozen value."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import frozen
from pydantic import BaseModel, ValidationError

from .field_types import listed
from .known_registries import KNOWN, KnownRegistry
from .settings import AccessSettings, ConfigurationError, Settings, UpstreamSettings

PREFIX = "DOCKMIRROR_"
PASSWORD_PREFIX = f"{PREFIX}PASSWORD_"
"""Of variables that hold passwords; these are no settings, so that no setting holds a password."""
_LINK = re.compile(rf"{PREFIX}(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)")
"""What Kubernetes sets in every pod for a Service of the name ``dockmirror``."""
_TABLES: Mapping[str, Any] = {"access": {}, "upstreams": {"*": {}}}
"""What is laid over what others said of it, key by key."""


@frozen
class _Table:
    name: str
    keys: Sequence[str]

    @classmethod
    def of(cls, name: str, model: type[BaseModel]) -> _Table:
        return cls(name, [field.alias or key for key, field in model.model_fields.items()])


_PLACES = {
    "": _Table.of("above the first table", Settings),
    "access": _Table.of("in [access]", AccessSettings),
    "upstreams": _Table.of("in an upstream's table", UpstreamSettings),
}
"""What may stand where, by the name of the table."""


@frozen
class SettingsSource:
    """Where values stand, and those that do; tables within it as the file has them."""

    name: str
    values: Mapping[str, Any]


def load(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """What is in force: the command line over the environment over the file over the defaults.

    :param options: what the command line gave, by key; ``config`` names the file.
    :raises ConfigurationError: naming the key, where it stood, and what was expected.
    """
    return settings_of(sources(options, environ))


def sources(options: Mapping[str, Any], environ: Mapping[str, str]) -> Sequence[SettingsSource]:
    """All that was said, what counts less first.

    :raises ConfigurationError: see ``load``.
    """
    variables = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and not key.startswith(PASSWORD_PREFIX) and not _LINK.fullmatch(key)
    }
    path = options.get("config") or variables.pop("config", None)
    variables.pop("config", None)
    operators = [
        SettingsSource(str(path), _read(Path(path)) if path else {}),
        _tabled("the environment", variables),
        _tabled("the command line", {k: v for k, v in options.items() if v and k != "config"}),
    ]
    for known in KNOWN:
        if not any(_holds(source.values, _url_of(known.name)) for source in operators):
            operators = [_following(source, known) for source in operators]
    return [
        SettingsSource("default", _defaults(environ)),
        SettingsSource("known", {"upstreams": {known.name: _known(known) for known in KNOWN}}),
        *operators,
    ]


def settings_of(said: Sequence[SettingsSource]) -> Settings:
    """What is in force of all that was said.

    :raises ConfigurationError: see ``load``.
    """
    merged: dict[str, Any] = {}
    for source in said:
        _check_tables(source)
        merged = _laid_over(merged, source.values, _TABLES)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, said) from None
    _check_registries(settings.upstreams)
    _check_who_may_come(settings)
    _check_keys(settings)
    _check_writes(settings)
    return settings


def origin(said: Sequence[SettingsSource], path: Sequence[str]) -> str:
    """The name of the source that a value has come from."""
    return next((source.name for source in reversed(said) if _holds(source.values, path)), said[0].name)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any], tables: Any) -> dict[str, Any]:
    """Tables are laid over one another key by key; any other value is replaced."""
    merged = dict(below)
    for key, value in above.items():
        inner = tables.get(key, tables.get("*"))
        merged[key] = value if inner is None else _laid_over(below.get(key, {}), value, inner)
    return merged


def _check_tables(source: SettingsSource) -> None:
    tables = source.values.get("upstreams", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(
            f"{source.name}: upstreams: expected a table for each, such as [upstreams.docker]"
        )
    if not isinstance(source.values.get("access", {}), dict):
        raise ConfigurationError(f"{source.name}: access: expected a table, [access]")


def _url_of(name: str) -> Sequence[str]:
    return "upstreams", name, "url"


def _following(source: SettingsSource, known: KnownRegistry) -> SettingsSource:
    """The source, with the url that it gives to the registry which this one follows for both."""
    tables = source.values.get("upstreams")
    followed = tables.get(known.follows) if isinstance(tables, dict) else None
    if not isinstance(tables, dict) or not isinstance(followed, dict) or "url" not in followed:
        return source
    own = tables.get(known.name, {})
    if not isinstance(own, dict):
        return source
    return SettingsSource(
        source.name,
        {**source.values, "upstreams": {**tables, known.name: {**own, "url": followed["url"]}}},
    )


def _check_registries(upstreams: Mapping[str, UpstreamSettings]) -> None:
    """What lies under the name of one registry in the store is served to the clients of all that have it."""
    for name, upstream in upstreams.items():
        other = upstreams.get(upstream.same_registry_as or name)
        if other is None or other.canonical != upstream.canonical:
            raise ConfigurationError(
                f"upstreams.{name}.same_registry_as: expected the name of an upstream that has the registry"
                f" {upstream.canonical}, too"
            )
    for name, upstream in upstreams.items():
        same = _same_registry(name, upstreams)
        for another, its in upstreams.items():
            if its.canonical == upstream.canonical and another not in same:
                raise ConfigurationError(
                    f"upstreams.{another}.url: is not that of 'upstreams.{name}', which has the registry"
                    f" {upstream.canonical}, too: what one gives would be served for the other. Expected"
                    " another 'registry', or, where both lead to the same one,"
                    f" 'same_registry_as = \"{name}\"'"
                )


def _same_registry(name: str, upstreams: Mapping[str, UpstreamSettings]) -> set[str]:
    """All upstreams that are the same registry as this one, since they say so or have the same urls."""
    same, found = set(), {name}
    while found:
        same |= found
        found = {
            each
            for each, its in upstreams.items()
            if each not in same and any(_are_same(each, its, other, upstreams[other]) for other in same)
        }
    return same


def _are_same(name: str, one: UpstreamSettings, other_name: str, other: UpstreamSettings) -> bool:
    if one.canonical != other.canonical:
        return False
    return one.urls == other.urls or one.same_registry_as == other_name or other.same_registry_as == name


def _check_who_may_come(settings: Settings) -> None:
    shared = {name: upstream for name, upstream in settings.upstreams.items() if upstream.account is not None}
    if shared and settings.access.htpasswd is None and "networks" not in settings.model_fields_set:
        name, upstream = next(iter(shared.items()))
        key = "username" if upstream.username is not None else "credential_helper"
        raise ConfigurationError(
            f"networks: is not named, and has to be: whoever reaches the mirror pulls from {name} with"
            f" the account of 'upstreams.{name}.{key}', unless 'access.htpasswd' names them"
        )


def _check_keys(settings: Settings) -> None:
    keys, cache = settings.access.keys, settings.cache
    if keys is not None and cache is not None and keys.resolve().is_relative_to(cache.resolve()):
        raise ConfigurationError("access.keys: expected a file that is not in the cache")


def _check_writes(settings: Settings) -> None:
    """What is written is written in the client's name."""
    for name, upstream in settings.upstreams.items():
        if not upstream.writes:
            continue
        if settings.access.htpasswd is not None:
            raise ConfigurationError(
                f"upstreams.{name}.writes: clients' credentials do not reach a registry where"
                " 'access.htpasswd' asks for others"
            )
        if upstream.account is not None:
            raise ConfigurationError(
                f"upstreams.{name}.writes: nothing is written with the mirror's own account, which"
                f" 'upstreams.{name}' names"
            )


def _defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    """The places that systemd gives (``CacheDirectory=``), the system's for root, or the user's own (XDG)."""
    cache = _place(environ, "CACHE_DIRECTORY", "/var/cache", "XDG_CACHE_HOME", ".cache")
    state = _place(environ, "STATE_DIRECTORY", "/var/lib", "XDG_STATE_HOME", ".local/state")
    return {"cache": cache, "certificates": state / "certificates", "access": {"keys": state / "keys"}}


def _place(environ: Mapping[str, str], given: str, system: str, users: str, home: str) -> Path:
    if places := environ.get(given):
        return Path(places.partition(":")[0])
    if os.getuid() == 0:
        return Path(system) / "dockmirror"
    own = environ.get(users) or Path(environ.get("HOME", "~")).expanduser() / home
    return Path(own) / "dockmirror"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None


def _tabled(source: str, values: Mapping[str, Any]) -> SettingsSource:
    """``upstream``, a list of NAME=URL, and ``access_KEY`` made tables as the file has them."""
    access = {key.removeprefix("access_"): values[key] for key in values if key.startswith("access_")}
    rest = {key: value for key, value in values.items() if not key.startswith("access_")}
    pairs = [_pair(source, text) for text in listed(rest.pop("upstream", ""))]
    tables = {"upstreams": {name: {"url": url} for name, url in pairs}, "access": access}
    return SettingsSource(source, {**rest, **{key: table for key, table in tables.items() if table}})


def _pair(source: str, text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{source}: upstream: expected NAME=URL, not {text!r}")
    return name, url


def _known(known: KnownRegistry) -> dict[str, Any]:
    return {
        "url": known.url,
        "registry": known.registry,
        "realms": known.realms,
        "aliases": known.aliases,
        "short_names": known.short_names,
    }


def _explained(error: ValidationError, said: Sequence[SettingsSource]) -> ConfigurationError:
    """The first thing that is wrong, in a line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    stood = path[:-1] if first["type"] == "missing" else path
    where = next((f"{source.name}: " for source in reversed(said) if _holds(source.values, stood)), "")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"there is no such setting{_hint(path)}"
    elif first["type"] == "missing":
        message = "is missing"
    return ConfigurationError(f"{where}{'.'.join(path) + ': ' if path else ''}{message}")


def _hint(path: Sequence[str]) -> str:
    """Where a key belongs that stands in a wrong place, as below a table; else which is most like it."""
    key, table = path[-1], "" if len(path) == 1 else path[0]
    for table_name, place in _PLACES.items():
        if table_name != table and key in place.keys:
            return f" here: it belongs {place.name}"
    like = get_close_matches(key, _PLACES[table].keys, 1) if table in _PLACES else []
    return f"; is {like[0]!r} meant?" if like else ""


def _holds(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict):
            return True
        if key not in values:
            return False
        values = values[key]
    return bool(path)
