"""Load the settings from the file, the environment and the command line into one frozen value."""

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

from .field_types import split_words
from .known_registries import KNOWN, KnownRegistry
from .settings import AccessSettings, ConfigurationError, Settings, UpstreamSettings

PREFIX = "DOCKMIRROR_"
PASSWORD_PREFIX = f"{PREFIX}PASSWORD_"
"""The prefix of variables that hold passwords; they are no settings, so no setting holds a password."""
_SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in pods for Services with names that begin with ``dockmirror``."""
_TABLES: Mapping[str, Any] = {"access": {}, "upstreams": {"*": {}}}
"""The tables that are merged key by key; any other value is replaced."""


_NAMING = ("domain", "hosts", "names")
_UPSTREAM_NAMING = ("url", "replicas", "registry", "same_registry_as", "aliases", "short_names")
"""The keys that say by which names clients reach the mirror and its upstreams."""


@frozen
class _TableKeys:
    name: str
    keys: Sequence[str]

    @classmethod
    def of(cls, name: str, model: type[BaseModel]) -> _TableKeys:
        return cls(name, [field.alias or key for key, field in model.model_fields.items()])


_TABLE_KEYS = {
    "": _TableKeys.of("above the first table", Settings),
    "access": _TableKeys.of("in [access]", AccessSettings),
    "upstreams": _TableKeys.of("in an upstream's table", UpstreamSettings),
}
"""The keys that each table may have, by the name of the table."""


@frozen
class SettingsSource:
    """The values that one source sets, with tables nested as in the file."""

    name: str
    values: Mapping[str, Any]


def load(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings.  The command line overrides the environment, which overrides the file.

    :param options: the options of the command line, by key; ``config`` names the file.
    :raises ConfigurationError: with the key, its source, and the expected value.
    """
    return merge_sources(read_sources(options, environ))


def read_sources(options: Mapping[str, Any], environ: Mapping[str, str]) -> Sequence[SettingsSource]:
    """Return the values of all sources, in increasing order of precedence.

    :raises ConfigurationError: as ``load`` does.
    """
    variables = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and not key.startswith(PASSWORD_PREFIX) and not _SERVICE_LINK.fullmatch(key)
    }
    path = options.get("config") or variables.pop("config", None)
    variables.pop("config", None)
    operators = [
        SettingsSource(str(path), _read(Path(path)) if path else {}),
        _with_tables("the environment", variables),
        _with_tables("the command line", {k: v for k, v in options.items() if v and k != "config"}),
    ]
    for known in KNOWN:
        if not any(_has_value(source.values, _url_path(known.name)) for source in operators):
            operators = [_share_url(source, known) for source in operators]
    return [
        SettingsSource("default", _defaults(environ)),
        SettingsSource("known", {"upstreams": {known.name: _known_table(known) for known in KNOWN}}),
        *operators,
    ]


def merge_sources(sources: Sequence[SettingsSource]) -> Settings:
    """Merge and validate the values of all sources.

    :raises ConfigurationError: as ``load`` does.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        _check_tables(source)
        merged = _merge_tables(merged, source.values, _TABLES)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, sources) from None
    _check_registries(settings.upstreams)
    _check_shared_accounts(settings)
    _check_keys_path(settings)
    _check_writes(settings)
    return settings


def load_names(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return settings with names and addresses only, for a machine without the mirror's other files.

    :raises ConfigurationError: as ``load`` does.
    """
    return merge_sources([_keep_names(source) for source in read_sources(options, environ)])


def _keep_names(source: SettingsSource) -> SettingsSource:
    _check_tables(source)
    upstreams = {
        name: {key: value for key, value in table.items() if key in _UPSTREAM_NAMING}
        for name, table in source.values.get("upstreams", {}).items()
    }
    names = {key: value for key, value in source.values.items() if key in _NAMING}
    return SettingsSource(source.name, {**names, "upstreams": upstreams})


def find_origin(sources: Sequence[SettingsSource], path: Sequence[str]) -> str:
    """Return the name of the source that a value comes from."""
    return next(
        (source.name for source in reversed(sources) if _has_value(source.values, path)), sources[0].name
    )


def _merge_tables(lower: Mapping[str, Any], upper: Mapping[str, Any], tables: Any) -> dict[str, Any]:
    """Merge nested tables key by key; replace any other value."""
    merged = dict(lower)
    for key, value in upper.items():
        inner = tables.get(key, tables.get("*"))
        merged[key] = value if inner is None else _merge_tables(lower.get(key, {}), value, inner)
    return merged


def _check_tables(source: SettingsSource) -> None:
    tables = source.values.get("upstreams", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(
            f"{source.name}: upstreams: expected a table for each, such as [upstreams.docker]"
        )
    if not isinstance(source.values.get("access", {}), dict):
        raise ConfigurationError(f"{source.name}: access: expected a table, [access]")


def _url_path(name: str) -> Sequence[str]:
    return "upstreams", name, "url"


def _share_url(source: SettingsSource, known: KnownRegistry) -> SettingsSource:
    """Return the source with the followed registry's url set for this registry too."""
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
    """Reject upstreams that share a registry's name in the store without being the same registry.

    All clients of that name are served the same cached contents.
    """
    for name, upstream in upstreams.items():
        other = upstreams.get(upstream.same_registry_as or name)
        if other is None or other.canonical != upstream.canonical:
            raise ConfigurationError(
                f"upstreams.{name}.same_registry_as: expected the name of another upstream with the"
                f" registry {upstream.canonical}"
            )
    for name, upstream in upstreams.items():
        same = _find_same_registry(name, upstreams)
        for another, its in upstreams.items():
            if its.canonical == upstream.canonical and another not in same:
                raise ConfigurationError(
                    f"upstreams.{another}.url: differs from that of 'upstreams.{name}', which has the same"
                    f" registry {upstream.canonical}: contents of one would be served for the other. Expected"
                    " another 'registry', or, when both addresses lead to the same registry,"
                    f" 'same_registry_as = \"{name}\"'"
                )


def _find_same_registry(name: str, upstreams: Mapping[str, UpstreamSettings]) -> set[str]:
    """Return all upstreams that are the same registry as this one, by declaration or by equal urls."""
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


def _check_shared_accounts(settings: Settings) -> None:
    shared = {name: upstream for name, upstream in settings.upstreams.items() if upstream.account is not None}
    if shared and settings.access.htpasswd is None and "networks" not in settings.model_fields_set:
        name, upstream = next(iter(shared.items()))
        key = "username" if upstream.username is not None else "credential_helper"
        raise ConfigurationError(
            f"networks: is missing: every client that reaches the mirror can pull from {name} with the"
            f" account of 'upstreams.{name}.{key}'. Name the networks, or the users in 'access.htpasswd'"
        )


def _check_keys_path(settings: Settings) -> None:
    keys, cache = settings.access.keys, settings.cache
    if keys is not None and cache is not None and keys.resolve().is_relative_to(cache.resolve()):
        raise ConfigurationError("access.keys: expected a file outside the cache directory")


def _check_writes(settings: Settings) -> None:
    """Reject writes with other credentials than the client's own."""
    for name, upstream in settings.upstreams.items():
        if not upstream.writes:
            continue
        if settings.access.htpasswd is not None:
            raise ConfigurationError(
                f"upstreams.{name}.writes: cannot be combined with 'access.htpasswd': a registry"
                " needs the client's own credentials for a push"
            )
        if upstream.account is not None:
            raise ConfigurationError(
                f"upstreams.{name}.writes: cannot be combined with the mirror's own account in"
                f" 'upstreams.{name}': a push needs the client's own credentials"
            )


def _defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return directories: of systemd (``CacheDirectory=``), of the system for root, or of the user (XDG)."""
    cache = _directory(environ, "CACHE_DIRECTORY", "/var/cache", "XDG_CACHE_HOME", ".cache")
    state = _directory(environ, "STATE_DIRECTORY", "/var/lib", "XDG_STATE_HOME", ".local/state")
    return {"cache": cache, "certificates": state / "certificates", "access": {"keys": state / "keys"}}


def _directory(environ: Mapping[str, str], given: str, system: str, users: str, home: str) -> Path:
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


def _with_tables(source: str, values: Mapping[str, Any]) -> SettingsSource:
    """Convert ``upstream``, a list of NAME=URL, and ``access_KEY`` to tables as in the file."""
    access = {key.removeprefix("access_"): values[key] for key in values if key.startswith("access_")}
    rest = {key: value for key, value in values.items() if not key.startswith("access_")}
    pairs = [_parse_upstream(source, text) for text in split_words(rest.pop("upstream", ""))]
    tables = {"upstreams": {name: {"url": url} for name, url in pairs}, "access": access}
    return SettingsSource(source, {**rest, **{key: table for key, table in tables.items() if table}})


def _parse_upstream(source: str, text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{source}: upstream: expected NAME=URL, not {text!r}")
    return name, url


def _known_table(known: KnownRegistry) -> dict[str, Any]:
    return {
        "url": known.url,
        "registry": known.registry,
        "realms": known.realms,
        "aliases": known.aliases,
        "short_names": known.short_names,
    }


def _explain(error: ValidationError, sources: Sequence[SettingsSource]) -> ConfigurationError:
    """Describe the first error in one line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    position = path[:-1] if first["type"] == "missing" else path
    where = next(
        (f"{source.name}: " for source in reversed(sources) if _has_value(source.values, position)), ""
    )
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"there is no such setting{_hint(path)}"
    elif first["type"] == "missing":
        message = "is missing"
    return ConfigurationError(f"{where}{'.'.join(path) + ': ' if path else ''}{message}")


def _hint(path: Sequence[str]) -> str:
    """Name the table that a misplaced key belongs in, or else the most similar key."""
    key, table = path[-1], "" if len(path) == 1 else path[0]
    for table_name, table_keys in _TABLE_KEYS.items():
        if table_name != table and key in table_keys.keys:
            return f" here: it belongs {table_keys.name}"
    like = get_close_matches(key, _TABLE_KEYS[table].keys, 1) if table in _TABLE_KEYS else []
    return f"; is {like[0]!r} meant?" if like else ""


def _has_value(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict):
            return True
        if key not in values:
            return False
        values = values[key]
    return bool(path)
